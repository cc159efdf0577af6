//! A function's folder as a zip archive, and what the folder says about the function.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::function::Runtime;
use crate::wire::zip::write::Writer;

/// The file that tells which runtime a folder is for.
const MARKS: [(&str, Runtime); 3] =
    [("fn.py", Runtime::Python3), ("package.json", Runtime::Nodejs), ("fn.sh", Runtime::Binary)];

/// Left out of an archive: a repository's history is no part of a function, and larger than it.
const LEFT_OUT: &str = ".git";

/// Writes all files below `dir` to `out`, sorted by name: the same folder gives the same archive.
///
/// # Errors
/// Naming the file that could not be read, or as writing fails.
pub(super) fn write_zip(dir: &Path, out: &mut dyn Write) -> io::Result<()> {
    let mut zip = Writer::new(out);
    add(&mut zip, dir, "")?;
    zip.finish().map(drop)
}

fn add(zip: &mut Writer<&mut dyn Write>, dir: &Path, prefix: &str) -> io::Result<()> {
    let mut entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(|e| at(dir, &e))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        if name == LEFT_OUT {
            continue;
        }
        let name = name.to_str().ok_or_else(|| at(&path, &io::Error::other("the name is not UTF-8")))?;
        let name = format!("{prefix}{name}");
        let meta = fs::symlink_metadata(&path).map_err(|e| at(&path, &e))?;
        let mode = meta.permissions().mode();
        if meta.is_dir() {
            zip.directory(&name, mode)?;
            add(zip, &path, &format!("{name}/"))?;
        } else if meta.is_symlink() {
            let target = fs::read_link(&path).map_err(|e| at(&path, &e))?;
            let target = target.to_str().ok_or_else(|| at(&path, &io::Error::other("the target is not UTF-8")))?;
            zip.symlink(&name, target)?;
        } else if meta.is_file() {
            let mut file = File::open(&path).map_err(|e| at(&path, &e))?;
            zip.file(&name, mode, &mut file)?;
        } else {
            return Err(at(&path, &io::Error::other("it is neither a file nor a folder nor a link")));
        }
    }
    Ok(())
}

fn at(path: &Path, e: &io::Error) -> io::Error {
    io::Error::other(format!("cannot pack {}: {e}", path.display()))
}

/// Which runtime the files in `dir` are for.
///
/// # Errors
/// One line, where that is not plain.
pub(super) fn detect(dir: &Path) -> Result<Runtime, String> {
    let found: Vec<_> = MARKS.iter().filter(|(file, _)| dir.join(file).is_file()).collect();
    match found.as_slice() {
        [(_, runtime)] => Ok(*runtime),
        [] => Err(format!("{} has no fn.py, package.json or fn.sh at its top: is it the folder?", dir.display())),
        [(one, _), (two, _), ..] => {
            Err(format!("{} has both {one} and {two}: say --env python3, nodejs or binary", dir.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(test: &str, files: &[&str]) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("tinyfaas-pack-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join(".git")).unwrap();
        for file in files {
            fs::write(dir.join(file), file).unwrap();
        }
        dir
    }

    #[test]
    fn the_runtime_shows_in_the_files() {
        let dir = folder("detect", &["fn.py"]);
        assert_eq!(detect(&dir), Ok(Runtime::Python3));
        fs::write(dir.join("fn.sh"), "").unwrap();
        assert!(detect(&dir).unwrap_err().contains("both fn.py and fn.sh"));
        fs::remove_file(dir.join("fn.py")).unwrap();
        assert_eq!(detect(&dir), Ok(Runtime::Binary));
        fs::remove_file(dir.join("fn.sh")).unwrap();
        assert!(detect(&dir).unwrap_err().contains("no fn.py"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_folder_gives_the_same_archive_each_time_and_no_history() {
        let dir = folder("same", &["b", "a", ".git/x"]);
        let pack = || {
            let mut out = Vec::new();
            write_zip(&dir, &mut out).unwrap();
            out
        };
        let zip = pack();
        assert_eq!(zip, pack());
        assert!(!zip.windows(4).any(|w| w == b".git"));
        fs::remove_dir_all(&dir).unwrap();
        assert!(write_zip(&dir, &mut Vec::new()).unwrap_err().to_string().contains("cannot pack"));
    }
}
