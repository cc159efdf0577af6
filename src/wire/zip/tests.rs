//! The reader against archives of other tools and of attackers, and the writer against other tools.

mod accepted;
mod refused;
mod written;

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
