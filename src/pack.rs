//! A function's folder as a zip archive, and what the folder says about the function.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::function::Runtime;
use crate::runtimes;
use crate::wire::zip::{Archive, Bounds, Writer, path};

/// Left out wherever they are: a repository's history is no part of a function and larger than it, and Python writes
/// its caches again.
const LEFT_OUT: [&str; 2] = [".git", "__pycache__"];

/// Largest `package.json` that is looked into, in bytes.
const MAX_PACKAGE_JSON: u64 = 1024 * 1024;

/// Writes all files below `dir` to `zip`, sorted by name: the same folder gives the same archive.
///
/// The folder's own `node_modules` is left out where `package.json` names dependencies: the deployment installs them,
/// and for the board's processor, not this machine's. Without any, what is in it was put there by hand and belongs to
/// the function. Symbolic links are packed as links, and refused where they lead out of the folder.
///
/// # Errors
/// Naming the file that could not be read, or may not be in an archive; or as writing fails.
pub fn write_zip(dir: &Path, mut zip: Writer<&mut dyn Write>) -> io::Result<()> {
    let left_out = installs_dependencies(dir).then_some("node_modules");
    add(&mut zip, dir, "", left_out)?;
    zip.finish().map(drop)
}

/// Whether `package.json` in `dir` names dependencies.
fn installs_dependencies(dir: &Path) -> bool {
    let mut text = Vec::new();
    let read = File::open(dir.join("package.json")).and_then(|file| file.take(MAX_PACKAGE_JSON).read_to_end(&mut text));
    let node = runtimes::find(Runtime::NODEJS).and_then(|spec| spec.dependencies.as_ref());
    read.is_ok() && node.is_some_and(|dependencies| dependencies.are_asked_for_by(&text))
}

fn add(zip: &mut Writer<&mut dyn Write>, dir: &Path, prefix: &str, left_out: Option<&str>) -> io::Result<()> {
    let mut entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(|e| at(dir, &e))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let wrong = |why: &str| at(&path, &io::Error::other(why.to_owned()));
        let name = entry.file_name();
        if LEFT_OUT.into_iter().chain(left_out).any(|left_out| name == left_out) {
            continue;
        }
        let name = name.to_str().ok_or_else(|| wrong("the name is not UTF-8"))?;
        let name = format!("{prefix}{name}");
        path::clean(name.as_bytes()).map_err(wrong)?;
        let meta = fs::symlink_metadata(&path).map_err(|e| at(&path, &e))?;
        let mode = meta.permissions().mode();
        if meta.is_dir() {
            zip.directory(&name, mode)?;
            add(zip, &path, &format!("{name}/"), None)?;
        } else if meta.is_symlink() {
            let target = fs::read_link(&path).map_err(|e| at(&path, &e))?;
            let target = target.to_str().ok_or_else(|| wrong("the target is not UTF-8"))?;
            path::check_target(&name, target).map_err(wrong)?;
            zip.symlink(&name, target)?;
        } else if meta.is_file() {
            let mut file = File::open(&path).map_err(|e| at(&path, &e))?;
            zip.file(&name, mode, &mut file)?;
        } else {
            return Err(wrong("it is neither a file nor a folder nor a link"));
        }
    }
    Ok(())
}

/// Whether what has that name is left out of each archive.
pub fn is_left_out(name: &std::ffi::OsStr) -> bool {
    LEFT_OUT.iter().any(|left_out| name == *left_out)
}

fn at(path: &Path, e: &io::Error) -> io::Error {
    io::Error::other(format!("cannot pack {}: {e}", path.display()))
}

/// Which runtime the files in `dir` are for.
///
/// # Errors
/// One line, where that is not plain.
pub fn detect(dir: &Path) -> Result<Runtime, String> {
    detect_by(|file| dir.join(file).is_file(), &dir.display().to_string())
}

/// Which runtime the function in the zip archive `path` is for, in its folder `subfolder`; `shown` names it. Blocking.
///
/// # Errors
/// One line, where that is not plain, or the archive cannot be read.
pub fn detect_in_zip(path: &Path, subfolder: &str, shown: &str) -> Result<Runtime, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let len = file.metadata().map_err(|e| e.to_string())?.len();
    let archive = Archive::open(file, len, &Bounds::default()).map_err(|e| format!("{shown}: {e}"))?;
    // A name that cannot be looked up is refused again, and by its reason, when the archive is checked.
    detect_by(|file| archive.has_file(subfolder, file).unwrap_or(false), shown)
}

/// Which runtime a function is for that `has` these files at its top; `shown` names it.
///
/// # Errors
/// One line, where that is not plain.
pub fn detect_by(has: impl Fn(&str) -> bool, shown: &str) -> Result<Runtime, String> {
    // An operator's runtime that wants the same file as one of ours is only had by its name.
    let mut found: Vec<(&str, Runtime)> = Vec::new();
    for spec in runtimes::all() {
        let mark = spec.entries.first().filter(|mark| found.iter().all(|(other, _)| other != *mark) && has(mark));
        found.extend(mark.map(|mark| (*mark, spec.runtime)));
    }
    match found.as_slice() {
        [(_, runtime)] => Ok(*runtime),
        // An index.js beside a fn.py may be anything; where no mark is there it is the function.
        [] => {
            let spec = runtimes::all().find(|spec| spec.entries.iter().any(|file| has(file)));
            let marks = || {
                let marks: Vec<_> = runtimes::all().filter_map(|spec| spec.entries.first().copied()).collect();
                let marks = runtimes::either(&marks);
                format!("{shown} has no {marks} at its top: is it the function, and of which env?")
            };
            spec.map(|spec| spec.runtime).ok_or_else(marks)
        }
        [(one, _), (two, _), ..] => Err(format!("{shown} has both {one} and {two}: say env {}", runtimes::choices())),
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
        assert_eq!(detect(&dir), Ok(Runtime::PYTHON3));
        fs::write(dir.join("fn.sh"), "").unwrap();
        assert!(detect(&dir).unwrap_err().contains("both fn.py and fn.sh"));
        fs::remove_file(dir.join("fn.py")).unwrap();
        assert_eq!(detect(&dir), Ok(Runtime::BINARY));
        fs::remove_file(dir.join("fn.sh")).unwrap();
        assert!(detect(&dir).unwrap_err().contains("no fn.py, package.json, fn.sh or fn.go at its top"));
        fs::write(dir.join("fn.mjs"), "").unwrap();
        assert_eq!(detect(&dir), Ok(Runtime::NODEJS));
        fs::write(dir.join("fn.py"), "").unwrap();
        assert_eq!(detect(&dir), Ok(Runtime::PYTHON3));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_folder_gives_the_same_archive_each_time_and_no_history() {
        let dir = folder("same", &["b", "a", ".git/x"]);
        let pack = || {
            let mut out = Vec::new();
            write_zip(&dir, Writer::new(&mut out)).unwrap();
            out
        };
        let zip = pack();
        assert_eq!(zip, pack());
        assert!(!zip.windows(4).any(|w| w == b".git"));
        fs::remove_dir_all(&dir).unwrap();
        assert!(write_zip(&dir, Writer::new(&mut Vec::new())).unwrap_err().to_string().contains("cannot pack"));
    }

    #[test]
    fn caches_are_left_out_and_installed_modules_where_they_are_installed_again() {
        let dir = folder("modules", &["fn.js"]);
        for inner in ["__pycache__", "lib/__pycache__", "node_modules/a", "lib/node_modules"] {
            fs::create_dir_all(dir.join(inner)).unwrap();
            fs::write(dir.join(inner).join("x"), "").unwrap();
        }
        let holds = |name: &str| {
            let mut zip = Vec::new();
            write_zip(&dir, Writer::stored(&mut zip)).unwrap();
            zip.windows(name.len()).any(|w| w == name.as_bytes())
        };
        assert!(!holds("__pycache__"));
        assert!(holds("node_modules/a/x") && holds("lib/node_modules/x"));
        for (package, kept) in [
            (r#"{"name":"fn"}"#, true),
            (r#"{"dependencies":{}}"#, true),
            // Its installation says what is wrong with it.
            ("broken", false),
            (r#"{"dependencies":{"ms":"2"}}"#, false),
        ] {
            fs::write(dir.join("package.json"), package).unwrap();
            assert_eq!(holds("node_modules/a/x"), kept, "{package}");
            assert!(holds("lib/node_modules/x"));
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn links_inside_are_packed_and_what_the_server_would_refuse_is_refused_here() {
        let dir = folder("links", &["fn.py"]);
        let refusal = || write_zip(&dir, Writer::new(&mut Vec::new())).unwrap_err().to_string();
        std::os::unix::fs::symlink("fn.py", dir.join("inside")).unwrap();
        write_zip(&dir, Writer::new(&mut Vec::new())).unwrap();
        let outside = dir.join("outside");
        for target in ["/etc/passwd", "../x"] {
            std::os::unix::fs::symlink(target, &outside).unwrap();
            assert!(refusal().contains("/outside: the symbolic link"), "{}", refusal());
            fs::remove_file(&outside).unwrap();
        }
        let socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
        assert!(refusal().contains("/socket: it is neither a file"));
        drop(socket);
        fs::remove_file(dir.join("socket")).unwrap();
        fs::write(dir.join("back\\slash"), "").unwrap();
        assert!(refusal().contains("the name holds a backslash"));
        fs::remove_dir_all(dir).unwrap();
    }
}
