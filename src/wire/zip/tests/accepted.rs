//! Archives of other tools, read as they mean them.

use super::*;

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
