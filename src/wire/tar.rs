//! Writes what an archive holds as a tar stream, as container engines take it.

use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use super::zip::Sink;

/// A [`Sink`] that writes GNU tar to `W`. All entries have one owner and the time 0, so that the same files are the
/// same bytes.
pub struct TarSink<W: Write> {
    out: Builder<W>,
    prefix: String,
    uid: u64,
    gid: u64,
}

impl<W: Write> TarSink<W> {
    /// Starts a stream whose paths begin with the folder `prefix` (no `/` around it), which becomes its first entry;
    /// with an empty prefix they do not.
    ///
    /// # Errors
    /// When `W` fails.
    pub fn new(out: W, prefix: &str, uid: u32, gid: u32) -> io::Result<Self> {
        let mut sink = Self { out: Builder::new(out), prefix: String::new(), uid: uid.into(), gid: gid.into() };
        if !prefix.is_empty() {
            sink.directory(prefix, 0o755)?;
            sink.prefix = format!("{prefix}/");
        }
        Ok(sink)
    }

    /// Ends the stream and gives `W` back.
    ///
    /// # Errors
    /// When `W` fails.
    pub fn finish(self) -> io::Result<W> {
        self.out.into_inner()
    }

    fn header(&self, kind: EntryType, mode: u32, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header.set_mtime(0);
        header.set_size(size);
        header
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

impl<W: Write> Sink for TarSink<W> {
    fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        let mut header = self.header(EntryType::Directory, mode, 0);
        let path = self.path(path) + "/";
        self.out.append_data(&mut header, path, io::empty())
    }

    fn file(&mut self, path: &str, mode: u32, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut header = self.header(EntryType::Regular, mode, size);
        let path = self.path(path);
        self.out.append_data(&mut header, path, content.take(size))
    }

    fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        let mut header = self.header(EntryType::Symlink, 0o777, 0);
        let path = self.path(path);
        self.out.append_link(&mut header, path, target)
    }
}
