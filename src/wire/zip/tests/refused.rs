//! Archives of attackers, and broken ones.

use super::*;

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
fn zip64_numbers_are_believed_no_more_than_others() {
    let zip64 = |entries: u64, size: u64, offset: u64| {
        let one = archive(&[raw("fn.py", b"x")]);
        let (mut zip, end) = (one[..one.len() - 22].to_vec(), one[one.len() - 22..].to_vec());
        let at = zip.len() as u64;
        zip.extend(b"PK\x06\x06");
        zip.extend(44u64.to_le_bytes());
        zip.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for n in [entries, entries, size, offset] {
            zip.extend(n.to_le_bytes());
        }
        zip.extend(b"PK\x06\x07\0\0\0\0");
        zip.extend(at.to_le_bytes());
        zip.extend([1, 0, 0, 0]);
        zip.extend(end);
        zip
    };
    let size = 46 + 5;
    assert_eq!(visit(&zip64(1, size, 36)).unwrap(), ["fn.py 644 x"]);
    for zip in [
        zip64(u64::MAX, size, 36),
        zip64(1, u64::MAX, 36),
        zip64(1, size, u64::MAX),
        zip64(1, size, 1 << 63),
        zip64(2, size, 36),
        zip64(0, size, 36),
        zip64(1, size, 37),
        zip64(1, 0, 36),
    ] {
        refusal(&zip);
    }
    let mut wide = raw("fn.py", b"x");
    for (size, packed) in [(u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX), (1 << 63, 1 << 63)] {
        wide.extra = [&[1, 0, 16, 0][..], &size.to_le_bytes(), &packed.to_le_bytes()].concat();
        let mut zip = archive(std::slice::from_ref(&wide));
        let record = zip.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        zip[record + 20..record + 28].fill(0xff);
        refusal(&zip);
    }
}

#[test]
fn an_archive_in_an_archive_is_a_file() {
    let mut zip = archive(&[deflated("bomb", &[0; 100_000])]);
    for _ in 0..20 {
        zip = archive(&[deflated("nested.zip", &zip)]);
    }
    let told = visit(&zip).unwrap();
    assert!(told.len() == 1 && told[0].starts_with("nested.zip 644 PK"), "{told:?}");
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
