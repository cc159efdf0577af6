//! Names in archives: which are acceptable, and where a symbolic link may point.
//!
//! Pure text; nothing here looks at a file system.

/// Longest path in bytes: it has to fit a tar header's long name and any file system's `PATH_MAX` with room to spare.
pub const MAX_PATH: usize = 1024;
/// Longest segment in bytes: what Linux file systems take.
pub const MAX_SEGMENT: usize = 255;
/// Most segments: nested package folders stay well below.
pub const MAX_DEPTH: usize = 64;

/// Takes an entry's raw name: the path without a leading `/` or `./` and without a trailing `/`, and whether it had
/// the latter. The path is empty for an entry that is the top folder itself (`/`, `./`).
///
/// # Errors
/// What is wrong with the name, as the end of a sentence that begins with the name.
pub fn clean(raw: &[u8]) -> Result<(&str, bool), &'static str> {
    let text = std::str::from_utf8(raw).map_err(|_| "the name is not UTF-8; pack it with a current zip tool")?;
    if text.is_empty() {
        return Err("the name is empty");
    }
    if text.len() > MAX_PATH {
        return Err("the name is longer than 1024 bytes");
    }
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("the name holds a control character");
    }
    if text.contains('\\') {
        return Err("the name holds a backslash; separate folders with /");
    }
    let mut rest = text;
    while let Some(shorter) = rest.strip_prefix('/').or_else(|| rest.strip_prefix("./")) {
        rest = shorter;
    }
    if rest.is_empty() || rest == "." {
        return Ok(("", true));
    }
    if let [drive, b':', ..] = rest.as_bytes()
        && drive.is_ascii_alphabetic()
    {
        return Err("the name begins with a drive letter; use a relative path");
    }
    let (path, folder) = rest.strip_suffix('/').map_or((rest, false), |path| (path, true));
    check_segments(path)?;
    Ok((path, folder))
}

fn check_segments(path: &str) -> Result<(), &'static str> {
    for (depth, segment) in path.split('/').enumerate() {
        match segment {
            "" => return Err("the name holds //"),
            "." => return Err("the name holds a . segment"),
            ".." => return Err("the name leads out of the archive (..)"),
            _ if segment.len() > MAX_SEGMENT => return Err("a part of the name is longer than 255 bytes"),
            _ if depth >= MAX_DEPTH => return Err("the name is nested deeper than 64 folders"),
            _ => {}
        }
    }
    Ok(())
}

/// Takes a folder that a user names: `/`, `.` and nothing are the top, leading and trailing `/` are dropped.
///
/// # Errors
/// One line that says what is wrong.
pub fn subfolder(text: &str) -> Result<&str, &'static str> {
    if text.is_empty() {
        return Ok("");
    }
    clean(text.as_bytes()).map(|(path, _)| path)
}

/// Checks that the symbolic link at `link`, a clean path, points inside the root.
///
/// The rule is stricter than the text alone needs: `..` only at the front, no more of them than the link has folders
/// above it. The link's own folders are real (nothing is ever placed through a link), so the climb is exact; and going
/// down through another link ends, by the same rule, inside again. `down/../..` could not be judged without following.
///
/// # Errors
/// What is wrong with the target, as the end of a sentence that begins with the link's name.
pub fn check_target(link: &str, target: &str) -> Result<(), &'static str> {
    if target.is_empty() {
        return Err("the symbolic link has no target");
    }
    if target.len() > MAX_PATH {
        return Err("the symbolic link's target is longer than 1024 bytes");
    }
    if target.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("the symbolic link's target holds a control character");
    }
    if target.starts_with('/') {
        return Err("the symbolic link is absolute; make it relative");
    }
    let mut above = link.matches('/').count();
    let mut down = false;
    for segment in target.split('/') {
        match segment {
            "" | "." => {}
            ".." if down => return Err("the symbolic link's target has .. after a name; only leading .. are taken"),
            ".." => above = above.checked_sub(1).ok_or("the symbolic link leads out of the function's folder")?,
            _ if segment.len() > MAX_SEGMENT => return Err("a part of the symbolic link's target is over 255 bytes"),
            _ => down = true,
        }
    }
    Ok(())
}

/// Files that macOS adds to archives and nobody means: `__MACOSX/` and `.DS_Store`.
pub fn is_junk(path: &str) -> bool {
    path == "__MACOSX" || path.starts_with("__MACOSX/") || path.rsplit('/').next() == Some(".DS_Store")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_spellings_of_a_name_come_out_the_same() {
        for raw in ["fn.py", "/fn.py", "./fn.py", "//./fn.py"] {
            assert_eq!(clean(raw.as_bytes()), Ok(("fn.py", false)), "{raw}");
        }
        assert_eq!(clean(b"a/b/"), Ok(("a/b", true)));
        for top in ["/", "./", ".", "//"] {
            assert_eq!(clean(top.as_bytes()), Ok(("", true)), "{top}");
        }
        assert_eq!(clean("ä/…".as_bytes()), Ok(("ä/…", false)));
        assert_eq!(clean(b"a:b"), Err("the name begins with a drive letter; use a relative path"));
        assert_eq!(clean(b"12:30"), Ok(("12:30", false)));
        assert_eq!(clean(b"..."), Ok(("...", false)));
    }

    #[test]
    fn names_that_escape_or_confuse_are_refused() {
        for raw in
            ["../a", "a/../b", "/../a", "a/..", "..", "a//b", "a/./b", "a\\b", "C:/a", "/c:a", "a\0b", "a\nb", ""]
        {
            assert!(clean(raw.as_bytes()).is_err(), "{raw:?}");
        }
        assert!(clean(b"\xff").is_err());
        assert!(clean(&[b'a'; 256]).is_err());
        assert!(clean(&[b'a'; 255]).is_ok());
        assert!(clean("a/".repeat(513).as_bytes()).is_err());
        assert!(clean("a/".repeat(MAX_DEPTH).as_bytes()).is_ok());
        assert!(clean("a/".repeat(MAX_DEPTH + 1).as_bytes()).is_err());
    }

    #[test]
    fn links_stay_inside_whatever_other_links_do() {
        for (link, target) in
            [("a", "b"), ("a", "b/c"), ("a", "."), ("d/a", ".."), ("d/a", "../b"), ("d/e/a", "../../b/"), ("a", "./b")]
        {
            assert_eq!(check_target(link, target), Ok(()), "{link} -> {target}");
        }
        for (link, target) in [
            ("a", ""),
            ("a", "/etc/passwd"),
            ("a", ".."),
            ("a", "../b"),
            ("d/a", "../.."),
            ("d/a", "../../b"),
            ("a", "b/.."),
            ("a", "b/../../etc"),
            ("a", "./../b"),
            ("a", "b\0"),
        ] {
            assert!(check_target(link, target).is_err(), "{link} -> {target}");
        }
    }

    #[test]
    fn a_subfolder_is_taken_with_or_without_slashes() {
        for (text, path) in [("", ""), ("/", ""), (".", ""), ("a/b", "a/b"), ("/a/b/", "a/b")] {
            assert_eq!(subfolder(text), Ok(path), "{text}");
        }
        assert!(subfolder("../a").is_err());
    }

    #[test]
    fn only_what_macos_adds_is_junk() {
        for path in ["__MACOSX", "__MACOSX/._fn.py", ".DS_Store", "a/.DS_Store"] {
            assert!(is_junk(path), "{path}");
        }
        for path in ["a/__MACOSX", "DS_Store", "a.DS_Store", "__MACOSX2"] {
            assert!(!is_junk(path), "{path}");
        }
    }
}
