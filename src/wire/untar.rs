//! Reads a tar stream (ustar, with the long names of pax and of GNU) into a zip archive, entry by entry.
//!
//! Nothing of it is held but names: what a file is for the zip reader is checked there again. What no function needs (hard
//! links, devices, sparse files) is refused by name.

use std::io::{self, Read, Write};

use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::zip::{Bounds, Error, Writer, path, shown};

/// Bytes of a pax header: two paths and the times that programs like to add.
const MAX_PAX: u64 = 8 * 1024;

/// Names that extended headers give the entry after them.
#[derive(Default)]
struct Given {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

/// Adds what `tar` holds to `zip`, and reads it to its end.
///
/// # Errors
/// [`Error::Refused`] for what is no tar archive, or not one of a function; what `tar` fails with as [`Error::Io`], unless
/// that has no number of the system's: then it is no tar archive.
pub fn to_zip<R: Read, W: Write>(tar: R, zip: &mut Writer<W>, bounds: &Bounds) -> Result<(), Error> {
    let mut archive = Archive::new(tar);
    let mut given = Given::default();
    let mut count = 0;
    // Raw: the library would hold extended headers of any length.
    for entry in archive.entries().map_err(broken)?.raw(true) {
        count += 1;
        if count > bounds.entries {
            return Err(Error::TooLarge(format!("the tar archive has more than {} entries", bounds.entries)));
        }
        add(entry.map_err(broken)?, zip, &mut given)?;
    }
    // The padding behind its end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    Ok(())
}

fn add<R: Read, W: Write>(mut entry: Entry<'_, R>, zip: &mut Writer<W>, given: &mut Given) -> Result<(), Error> {
    match entry.header().entry_type() {
        EntryType::GNULongName => return short(&mut entry, path::MAX_PATH as u64).map(|name| given.name = Some(name)),
        EntryType::GNULongLink => {
            return short(&mut entry, path::MAX_PATH as u64).map(|name| given.target = Some(name));
        }
        EntryType::XHeader => return pax(&short(&mut entry, MAX_PAX)?, given),
        // What git archive notes of the commit.
        EntryType::XGlobalHeader => return Ok(()),
        _ => {}
    }
    let Given { name, target } = std::mem::take(given);
    let raw = name.unwrap_or_else(|| entry.path_bytes().into_owned());
    let refused = |why: &str| Error::Refused(format!("tar entry {}: {why}", shown(&raw)));
    let (name, _) = path::clean(&raw).map_err(refused)?;
    let mode = entry.header().mode().map_err(broken)?;
    match entry.header().entry_type() {
        // The top folder itself.
        EntryType::Directory if name.is_empty() => Ok(()),
        EntryType::Directory => zip.directory(name, mode).map_err(Error::Io),
        EntryType::Regular | EntryType::Continuous if name.is_empty() => Err(refused("a file without a name")),
        EntryType::Regular | EntryType::Continuous => zip.file(name, mode, &mut entry).map_err(broken),
        EntryType::Symlink => {
            let target = target.or_else(|| entry.link_name_bytes().map(|t| t.into_owned())).unwrap_or_default();
            let target = std::str::from_utf8(&target).map_err(|_| refused("the link's target is not UTF-8"))?;
            zip.symlink(name, target).map_err(Error::Io)
        }
        EntryType::Link => Err(refused("a hard link: pack the file twice, or a symbolic link")),
        _ => Err(refused("neither a file nor a folder nor a symbolic link")),
    }
}

/// The content of an extended header.
fn short<R: Read>(entry: &mut Entry<'_, R>, most: u64) -> Result<Vec<u8>, Error> {
    // GNU's end with a NUL.
    let too_long = || Error::Refused(format!("the tar archive has a name longer than {most} bytes"));
    if entry.header().entry_size().map_err(broken)? > most + 1 {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    entry.take(most + 1).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.ends_with(b"\0") {
        bytes.pop();
    }
    Ok(bytes)
}

fn pax(bytes: &[u8], given: &mut Given) -> Result<(), Error> {
    for record in PaxExtensions::new(bytes) {
        let record = record.map_err(broken)?;
        match record.key_bytes() {
            b"path" => given.name = Some(record.value_bytes().to_vec()),
            b"linkpath" => given.target = Some(record.value_bytes().to_vec()),
            // Two readers could disagree on where the next entry begins; nothing here is as large as to need it.
            b"size" => return Err(Error::Refused("the tar archive tells a size in a pax header".into())),
            _ => {}
        }
    }
    Ok(())
}

/// Whose fault an error is: the system's have a number.
fn broken(e: io::Error) -> Error {
    match e.raw_os_error() {
        Some(_) => Error::Io(e),
        None if e.kind() == io::ErrorKind::FileTooLarge => Error::TooLarge(e.to_string()),
        None => Error::Refused(format!("not a whole tar archive: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;
    use crate::wire::zip::{Archive as Zip, Sink};

    fn converted(tar: &[u8]) -> Result<Vec<u8>, Error> {
        let mut zip = Writer::stored(Vec::new());
        to_zip(tar, &mut zip, &Bounds::default()).map(|()| zip.finish().unwrap())
    }

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o750);
        header.set_size(size);
        header
    }

    /// What a zip archive holds, a line each.
    #[derive(Default)]
    struct Listing(Vec<String>);

    impl Sink for Listing {
        fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
            self.0.push(format!("{path}/ {mode:o}"));
            Ok(())
        }

        fn file(&mut self, path: &str, mode: u32, size: u64, content: &mut dyn Read) -> io::Result<()> {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            self.0.push(format!("{path} {mode:o} {size} {text:.8}"));
            Ok(())
        }

        fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
            self.0.push(format!("{path} -> {target}"));
            Ok(())
        }
    }

    fn listing(zip: &[u8]) -> Vec<String> {
        let mut archive = Zip::open(io::Cursor::new(zip), zip.len() as u64, &Bounds::default()).unwrap();
        let mut listing = Listing::default();
        archive.visit("", &mut listing).unwrap();
        listing.0
    }

    #[test]
    fn files_folders_links_modes_and_long_names_come_over() {
        let mut tar = Builder::new(Vec::new());
        tar.append_data(&mut header(EntryType::Directory, 0), "./", io::empty()).unwrap();
        tar.append_data(&mut header(EntryType::Directory, 0), "lib/", io::empty()).unwrap();
        tar.append_data(&mut header(EntryType::Regular, 5), "./fn.sh", &b"hello"[..]).unwrap();
        let long = format!("lib/{}/x", "d".repeat(150));
        tar.append_data(&mut header(EntryType::Regular, 1), &long, &b"1"[..]).unwrap();
        tar.append_link(&mut header(EntryType::Symlink, 0), "link", "fn.sh").unwrap();
        let zip = converted(&tar.into_inner().unwrap()).unwrap();
        let folder = format!("lib/{}/ 755", "d".repeat(150));
        let expected = ["lib/ 755", "fn.sh 755 5 hello", &folder, &format!("{long} 755 1 1"), "link -> fn.sh"];
        assert_eq!(listing(&zip), expected);
    }

    #[test]
    fn names_in_pax_headers_hold_for_the_next_entry_alone() {
        let mut tar = Builder::new(Vec::new());
        tar.append_pax_extensions([("path", &b"one.py"[..]), ("mtime", b"1.5")]).unwrap();
        for name in ["short", "two.py"] {
            tar.append_data(&mut header(EntryType::Regular, 1), name, &b"x"[..]).unwrap();
        }
        let zip = converted(&tar.into_inner().unwrap()).unwrap();
        assert_eq!(listing(&zip), ["one.py 755 1 x", "two.py 755 1 x"]);
    }

    #[test]
    fn what_is_no_function_is_refused_by_name() {
        let why = |tar: &[u8]| match converted(tar) {
            Err(Error::Refused(text) | Error::TooLarge(text)) => text,
            other => panic!("{other:?}"),
        };
        let one = |kind, name: &str| {
            let mut header = header(kind, 0);
            // The library would refuse to write such names.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            let mut tar = Builder::new(Vec::new());
            tar.append(&header, io::empty()).unwrap();
            tar.into_inner().unwrap()
        };
        assert!(why(&one(EntryType::Regular, "../x")).contains("\"../x\""));
        assert!(why(&one(EntryType::Link, "x")).contains("hard link"));
        assert!(why(&one(EntryType::Char, "x")).contains("neither"));
        let mut tar = Builder::new(Vec::new());
        tar.append_pax_extensions([("size", &b"1"[..])]).unwrap();
        assert!(why(&tar.into_inner().unwrap()).contains("size"));
        let mut tar = Builder::new(Vec::new());
        tar.append_data(&mut header(EntryType::GNULongName, 1 << 20), "x", io::repeat(b'x').take(1 << 20)).unwrap();
        assert!(why(&tar.into_inner().unwrap()).contains("longer than"));
        assert!(why(&[1; 1024]).contains("not a whole tar archive"));
        let mut tar = Builder::new(Vec::new());
        tar.append_data(&mut header(EntryType::Regular, 2000), "x", io::repeat(b'x').take(2000)).unwrap();
        let whole = tar.into_inner().unwrap();
        assert!(why(&whole[..1500]).contains("not a whole tar archive"), "cut");
        let mut tar = Builder::new(Vec::new());
        for n in 0..=Bounds::default().entries {
            tar.append_data(&mut header(EntryType::Regular, 0), format!("{n}"), io::empty()).unwrap();
        }
        assert!(why(&tar.into_inner().unwrap()).contains("more than 4096 entries"));
    }
}
