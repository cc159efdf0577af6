//! Fixed buffers, lent while bytes move and given back when a connection is idle.

use std::ops::{Deref, DerefMut};
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
    /// Makes sure that it has its [`SIZE`] bytes.
    pub fn fill(&mut self) {
        if self.bytes.is_empty() {
            let free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            self.bytes = free.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice());
        }
    }

    /// Gives the memory back; what is left has no bytes.
    pub fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() {
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
        assert_eq!(buffers.free.lock().unwrap().len(), KEPT);
        assert!(buffers.free.lock().unwrap().iter().all(|b| b.len() == SIZE));
    }
}
