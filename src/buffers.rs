//! Fixed buffers, lent while bytes move and given back when a connection is idle.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a buffer. It is also the bound of a message head: a head has to fit a buffer whole.
pub const SIZE: usize = 8 * 1024;

/// Buffers kept when nobody uses them; more go back to the allocator, so that a burst leaves nothing behind.
const KEPT: usize = 4;

/// Where buffers come from. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Buffers {
    free: Arc<Mutex<Vec<Box<[u8]>>>>,
}

/// [`SIZE`] bytes, given back when dropped. What an earlier user left in it is still there.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    home: Buffers,
}

impl Buffers {
    /// Lends a buffer.
    pub fn take(&self) -> Buffer {
        let mut buffer = self.promise();
        buffer.fill();
        buffer
    }

    /// A buffer without memory, to be [filled](Buffer::fill) when there is something for it.
    pub fn promise(&self) -> Buffer {
        Buffer { bytes: Box::default(), home: self.clone() }
    }
}

impl Buffer {
    /// Makes sure that it has its [`SIZE`] bytes; those that it has stay in front.
    pub fn fill(&mut self) {
        if self.bytes.len() < SIZE {
            let free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut bytes = free.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice());
            bytes.iter_mut().zip(&self.bytes).for_each(|(to, from)| *to = *from);
            self.bytes = bytes;
        }
    }

    /// Gives the memory back but for these bytes, which are in front then.
    pub fn keep(&mut self, range: Range<usize>) {
        let kept = self.bytes.get(range).unwrap_or_default().into();
        self.give_back();
        self.bytes = kept;
    }

    /// Gives the memory back; what is left has no bytes.
    pub fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.len() < SIZE {
            return;
        }
        let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(bytes);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_leaves_only_a_few_buffers_behind() {
        let buffers = Buffers::default();
        let burst: Vec<Buffer> = (0..100).map(|_| buffers.take()).collect();
        assert!(burst.iter().all(|b| b.len() == SIZE));
        drop(burst);
        assert_eq!(buffers.free.lock().unwrap().len(), KEPT);
        let mut buffer = buffers.take();
        buffer.give_back();
        assert_eq!((buffer.len(), buffers.free.lock().unwrap().len()), (0, KEPT));
        buffer.fill();
        buffer.fill();
        assert_eq!((buffer.len(), buffers.free.lock().unwrap().len()), (SIZE, KEPT - 1));
        drop(buffer);
        drop(buffers.promise());
        let mut buffer = buffers.take();
        buffer[..8].copy_from_slice(b"abcdefgh");
        buffer.keep(2..5);
        assert_eq!((&buffer[..], buffers.free.lock().unwrap().len()), (&b"cde"[..], KEPT));
        buffer.fill();
        assert_eq!((&buffer[..3], buffer.len(), buffers.free.lock().unwrap().len()), (&b"cde"[..], SIZE, KEPT - 1));
        buffer.keep(0..1);
        drop(buffer);
        assert_eq!(buffers.free.lock().unwrap().len(), KEPT);
        assert!(buffers.free.lock().unwrap().iter().all(|b| b.len() == SIZE));
    }
}
