//! Whether a function's folder is other than before, for `deploy --watch`.
//!
//! It is looked at again and again, not waited for by inotify(7): that misses file systems of other machines, and needs a watch for
//! each folder, which editors replace by renaming.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::pack;

/// Time between two looks. What is deployed was the same in two of them, so that an editor or a copy has finished.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// What tells the state of a folder or a file from others: names, sizes, modes and times of all that would be packed.
///
/// # Errors
/// Something cannot be looked at: it is being replaced, perhaps.
pub(super) fn mark(path: &Path) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    add(path, &mut hasher)?;
    Ok(hasher.finish())
}

fn add(path: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        (meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ino(), meta.mode()).hash(hasher);
        return Ok(());
    }
    meta.mode().hash(hasher);
    let mut names = fs::read_dir(path)?.map(|entry| entry.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        if pack::is_left_out(&name) || name.to_str().is_some_and(is_of_an_editor) {
            continue;
        }
        name.hash(hasher);
        add(&path.join(&name), hasher)?;
    }
    Ok(())
}

/// Files that vim, Emacs and others make while one of the user's is open, and change with each key or just before they save.
fn is_of_an_editor(name: &str) -> bool {
    let swap = name.starts_with('.') && [".swp", ".swo", ".swx"].iter().any(|end| name.ends_with(end));
    swap || name.ends_with('~')
        || name.starts_with(".#")
        || name.starts_with('#') && name.ends_with('#')
        || name == "4913"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_packed_counts_and_what_editors_and_git_leave_does_not() {
        let dir = std::env::temp_dir().join(format!("tinyfaas-changes-{}", std::process::id()));
        fs::create_dir_all(dir.join("lib")).unwrap();
        fs::create_dir_all(dir.join(".git")).unwrap();
        fs::write(dir.join("fn.py"), "a").unwrap();
        let first = mark(&dir).unwrap();
        for quiet in [".fn.py.swp", "fn.py~", "#fn.py#", "4913", ".git/index"] {
            fs::write(dir.join(quiet), "x").unwrap();
            assert_eq!(mark(&dir).unwrap(), first, "{quiet}");
        }
        // As editors save: another file takes the name. It may have the size and the time of the one before.
        fs::write(dir.join("fn.py~"), "b").unwrap();
        fs::rename(dir.join("fn.py~"), dir.join("fn.py")).unwrap();
        let second = mark(&dir).unwrap();
        assert_ne!(second, first);
        fs::write(dir.join("lib/new.py"), "").unwrap();
        assert_ne!(mark(&dir).unwrap(), second);
        fs::remove_dir_all(&dir).unwrap();
        assert!(mark(&dir).is_err());
    }
}
