//! One entry's bytes: inflated through fixed buffers, and checked against what the directory promised.

use std::io::{self, Read, Seek, SeekFrom};

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use super::directory::Record;
use super::{Error, refused};

/// Packed bytes read at once.
const INPUT: usize = 8 * 1024;

/// What is needed to inflate, 50 KiB; one for all entries of a visit.
pub(super) struct Inflater {
    state: Box<InflateState>,
    input: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self {
            state: InflateState::new_boxed(DataFormat::Raw),
            input: vec![0; INPUT].into_boxed_slice(),
            from: 0,
            to: 0,
        }
    }
}

/// The bytes of one entry. Reading returns exactly [`Record::size`] bytes, then the end, or an error.
pub(super) struct Content<'a, R> {
    file: &'a mut R,
    record: &'a Record,
    inflater: &'a mut Inflater,
    crc: crc32fast::Hasher,
    packed_left: u64,
    size_left: u64,
    checked: bool,
    /// What was wrong, where something was: the sink sees only an `io::Error`.
    pub(super) failed: Option<Error>,
}

impl<'a, R: Read + Seek> Content<'a, R> {
    /// Starts at `start`; the entry's method and range were checked.
    pub(super) fn new(
        file: &'a mut R,
        record: &'a Record,
        inflater: &'a mut Inflater,
        start: u64,
    ) -> Result<Self, Error> {
        file.seek(SeekFrom::Start(start))?;
        inflater.state.reset(DataFormat::Raw);
        (inflater.from, inflater.to) = (0, 0);
        Ok(Self {
            file,
            record,
            inflater,
            crc: crc32fast::Hasher::new(),
            packed_left: record.packed,
            size_left: record.size,
            checked: false,
            failed: None,
        })
    }

    /// Reads what the sink left, so that the checks at the end happen.
    pub(super) fn drain(&mut self) -> Result<(), Error> {
        let mut scratch = [0; 4096];
        loop {
            match self.step(&mut scratch) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn step(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        if self.size_left == 0 {
            if !self.checked {
                self.check_end()?;
                self.checked = true;
            }
            return Ok(0);
        }
        let most = usize::try_from(self.size_left).unwrap_or(usize::MAX).min(buf.len());
        let buf = buf.get_mut(..most).unwrap_or_default();
        if buf.is_empty() {
            return Ok(0);
        }
        let n = if self.record.method == 0 { self.read_packed(buf)? } else { self.inflate(buf)?.0 };
        if n == 0 {
            return Err(self.refused("it is shorter than the directory says; make the archive again"));
        }
        self.crc.update(buf.get(..n).unwrap_or_default());
        self.size_left -= n as u64;
        Ok(n)
    }

    fn check_end(&mut self) -> Result<(), Error> {
        let left = if self.record.method == 0 {
            self.packed_left != 0
        } else {
            // The stream has to say that it ends, and has to end here.
            let (n, ended) = self.inflate(&mut [0])?;
            n != 0 || !ended || self.packed_left != 0 || self.inflater.from != self.inflater.to
        };
        if left {
            return Err(self.refused("it is longer than the directory says; make the archive again"));
        }
        if self.crc.clone().finalize() != self.record.crc {
            return Err(self.refused("its checksum is wrong: the archive is damaged; send it again"));
        }
        Ok(())
    }

    /// Inflates into `buf`: how many bytes, and whether the stream ended.
    fn inflate(&mut self, buf: &mut [u8]) -> Result<(usize, bool), Error> {
        loop {
            if self.inflater.from == self.inflater.to && self.packed_left > 0 {
                let mut input = std::mem::take(&mut self.inflater.input);
                let n = self.read_packed(&mut input);
                self.inflater.input = input;
                (self.inflater.from, self.inflater.to) = (0, n?);
            }
            let Inflater { state, input, from, to } = &mut *self.inflater;
            let result = inflate(state, input.get(*from..*to).unwrap_or_default(), buf, MZFlush::None);
            *from += result.bytes_consumed;
            let n = result.bytes_written;
            match result.status {
                Ok(MZStatus::StreamEnd) => return Ok((n, true)),
                Ok(_) | Err(MZError::Buf) if n > 0 => return Ok((n, false)),
                Ok(_) | Err(MZError::Buf)
                    if result.bytes_consumed > 0
                        || (self.inflater.from == self.inflater.to && self.packed_left > 0) => {}
                // No progress and nothing to make it with: the data is cut.
                Ok(_) | Err(MZError::Buf) => return Ok((0, false)),
                Err(_) => return Err(self.refused("its compressed data is damaged; send the archive again")),
            }
        }
    }

    fn read_packed(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let most = usize::try_from(self.packed_left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.file.read(buf.get_mut(..most).unwrap_or_default())?;
        if n == 0 && most > 0 {
            return Err(self.refused("the archive ends inside of it; send the whole file"));
        }
        self.packed_left -= n as u64;
        Ok(n)
    }

    fn refused(&self, why: &str) -> Error {
        refused(&self.record.name, why)
    }
}

impl<R: Read + Seek> Read for Content<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.step(buf).map_err(|e| {
            let text = e.to_string();
            self.failed = Some(e);
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}
