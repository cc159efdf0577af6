//! The reader against archives of other tools and of attackers, and the writer against other tools.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::unpack::Unpack;
use crate::wire::tar::TarSink;

/// A folder that is removed at the end of a test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tinyfaas-zip-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes what it is told of as lines.
#[derive(Default)]
struct Told(Vec<String>);

impl Sink for Told {
    fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.0.push(format!("{path}/ {mode:o}"));
        Ok(())
    }
    fn file(&mut self, path: &str, mode: u32, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut text = Vec::new();
        content.read_to_end(&mut text)?;
        assert_eq!(text.len() as u64, size);
        self.0.push(format!("{path} {mode:o} {}", String::from_utf8_lossy(&text)));
        Ok(())
    }
    fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.0.push(format!("{path} -> {target}"));
        Ok(())
    }
}

fn visit_in(bytes: &[u8], subfolder: &str, bounds: &Bounds) -> Result<Vec<String>, Error> {
    let mut told = Told::default();
    Archive::open(Cursor::new(bytes), bytes.len() as u64, bounds)?.visit(subfolder, &mut told)?;
    Ok(told.0)
}

fn visit(bytes: &[u8]) -> Result<Vec<String>, Error> {
    visit_in(bytes, "", &Bounds::default())
}

fn refusal(bytes: &[u8]) -> String {
    match visit(bytes) {
        Err(Error::Refused(text) | Error::TooLarge(text)) => text,
        other => panic!("not refused: {other:?}"),
    }
}

/// One entry of an archive that no honest tool would write.
#[derive(Clone)]
struct Raw {
    name: Vec<u8>,
    local_name: Option<Vec<u8>>,
    mode: u32,
    host: u8,
    flags: u16,
    method: u16,
    data: Vec<u8>,
    size: u32,
    crc: u32,
    disk: u16,
    extra: Vec<u8>,
    offset: Option<u32>,
}

fn raw(name: impl AsRef<[u8]>, data: &[u8]) -> Raw {
    Raw {
        name: name.as_ref().to_vec(),
        local_name: None,
        mode: 0o100_644,
        host: 3,
        flags: 0,
        method: 0,
        data: data.to_vec(),
        size: data.len() as u32,
        crc: crc32fast::hash(data),
        disk: 0,
        extra: vec![],
        offset: None,
    }
}

fn deflated(name: &str, data: &[u8]) -> Raw {
    let packed = miniz_oxide::deflate::compress_to_vec(data, 6);
    Raw { method: 8, data: packed, ..raw(name, data) }.with(data)
}

impl Raw {
    fn with(mut self, data: &[u8]) -> Self {
        (self.size, self.crc) = (data.len() as u32, crc32fast::hash(data));
        self
    }
    fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}

fn link(name: &str, target: &str) -> Raw {
    raw(name, target.as_bytes()).mode(0o120_777)
}

fn archive(entries: &[Raw]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for e in entries {
        let start = e.offset.unwrap_or(out.len() as u32);
        let local_name = e.local_name.as_ref().unwrap_or(&e.name);
        let mut common = Vec::new();
        for v in [20, e.flags, e.method, 0, 33] {
            common.extend(v.to_le_bytes());
        }
        for v in [e.crc, e.data.len() as u32, e.size] {
            common.extend(v.to_le_bytes());
        }
        if e.offset.is_none() {
            out.extend(b"PK\x03\x04");
            out.extend(&common);
            out.extend((local_name.len() as u16).to_le_bytes());
            out.extend([0, 0]);
            out.extend(local_name);
            out.extend(&e.data);
        }
        directory.extend(b"PK\x01\x02\x14");
        directory.push(e.host);
        directory.extend(&common);
        for v in [e.name.len() as u16, e.extra.len() as u16, 0, e.disk, 0] {
            directory.extend(v.to_le_bytes());
        }
        directory.extend((e.mode << 16).to_le_bytes());
        directory.extend(start.to_le_bytes());
        directory.extend(&e.name);
        directory.extend(&e.extra);
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(end(entries.len() as u16, directory.len() as u32, start));
    out
}

fn end(entries: u16, size: u32, start: u32) -> Vec<u8> {
    let mut out = b"PK\x05\x06\0\0\0\0".to_vec();
    for v in [entries, entries] {
        out.extend(v.to_le_bytes());
    }
    for v in [size, start] {
        out.extend(v.to_le_bytes());
    }
    out.extend([0, 0]);
    out
}

/// Runs a Python program with the archive's path as its argument.
fn python(program: &str) -> Vec<u8> {
    let scratch = Scratch::new();
    let file = scratch.path("a.zip");
    let status = Command::new("python3").arg("-c").arg(program).arg(&file).current_dir(&scratch.0).status();
    assert!(status.expect("these tests need python3").success());
    fs::read(file).unwrap()
}

#[test]
fn python_archives_with_and_without_folder_entries() {
    let zip = python(
        "import sys, zipfile\n\
         z = zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED)\n\
         z.writestr('fn.py', 'x' * 100)\n\
         z.writestr('a/b/c.txt', 'deep')\n\
         z.mkdir('empty')\n\
         z.close()",
    );
    let want = [&format!("fn.py 644 {}", "x".repeat(100)), "a/ 755", "a/b/ 755", "a/b/c.txt 644 deep", "empty/ 777"];
    // Python's mkdir writes mode 0777.
    assert_eq!(visit(&zip).unwrap(), want);
}

#[test]
fn an_archive_written_to_a_pipe_has_its_sizes_only_in_the_directory() {
    let zip = python(
        "import sys, zipfile, subprocess\n\
         inner = '''import sys, zipfile\n\
with zipfile.ZipFile(sys.stdout.buffer, 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('fn.py', 'abc' * 50); z.writestr('b', '')'''\n\
         out = subprocess.run([sys.executable, '-c', inner], stdout=subprocess.PIPE, check=True).stdout\n\
         assert out[6] & 8, 'no data descriptor'\n\
         open(sys.argv[1], 'wb').write(out)",
    );
    assert_eq!(visit(&zip).unwrap(), [format!("fn.py 644 {}", "abc".repeat(50)), "b 644 ".into()]);
}

#[test]
fn zip64_records_are_read() {
    let zip = python(
        "import sys, zipfile\n\
         z = zipfile.ZipFile(sys.argv[1], 'w')\n\
         f = z.open('fn.py', 'w', force_zip64=True); f.write(b'wide'); f.close()\n\
         zipfile.ZIP_FILECOUNT_LIMIT = 0\n\
         z.close()",
    );
    assert!(zip.windows(4).any(|w| w == b"PK\x06\x06"), "python wrote no zip64 end record");
    assert_eq!(visit(&zip).unwrap(), ["fn.py 644 wide"]);
}

#[test]
fn zip64_sizes_in_the_directory_are_read_and_missing_ones_refused() {
    let mut wide = raw("fn.py", b"wide");
    // Size, packed size: both in the extra field.
    wide.extra = [&[1, 0, 16, 0][..], &4u64.to_le_bytes(), &4u64.to_le_bytes()].concat();
    let mut zip = archive(&[wide.clone()]);
    let record = zip.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    zip[record + 20..record + 28].fill(0xff);
    assert_eq!(visit(&zip).unwrap(), ["fn.py 644 wide"]);
    wide.extra = vec![1, 0, 200, 0];
    let mut zip = archive(&[wide]);
    zip[record + 20..record + 28].fill(0xff);
    assert!(refusal(&zip).contains("zip64 sizes are missing"));
}

#[test]
fn unix_modes_are_kept_and_other_systems_get_the_default() {
    let mut dos = raw("c", b"3");
    dos.host = 0;
    let zip =
        archive(&[raw("a", b"1").mode(0o100_755), raw("b", b"2").mode(0o104_640), dos, raw("d/", b"").mode(0o040_700)]);
    assert_eq!(visit(&zip).unwrap(), ["a 755 1", "b 644 2", "c 644 3", "d/ 755"]);
}

#[test]
fn the_go_client_writes_a_leading_slash() {
    let zip =
        archive(&[raw("/", b"").mode(0o040_755), raw("/fn.py", b"x"), raw("/lib/", b"").mode(0), raw("/lib/a", b"y")]);
    assert_eq!(visit(&zip).unwrap(), ["fn.py 644 x", "lib/ 755", "lib/a 644 y"]);
}

#[test]
fn a_single_top_folder_is_the_root_as_in_github_archives() {
    let zip = archive(&[
        raw("repo-main/", b"").mode(0o040_755),
        raw("repo-main/fn.py", b"x"),
        raw("repo-main/sub/fn.py", b"y"),
        raw("repo-main/sub/deep/a", b"z"),
    ]);
    assert_eq!(
        visit(&zip).unwrap(),
        ["fn.py 644 x", "sub/ 755", "sub/fn.py 644 y", "sub/deep/ 755", "sub/deep/a 644 z"]
    );
    let bounds = Bounds::default();
    for subfolder in ["sub", "/sub/", "repo-main/sub"] {
        assert_eq!(visit_in(&zip, subfolder, &bounds).unwrap(), ["fn.py 644 y", "deep/ 755", "deep/a 644 z"]);
    }
    let error = visit_in(&zip, "nowhere", &bounds).unwrap_err().to_string();
    assert_eq!(error, r#"the zip archive has no folder "nowhere"; at its top are "repo-main""#);
    assert!(visit_in(&zip, "sub/fn.py", &bounds).unwrap_err().to_string().contains("not a folder"));
    assert!(visit_in(&zip, "../sub", &bounds).unwrap_err().to_string().contains("leads out"));
    // Only within its own bounds: a folder whose name merely begins alike is another one.
    assert!(visit_in(&zip, "su", &bounds).is_err());
}

#[test]
fn a_missing_folder_lists_no_more_than_five_names() {
    let files: Vec<_> = (0..7).map(|n| raw(format!("f{n}"), b"")).collect();
    let error = visit_in(&archive(&files), "x", &Bounds::default()).unwrap_err().to_string();
    assert_eq!(error, r#"the zip archive has no folder "x"; at its top are "f0", "f1", "f2", "f3", "f4" and more"#);
}

#[test]
fn what_macos_adds_is_ignored() {
    let zip = archive(&[
        raw("fn/fn.py", b"x"),
        raw("__MACOSX/", b"").mode(0o040_755),
        raw("__MACOSX/fn/._fn.py", b"junk"),
        raw("fn/.DS_Store", b"junk"),
        raw(".DS_Store", b"junk"),
    ]);
    assert_eq!(visit(&zip).unwrap(), ["fn.py 644 x"]);
    assert_eq!(refusal(&archive(&[raw(".DS_Store", b"")])), "the zip archive holds no files");
}

#[test]
fn a_folder_comes_before_its_files_even_where_its_entry_comes_last() {
    let zip =
        archive(&[raw("a/b", b"1"), raw("a/", b"").mode(0o040_775), raw("a/", b"").mode(0o040_775), raw("c", b"2")]);
    assert_eq!(visit(&zip).unwrap(), ["a/ 775", "a/b 644 1", "c 644 2"]);
}

#[test]
fn bytes_before_the_archive_and_a_comment_after_it_do_not_matter() {
    let plain = archive(&[deflated("fn.py", &[b'x'; 5000])]);
    let want = visit(&plain).unwrap();
    let mut with_head = b"#!/usr/bin/env python3\n".to_vec();
    with_head.extend(&plain);
    assert_eq!(visit(&with_head).unwrap(), want);
    let mut with_comment = plain.clone();
    let at = with_comment.len() - 2;
    with_comment[at..].copy_from_slice(&300u16.to_le_bytes());
    with_comment.extend([b'c'; 300]);
    assert_eq!(visit(&with_comment).unwrap(), want);
}

#[test]
fn the_archive_may_be_followed_by_something_else_in_the_same_file() {
    let zip = archive(&[raw("fn.py", b"x")]);
    let mut file = zip.clone();
    file.extend(b"our own trailer PK\x05\x06");
    let mut told = Told::default();
    let mut open = Archive::open(Cursor::new(file), zip.len() as u64, &Bounds::default()).unwrap();
    open.visit("", &mut told).unwrap();
    assert_eq!(told.0, ["fn.py 644 x"]);
}

#[test]
fn one_file_is_read_without_unpacking() {
    let zip = archive(&[deflated("top/requirements.txt", b"smol\n"), raw("top/d/x", b""), link("top/l", "d/x")]);
    let mut open = Archive::open(Cursor::new(&zip), zip.len() as u64, &Bounds::default()).unwrap();
    assert!(open.has_file("", "requirements.txt").unwrap());
    assert!(open.has_file("d", "x").unwrap());
    for absent in ["d", "l", "absent", "top/requirements.txt"] {
        assert!(!open.has_file("", absent).unwrap(), "{absent}");
        assert_eq!(open.read("", absent, 100).unwrap(), None);
    }
    assert_eq!(open.read("", "requirements.txt", 5).unwrap().unwrap(), b"smol\n");
    assert!(matches!(open.read("", "requirements.txt", 4), Err(Error::TooLarge(_))));
}

#[test]
fn names_that_escape_are_refused_by_name() {
    for name in ["../fn.py", "a/../../fn.py", "/../fn.py", "a/..", "..\\fn.py", "C:/fn.py", "a//b", "a/./b", "a\0b", ""]
    {
        let error = refusal(&archive(&[raw("ok", b""), raw(name, b"x")]));
        assert!(error.starts_with(&format!("zip entry {name:?}: ")), "{error}");
    }
    assert!(refusal(&archive(&[raw(b"\xff", b"x")])).contains("not UTF-8"));
    assert!(refusal(&archive(&[raw("x".repeat(256), b"x")])).contains("longer than 255"));
    assert!(refusal(&archive(&[raw("x/".repeat(600), b"")])).contains("longer than 1024"));
    // Outside of the wanted folder as well.
    assert!(visit_in(&archive(&[raw("a/fn.py", b""), raw("../b", b"")]), "a", &Bounds::default()).is_err());
}

#[test]
fn links_inside_are_kept_and_links_that_escape_are_refused_by_name() {
    let zip = archive(&[raw("a/b", b"1"), link("a/l", "../c"), link("m", "a/b"), raw("c", b"2")]);
    assert_eq!(visit(&zip).unwrap(), ["a/ 755", "a/b 644 1", "a/l -> ../c", "m -> a/b", "c 644 2"]);
    for (name, target) in [("l", "/etc/passwd"), ("l", "../x"), ("a/l", "../../x"), ("l", "a/../../x"), ("l", "a\0")] {
        let error = refusal(&archive(&[raw("a/b", b""), raw("c", b""), link(name, target)]));
        assert!(error.starts_with(&format!("zip entry {name:?}: the symbolic link")), "{error}");
    }
    // Inside of the archive, but outside of the function.
    let zip = archive(&[raw("fn/a", b""), link("fn/l", "../secret"), raw("secret", b"")]);
    assert!(visit_in(&zip, "fn", &Bounds::default()).unwrap_err().to_string().contains("leads out of the function"));
    let huge = "x".repeat(2000);
    assert!(refusal(&archive(&[link("l", &huge), raw("a", b"")])).contains("larger than 1024"));
}

#[test]
fn nothing_is_written_through_a_link() {
    for entries in [
        [link("l", "a"), raw("l/x", b"evil")],
        [raw("l/x", b"evil"), link("l", "a")],
        [link("l", "a"), raw("l/", b"").mode(0o040_755)],
        [link("l", "a"), raw("l", b"evil")],
        [link("l", "a"), link("l", "b")],
        [link("l", "a"), raw("L/x", b"evil")],
    ] {
        let error = refusal(&archive(&entries));
        assert!(error.starts_with("zip entry \"l") || error.starts_with("zip entry \"L"), "{error}");
    }
}

#[test]
fn devices_pipes_and_sockets_are_refused() {
    for mode in [0o020_644, 0o060_644, 0o010_644, 0o140_644, 0o170_644] {
        assert!(refusal(&archive(&[raw("dev", b"").mode(mode)])).contains("device"), "{mode:o}");
    }
}

#[test]
fn duplicates_conflicts_and_case_twins_are_refused() {
    for (a, b, why) in [
        ("fn.py", "fn.py", "twice"),
        ("/fn.py", "fn.py", "twice"),
        ("a", "a/b", "file, a folder"),
        ("a/b", "a", "file, a folder"),
        ("a", "a/", "file, a folder"),
        ("Fn.py", "fn.py", "upper and lower case"),
        ("A/x", "a/y", "upper and lower case"),
        ("Ä", "ä", "upper and lower case"),
    ] {
        let error = refusal(&archive(&[raw(a, b""), raw(b, b"")]));
        assert!(error.contains(why), "{a} {b}: {error}");
    }
    assert!(refusal(&archive(&[raw("a/", b"x")])).contains("folder with content"));
}

#[test]
fn overlapping_entries_are_refused() {
    let first = raw("a", b"0123456789");
    let mut same = raw("a2", b"0123456789");
    same.offset = Some(0);
    assert!(refusal(&archive(&[first.clone(), same])).contains("overlap"));
    // The first entry's data reaches over the second one's header.
    let mut zip = archive(&[first, raw("b", b"x")]);
    let record = zip.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    for at in [20, 24] {
        zip[record + at..record + at + 4].copy_from_slice(&30u32.to_le_bytes());
    }
    assert!(refusal(&zip).contains("overlaps"));
    // Data that reaches into the directory.
    let mut zip = archive(&[raw("b", b"x")]);
    let record = zip.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    for at in [20, 24] {
        zip[record + at..record + at + 4].copy_from_slice(&2u32.to_le_bytes());
    }
    assert!(refusal(&zip).contains("overlaps"));
}

#[test]
fn encrypted_split_and_unknown_methods_are_refused() {
    let with = |change: &dyn Fn(&mut Raw)| {
        let mut entry = raw("fn.py", b"x");
        change(&mut entry);
        refusal(&archive(&[entry]))
    };
    assert!(with(&|e| e.flags = 1).contains("encrypted"));
    assert!(with(&|e| e.flags = 0x40).contains("encrypted"));
    assert!(with(&|e| e.disk = 1).contains("split"));
    for method in [1, 9, 12, 14, 93, 99] {
        assert!(with(&|e| e.method = method).contains("method other than"));
    }
    assert!(with(&|e| e.local_name = Some(b"other".to_vec())).contains("does not match"));
    assert!(with(&|e| e.local_name = Some(b"fn.pz".to_vec())).contains("does not match"));
    let mut zip = archive(&[raw("fn.py", b"x")]);
    let at = zip.len() - 22;
    zip[at + 4] = 1;
    assert!(refusal(&zip).contains("split over several files"));
    zip[at + 4] = 0;
    zip[at + 10] = 2;
    assert!(refusal(&zip).contains("split over several files"));
}

#[test]
fn wrong_sums_and_sizes_are_refused() {
    let mut entry = deflated("fn.py", b"hello hello hello");
    entry.crc ^= 1;
    assert!(refusal(&archive(&[entry.clone()])).contains("checksum"));
    entry.crc ^= 1;
    entry.size -= 1;
    assert!(refusal(&archive(&[entry.clone()])).contains("longer than"));
    entry.size += 2;
    assert!(refusal(&archive(&[entry.clone()])).contains("shorter than"));
    entry.size -= 1;
    entry.data.push(0);
    assert!(refusal(&archive(&[entry.clone()])).contains("longer than"));
    entry.data.truncate(entry.data.len() - 2);
    assert!(refusal(&archive(&[entry.clone()])).contains("than the directory says"));
    entry.data = vec![0xff; 10];
    assert!(refusal(&archive(&[entry])).contains("compressed data is damaged"));
    let mut stored = raw("a", b"abc");
    stored.size = 4;
    assert!(refusal(&archive(&[stored])).contains("two sizes differ"));
}

#[test]
fn bombs_are_refused_before_they_are_unpacked() {
    let zeros = vec![0; 2 * 1024 * 1024];
    let bomb = archive(&[deflated("bomb", &zeros)]);
    assert!(refusal(&bomb).contains("more than 200 times"), "{}", refusal(&bomb));
    // Small files of zeros are no bombs.
    assert!(visit(&archive(&[deflated("zeros", &zeros[..1024 * 1024])])).is_ok());
    // The declared size is the most that is ever unpacked.
    let mut lying = deflated("bomb", &zeros);
    lying.size = 1000;
    assert!(refusal(&archive(&[lying])).contains("longer than"));

    let bounds = Bounds { unpacked: 1000, ..Bounds::default() };
    let two = archive(&[raw("a/x", &[1; 600]), raw("b/x", &[1; 600])]);
    assert!(matches!(visit_in(&two, "", &bounds), Err(Error::TooLarge(_))));
    assert!(visit_in(&two, "a", &bounds).is_ok());

    let bounds = Bounds { entries: 3, ..Bounds::default() };
    let four: Vec<_> = (0..4).map(|n| raw(format!("f{n}"), b"")).collect();
    assert!(matches!(visit_in(&archive(&four), "", &bounds), Err(Error::TooLarge(_))));
    assert!(visit_in(&archive(&four[..3]), "", &bounds).is_ok());
    // Folders that are only implied count.
    assert!(matches!(visit_in(&archive(&[raw("a/b/c/d", b"")]), "", &bounds), Err(Error::TooLarge(_))));
}

#[test]
fn what_is_no_zip_archive_is_told_apart() {
    assert_eq!(refusal(b""), "the zip archive is empty");
    assert_eq!(refusal(b"\x1f\x8b\x08\0 and so on, long enough"), "this is a gzip file; send a zip archive");
    assert!(refusal(b"<html>not found, and long enough</html>").starts_with("this is not a zip archive"));
    assert!(refusal(b"PK\x03\x04").contains("cut short"));
    assert_eq!(refusal(&end(0, 0, 0)), "the zip archive holds no files");
}

fn small() -> Vec<u8> {
    archive(&[
        deflated("dir/fn.py", b"def fn(input): return input\n"),
        raw("dir/run.sh", b"#!/bin/sh\n").mode(0o100_755),
        link("dir/l", "fn.py"),
        raw("dir/sub/", b"").mode(0o040_755),
    ])
}

#[test]
fn cut_at_any_byte_is_refused() {
    let zip = small();
    assert!(visit(&zip).is_ok());
    for len in 0..zip.len() {
        assert!(matches!(visit(&zip[..len]), Err(Error::Refused(_))), "cut at {len}");
    }
}

#[test]
fn a_file_shorter_than_it_should_be_is_refused_and_not_a_panic() {
    let zip = small();
    for len in 0..zip.len() {
        let result = Archive::open(Cursor::new(&zip[..len]), zip.len() as u64, &Bounds::default())
            .and_then(|mut archive| archive.check(""));
        assert!(matches!(result, Err(Error::Refused(_))), "cut at {len}");
    }
}

#[test]
fn no_single_wrong_byte_panics_or_escapes() {
    struct Inside;
    impl Sink for Inside {
        fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
            assert!(mode <= 0o777);
            inside(path);
            Ok(())
        }
        fn file(&mut self, path: &str, mode: u32, size: u64, content: &mut dyn Read) -> io::Result<()> {
            assert!(mode <= 0o777);
            inside(path);
            assert!(io::copy(content, &mut io::sink())? <= size);
            Ok(())
        }
        fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
            inside(path);
            assert!(!target.starts_with('/') && !target.starts_with(".."), "{target}");
            Ok(())
        }
    }
    fn inside(path: &str) {
        assert!(path.split('/').all(|segment| !["", ".", ".."].contains(&segment)), "{path}");
    }
    let good = small();
    let mut refused = 0;
    for at in 0..good.len() {
        // Every wrong bit, and the bytes that mean something in names and numbers.
        let bits = (0..8).map(|bit| good[at] ^ 1 << bit);
        let telling = [0, 0xff, good[at].wrapping_add(1), good[at].wrapping_sub(1), b'/', b'.', b'\\', b'P'];
        for value in bits.chain(telling) {
            let mut zip = good.clone();
            zip[at] = value;
            let result = Archive::open(Cursor::new(&zip), zip.len() as u64, &Bounds::default())
                .and_then(|mut archive| archive.visit("", &mut Inside));
            refused += u32::from(result.is_err());
        }
    }
    assert!(refused > 0);
}

fn tree() -> Scratch {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("sub")).unwrap();
    fs::write(scratch.path("fn.py"), "print('hi')\n".repeat(2000)).unwrap();
    fs::write(scratch.path("sub/empty"), "").unwrap();
    // Does not compress: every byte of a running checksum.
    let noise: Vec<u8> = (0..100_000u32).map(|n| crc32fast::hash(&n.to_le_bytes()) as u8).collect();
    fs::write(scratch.path("sub/noise"), noise).unwrap();
    fs::set_permissions(scratch.path("fn.py"), fs::Permissions::from_mode(0o755)).unwrap();
    scratch
}

fn write(tree: &Path, mut zip: Writer<Vec<u8>>) -> Vec<u8> {
    zip.file("fn.py", 0o755, &mut fs::File::open(tree.join("fn.py")).unwrap()).unwrap();
    zip.directory("sub", 0o755).unwrap();
    zip.file("sub/empty", 0o644, &mut io::empty()).unwrap();
    zip.file("sub/noise", 0o644, &mut fs::File::open(tree.join("sub/noise")).unwrap()).unwrap();
    zip.symlink("sub/link", "../fn.py").unwrap();
    zip.finish().unwrap()
}

#[test]
fn what_the_writer_wrote_unpacks_to_the_same_files() {
    let tree = tree();
    let zip = write(&tree.0, Writer::new(Vec::new()));
    assert_eq!(zip, write(&tree.0, Writer::new(Vec::new())), "the same files, other bytes");
    assert!(zip.len() < 110_000, "{}", zip.len());
    unpacks_to(&tree, &zip);
    unpacks_to(&tree, &write(&tree.0, Writer::stored(Vec::new())));
}

fn unpacks_to(tree: &Scratch, zip: &[u8]) {
    let out = Scratch::new();
    let root = out.path("fn");
    let mut open = Archive::open(Cursor::new(zip), zip.len() as u64, &Bounds::default()).unwrap();
    open.check("").unwrap();
    open.visit("", &mut Unpack::new(&root).unwrap()).unwrap();
    for name in ["fn.py", "sub/empty", "sub/noise"] {
        assert_eq!(fs::read(root.join(name)).unwrap(), fs::read(tree.path(name)).unwrap(), "{name}");
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(root.join(name)) & 0o777, if name == "fn.py" { 0o755 } else { 0o644 });
    }
    assert_eq!(fs::read_link(root.join("sub/link")).unwrap(), Path::new("../fn.py"));
    assert_eq!(Unpack::new(&root).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn python_reads_what_the_writer_wrote() {
    let tree = tree();
    for zip in [Writer::new(Vec::new()), Writer::stored(Vec::new())] {
        python_reads(&write(&tree.0, zip));
    }
}

fn python_reads(zip: &[u8]) {
    let mut child = Command::new("python3")
        .args(["-c", "import sys, zipfile, io\nz = zipfile.ZipFile(io.BytesIO(sys.stdin.buffer.read()))\nassert z.testzip() is None\nprint([(i.filename, i.file_size, oct(i.external_attr >> 16)) for i in z.infolist()])"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("these tests need python3");
    child.stdin.take().unwrap().write_all(zip).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    assert_eq!(
        String::from_utf8(out.stdout).unwrap().trim(),
        "[('fn.py', 24000, '0o100755'), ('sub/', 0, '0o40755'), ('sub/empty', 0, '0o100644'), \
         ('sub/noise', 100000, '0o100644'), ('sub/link', 8, '0o120777')]"
    );
}

#[test]
fn unpacking_overwrites_nothing_and_a_sink_that_fails_ends_the_visit() {
    let out = Scratch::new();
    let root = out.path("fn");
    let zip = archive(&[raw("a", b"1")]);
    let mut open = Archive::open(Cursor::new(&zip), zip.len() as u64, &Bounds::default()).unwrap();
    let mut sink = Unpack::new(&root).unwrap();
    open.visit("", &mut sink).unwrap();
    match open.visit("", &mut sink) {
        Err(Error::Io(e)) => assert_eq!(e.kind(), io::ErrorKind::AlreadyExists),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_tar_stream_holds_the_same_files_with_long_names_and_one_owner() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    let zip = archive(&[raw("fn.sh", b"#!/bin/sh\n").mode(0o100_755), raw(&long, &[b'x'; 1000]), link("l", &long)]);
    let mut sink = TarSink::new(Vec::new(), "function", 1000, 1001).unwrap();
    let mut open = Archive::open(Cursor::new(&zip), zip.len() as u64, &Bounds::default()).unwrap();
    open.visit("", &mut sink).unwrap();
    let bytes = sink.finish().unwrap();
    let mut seen = Vec::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (1000, 1001, 0));
        let path = entry.path().unwrap().display().to_string();
        let target = entry.link_name().unwrap().map(|t| t.display().to_string());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        seen.push((path, header.mode().unwrap(), content.len(), target));
    }
    let name = |path: &str| format!("function/{path}");
    assert_eq!(
        seen,
        [
            ("function/".into(), 0o755, 0, None),
            (name("fn.sh"), 0o755, 10, None),
            (name(&("d".repeat(200) + "/")), 0o755, 0, None),
            (name(&long), 0o644, 1000, None),
            (name("l"), 0o777, 0, Some(long.clone())),
        ]
    );
}
