//! An archive as a whole: judged when it is opened, then visited as often as needed.
//!
//! Opening reads the directory once and refuses what no entry may be, whatever folder is wanted later. A visit reads
//! it again and inflates the entries of one folder. In memory are two hashes and an offset for each entry.

use std::io::{Read, Seek};

use super::content::{Content, Inflater};
use super::directory::{self, Directory, Record};
use super::paths::{Kind, Paths, folders_above};
use super::{Bounds, Error, Sink, path, refused, shown};

/// Top-level names that an error about a missing folder lists.
const TOP_SHOWN: usize = 5;
/// `S_IFMT` and the types it may hold (inode(7)).
const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// A zip archive in the first bytes of a file.
pub struct Archive<R> {
    file: R,
    len: u64,
    bounds: Bounds,
    directory: Directory,
    paths: Paths,
    /// Where each entry begins, sorted: an entry has to end before the next one begins.
    starts: Vec<u64>,
    top: Top,
}

/// What is at the top, for choosing the root.
#[derive(Default)]
struct Top {
    /// The first few different names.
    names: Vec<String>,
    more: bool,
    only_folders: bool,
}

/// An acceptable entry.
struct Entry {
    record: Record,
    path: String,
    kind: Kind,
    mode: u32,
}

impl<R: Read + Seek> Archive<R> {
    /// Opens the archive that the first `len` bytes of `file` are, and checks its directory.
    ///
    /// # Errors
    /// [`Error::Refused`] names the entry that is wrong; [`Error::TooLarge`] the bound.
    pub fn open(file: R, len: u64, bounds: &Bounds) -> Result<Self, Error> {
        let mut file = file;
        let directory = directory::find(&mut file, len, bounds)?;
        let mut archive = Self {
            file,
            len,
            bounds: bounds.clone(),
            directory,
            paths: Paths::default(),
            starts: Vec::new(),
            top: Top { only_folders: true, ..Top::default() },
        };
        archive.judge()?;
        Ok(archive)
    }

    fn judge(&mut self) -> Result<(), Error> {
        let mut at = self.directory.start;
        for _ in 0..self.directory.entries {
            let record = directory::record(&mut self.file, &self.directory, at)?;
            at = record.next;
            self.starts.push(record.start);
            let Some(entry) = accept(record)? else { continue };
            self.paths.add(&entry.path, entry.kind, entry.mode).map_err(|why| refused(&entry.record.name, why))?;
            if self.paths.len() > self.bounds.entries {
                let most = self.bounds.entries;
                return Err(Error::TooLarge(format!("the zip archive has more than {most} files and folders")));
            }
            self.top.add(&entry);
        }
        if at != self.directory.end {
            return Err(Error::Refused("the zip archive's directory is damaged; make the archive again".into()));
        }
        self.starts.sort_unstable();
        if self.starts.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(Error::Refused("two entries of the zip archive overlap; make the archive again".into()));
        }
        if self.paths.len() == 0 {
            return Err(Error::Refused("the zip archive holds no files".into()));
        }
        Ok(())
    }

    /// Reads all of the function that `subfolder` is and checks every byte, without keeping any.
    ///
    /// # Errors
    /// As [`Archive::visit`].
    pub fn check(&mut self, subfolder: &str) -> Result<(), Error> {
        struct Nothing;
        impl Sink for Nothing {
            fn directory(&mut self, _: &str, _: u32) -> std::io::Result<()> {
                Ok(())
            }
            fn file(&mut self, _: &str, _: u32, _: u64, _: &mut dyn Read) -> std::io::Result<()> {
                Ok(())
            }
            fn symlink(&mut self, _: &str, _: &str) -> std::io::Result<()> {
                Ok(())
            }
        }
        self.visit(subfolder, &mut Nothing)
    }

    /// Hands everything in the function's folder to `sink`, in the archive's order.
    ///
    /// The function is the folder `subfolder`, as given or inside of the archive's single top folder; where it is
    /// empty, the top, or the folder that is all there is at the top.
    ///
    /// # Errors
    /// [`Error::Refused`] for a folder that is not there and for entries that are damaged or lead outside;
    /// [`Error::TooLarge`] for more bytes than [`Bounds`] allows. What the sink received before it must be thrown away.
    pub fn visit(&mut self, subfolder: &str, sink: &mut dyn Sink) -> Result<(), Error> {
        let root = self.root(subfolder)?;
        self.paths.start_over();
        let mut inflater = Inflater::new();
        let mut unpacked = 0u64;
        let mut at = self.directory.start;
        for _ in 0..self.directory.entries {
            let record = directory::record(&mut self.file, &self.directory, at)?;
            at = record.next;
            let Some(entry) = accept(record)? else { continue };
            let Some(path) = below(&root, &entry.path) else { continue };
            let path = path.to_owned();
            unpacked = unpacked.saturating_add(entry.record.size);
            self.check_size(&entry, unpacked)?;
            self.tell_folders(&root, &entry, sink)?;
            match entry.kind {
                Kind::Directory | Kind::Implied => {}
                Kind::File => self.file(&entry, &path, &mut inflater, sink)?,
                Kind::Symlink => {
                    let target = self.target(&entry, &path, &mut inflater)?;
                    sink.symlink(&path, &target)?;
                }
            }
        }
        Ok(())
    }

    /// The file at `path` in the function's folder, whole; `None` where there is no file.
    ///
    /// # Errors
    /// As [`Archive::visit`]; [`Error::TooLarge`] where it has more than `most` bytes.
    pub fn read(&mut self, subfolder: &str, path: &str, most: usize) -> Result<Option<Vec<u8>>, Error> {
        let root = self.root(subfolder)?;
        let mut at = self.directory.start;
        for _ in 0..self.directory.entries {
            let record = directory::record(&mut self.file, &self.directory, at)?;
            at = record.next;
            let Some(entry) = accept(record)? else { continue };
            if entry.kind == Kind::File && below(&root, &entry.path) == Some(path) {
                return self.whole(&entry, most, &mut Inflater::new()).map(Some);
            }
        }
        Ok(None)
    }

    /// Whether the function's folder has a file (not a link) at `path`.
    ///
    /// # Errors
    /// [`Error::Refused`] where the folder is not there.
    pub fn has_file(&self, subfolder: &str, path: &str) -> Result<bool, Error> {
        let root = self.root(subfolder)?;
        let path = if root.is_empty() { path.to_owned() } else { format!("{root}/{path}") };
        Ok(self.paths.kind(&path) == Some(Kind::File))
    }

    /// The folder of the archive that is the function; empty for the top.
    fn root(&self, subfolder: &str) -> Result<String, Error> {
        let wanted = path::subfolder(subfolder)
            .map_err(|why| Error::Refused(format!("subfolder {}: {why}", shown(subfolder.as_bytes()))))?;
        let single = match self.top.names.as_slice() {
            [name] if self.top.only_folders && !self.top.more => name.as_str(),
            _ => "",
        };
        if wanted.is_empty() {
            return Ok(single.to_owned());
        }
        let nested = format!("{single}/{wanted}");
        let candidates = if single.is_empty() { [wanted, wanted] } else { [wanted, nested.as_str()] };
        for candidate in candidates {
            match self.paths.kind(candidate) {
                Some(Kind::Directory | Kind::Implied) => return Ok(candidate.to_owned()),
                Some(_) => {
                    return Err(Error::Refused(format!(
                        "{} is not a folder in the zip archive",
                        shown(wanted.as_bytes())
                    )));
                }
                None => {}
            }
        }
        let names: Vec<_> = self.top.names.iter().map(|name| shown(name.as_bytes())).collect();
        Err(Error::Refused(format!(
            "the zip archive has no folder {}; at its top are {}{}",
            shown(wanted.as_bytes()),
            names.join(", "),
            if self.top.more { " and more" } else { "" }
        )))
    }

    fn check_size(&self, entry: &Entry, unpacked: u64) -> Result<(), Error> {
        if unpacked > self.bounds.unpacked {
            let most = self.bounds.unpacked;
            return Err(Error::TooLarge(format!("the function unpacks to more than {most} bytes; leave files out")));
        }
        let Record { size, packed, .. } = entry.record;
        if size > Bounds::RATIO_FLOOR && size / packed.max(1) > self.bounds.ratio {
            return Err(Error::TooLarge(format!(
                "zip entry {}: {size} bytes out of {packed}, more than {} times as many; leave it out",
                shown(&entry.record.name),
                self.bounds.ratio
            )));
        }
        Ok(())
    }

    /// Tells the sink of the folders above the entry, and of the entry if it is a folder.
    fn tell_folders(&mut self, root: &str, entry: &Entry, sink: &mut dyn Sink) -> Result<(), Error> {
        let itself = (entry.kind == Kind::Directory).then_some(entry.path.as_str());
        for folder in folders_above(&entry.path).chain(itself) {
            if let Some(relative) = below(root, folder)
                && let Some(mode) = self.paths.tell(folder)
            {
                sink.directory(relative, mode)?;
            }
        }
        Ok(())
    }

    fn content<'a>(&'a mut self, entry: &'a Entry, inflater: &'a mut Inflater) -> Result<Content<'a, R>, Error> {
        let record = &entry.record;
        let start = directory::data_start(&mut self.file, record, self.directory.start)?;
        let next = self.starts.partition_point(|&s| s <= record.start);
        let limit = self.starts.get(next).copied().unwrap_or(self.directory.start);
        if start.checked_add(record.packed).is_none_or(|end| end > limit || end > self.len) {
            return Err(refused(&record.name, "it overlaps with what follows; make the archive again"));
        }
        Content::new(&mut self.file, record, inflater, start)
    }

    fn file(&mut self, entry: &Entry, path: &str, inflater: &mut Inflater, sink: &mut dyn Sink) -> Result<(), Error> {
        let mut content = self.content(entry, inflater)?;
        let result = sink.file(path, entry.mode, entry.record.size, &mut content);
        if let Some(failed) = content.failed.take() {
            return Err(failed);
        }
        result?;
        content.drain()
    }

    fn whole(&mut self, entry: &Entry, most: usize, inflater: &mut Inflater) -> Result<Vec<u8>, Error> {
        if entry.record.size > most as u64 {
            let name = shown(&entry.record.name);
            return Err(Error::TooLarge(format!("zip entry {name}: larger than {most} bytes")));
        }
        let mut content = self.content(entry, inflater)?;
        let mut bytes = Vec::new();
        let result = content.read_to_end(&mut bytes);
        if let Some(failed) = content.failed.take() {
            return Err(failed);
        }
        result?;
        Ok(bytes)
    }

    fn target(&mut self, entry: &Entry, path: &str, inflater: &mut Inflater) -> Result<String, Error> {
        let name = &entry.record.name;
        let target = self.whole(entry, path::MAX_PATH, inflater)?;
        let target = String::from_utf8(target).map_err(|_| refused(name, "the link's target is not UTF-8"))?;
        path::check_target(path, &target).map_err(|why| refused(name, why))?;
        Ok(target)
    }
}

impl Top {
    fn add(&mut self, entry: &Entry) {
        let (name, nested) = entry.path.split_once('/').map_or((entry.path.as_str(), false), |(name, _)| (name, true));
        self.only_folders &= nested || entry.kind == Kind::Directory;
        if !self.names.iter().any(|known| known == name) {
            if self.names.len() < TOP_SHOWN {
                self.names.push(name.to_owned());
            } else {
                self.more = true;
            }
        }
    }
}

/// The part of `path` below the folder `root`; `None` where it is elsewhere, or the root itself.
fn below<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    if root.is_empty() { Some(path) } else { path.strip_prefix(root)?.strip_prefix('/') }
}

/// Judges one record by itself. `None` for what is ignored: the top folder's own entry, and what macOS adds.
fn accept(record: Record) -> Result<Option<Entry>, Error> {
    let no = |why: &str| Err(refused(&record.name, why));
    let (path, slash) = match path::clean(&record.name) {
        Ok(clean) => clean,
        Err(why) => return no(why),
    };
    // Bit 0: encrypted; bit 6: strongly; bit 13: so is the directory. Bit 5: a patch (APPNOTE 4.4.4).
    if record.flags & 0x2041 != 0 {
        return no("it is encrypted; make the archive without a password");
    }
    if record.flags & 0x20 != 0 || ![0, 8].contains(&record.method) {
        return no("it is packed by a method other than store and deflate; use `zip -r`");
    }
    if record.method == 0 && record.packed != record.size {
        return no("it is stored, yet its two sizes differ; make the archive again");
    }
    let mode = record.mode.unwrap_or(0);
    let kind = match mode & TYPE {
        0 | DIRECTORY | REGULAR if slash => Kind::Directory,
        DIRECTORY => Kind::Directory,
        0 | REGULAR => Kind::File,
        SYMLINK if !slash => Kind::Symlink,
        SYMLINK => return no("it is a symbolic link with the name of a folder"),
        _ => return no("it is a device, a pipe or a socket; only files, folders and links are taken"),
    };
    if kind == Kind::Directory && record.size != 0 {
        return no("it is a folder with content");
    }
    if path.is_empty() || path::is_junk(path) {
        return Ok(None);
    }
    let (path, mode) = (path.to_owned(), permissions(kind, mode));
    Ok(Some(Entry { record, path, kind, mode }))
}

/// The permission bits to unpack with: the archive's, or 0755 for a folder and 0644 for a file where it has none.
///
/// Set-id and sticky bits go. What the owner may read or run, everyone may: who packed a function (Python's `zipfile`
/// writes 0600) is not who runs it.
fn permissions(kind: Kind, mode: u32) -> u32 {
    let (default, least) = if kind == Kind::Directory { (0o755, 0o700) } else { (0o644, 0o400) };
    let mode = if mode & 0o7777 == 0 { default } else { mode & 0o777 | least };
    let owner = mode & 0o500;
    mode | owner >> 3 | owner >> 6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_kept_but_for_special_bits_and_files_nobody_else_could_read() {
        for (mode, want) in
            [(0, 0o644), (0o644, 0o644), (0o600, 0o644), (0o700, 0o755), (0o4755, 0o755), (0o664, 0o664)]
        {
            assert_eq!(permissions(Kind::File, mode), want, "{mode:o}");
        }
        assert_eq!(permissions(Kind::Directory, 0), 0o755);
        assert_eq!(permissions(Kind::Directory, 0o555), 0o755);
    }
}
