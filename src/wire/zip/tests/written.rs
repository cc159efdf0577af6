//! Our writer, read by ourselves and by others, and what becomes of an archive.

use super::*;

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
