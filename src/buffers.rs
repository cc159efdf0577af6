//! Fixed buffers, lent while bytes move and given back when a connection is idle.

use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a buffer. It is also the bound of a message head: a head has to fit a buffer whole.
pub const SIZE: usize = 8 * 1024;

/// Bytes up to which what goes out after a head is copied behind it: that costs less than a second piece does the kernel.
pub const JOINED: usize = 1024;

/// Buffers kept when nobody uses them; more go back to the allocator, so that a burst leaves nothing behind.
const KEPT: usize = 4;

/// Bytes of a buffer that [grew](Buffer::grow), and how many such there are at once.
pub const LARGE: usize = 32 * 1024;
const LARGE_AT_ONCE: usize = 8;
/// How many of them are kept until it is [calm](Buffers::calm): to take that much memory anew costs as much as it saves.
const LARGE_KEPT: usize = 4;

/// Where buffers come from. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Buffers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    free: Mutex<Vec<Box<[u8]>>>,
    /// How many large ones are lent, and those that are kept.
    large: AtomicUsize,
    large_free: Mutex<Vec<Box<[u8]>>>,
}

/// [`SIZE`] bytes or more, given back when dropped. What an earlier user left in it is still there.
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

    /// Who asked a moment ago does not ask again: where nobody has a large one now, none is kept.
    pub fn calm(&self) {
        if self.0.large.load(Ordering::Relaxed) == 0 {
            lock(&self.0.large_free).clear();
        }
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
            let free = lock(&self.home.0.free).pop();
            let mut bytes = free.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice());
            bytes.iter_mut().zip(&self.bytes).for_each(|(to, from)| *to = *from);
            self.bytes = bytes;
        }
    }

    /// Its bytes from `at` on, of the [`SIZE`] that it has then.
    pub fn room(&mut self, at: usize) -> &mut [u8] {
        self.fill();
        self.bytes.get_mut(at..).unwrap_or_default()
    }

    /// Makes it [`LARGE`], where there are not too many such: for a body of which more is here than fits. What is in it is lost.
    pub fn grow(&mut self) {
        let large = &self.home.0.large;
        let one_more = |lent: usize| (lent < LARGE_AT_ONCE).then_some(lent + 1);
        if self.bytes.len() < LARGE && large.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok() {
            self.give_back();
            let free = lock(&self.home.0.large_free).pop();
            self.bytes = free.unwrap_or_else(|| vec![0; LARGE].into_boxed_slice());
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
        match bytes.len() {
            ..SIZE => {}
            LARGE => {
                self.home.0.large.fetch_sub(1, Ordering::Relaxed);
                put(&self.home.0.large_free, bytes, LARGE_KEPT);
            }
            _ => put(&self.home.0.free, bytes, KEPT),
        }
    }
}

fn lock(free: &Mutex<Vec<Box<[u8]>>>) -> MutexGuard<'_, Vec<Box<[u8]>>> {
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put(free: &Mutex<Vec<Box<[u8]>>>, bytes: Box<[u8]>, most: usize) {
    let mut free = lock(free);
    if free.len() < most {
        free.push(bytes);
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
        assert_eq!(buffers.0.free.lock().unwrap().len(), KEPT);
        let mut buffer = buffers.take();
        buffer.give_back();
        assert_eq!((buffer.len(), buffers.0.free.lock().unwrap().len()), (0, KEPT));
        buffer.fill();
        buffer.fill();
        assert_eq!((buffer.len(), buffers.0.free.lock().unwrap().len()), (SIZE, KEPT - 1));
        drop(buffer);
        drop(buffers.promise());
        let mut buffer = buffers.take();
        buffer[..8].copy_from_slice(b"abcdefgh");
        buffer.keep(2..5);
        assert_eq!((&buffer[..], buffers.0.free.lock().unwrap().len()), (&b"cde"[..], KEPT));
        buffer.fill();
        assert_eq!((&buffer[..3], buffer.len(), buffers.0.free.lock().unwrap().len()), (&b"cde"[..], SIZE, KEPT - 1));
        buffer.keep(0..1);
        drop(buffer);
        assert_eq!(buffers.0.free.lock().unwrap().len(), KEPT);
        assert!(buffers.0.free.lock().unwrap().iter().all(|b| b.len() == SIZE));
    }
    #[test]
    fn only_a_few_are_large_at_once() {
        let buffers = Buffers::default();
        let mut burst: Vec<Buffer> = (0..100).map(|_| buffers.take()).collect();
        burst.iter_mut().for_each(Buffer::grow);
        burst.iter_mut().for_each(Buffer::grow);
        burst.iter_mut().for_each(Buffer::fill);
        assert_eq!(burst.iter().filter(|b| b.len() == LARGE).count(), LARGE_AT_ONCE);
        assert_eq!(burst.iter().filter(|b| b.len() == SIZE).count(), 100 - LARGE_AT_ONCE);
        burst.truncate(1);
        buffers.calm();
        assert_eq!(buffers.0.large_free.lock().unwrap().len(), LARGE_KEPT);
        burst[0].keep(0..3);
        assert_eq!((burst[0].len(), buffers.0.large.load(Ordering::Relaxed)), (3, 0));
        burst[0].fill();
        burst[0].grow();
        burst[0].give_back();
        assert_eq!(buffers.0.large_free.lock().unwrap().len(), LARGE_KEPT);
        buffers.calm();
        assert_eq!(buffers.0.large_free.lock().unwrap().len(), 0);
        assert_eq!(buffers.0.large.load(Ordering::Relaxed), 0);
        assert!(buffers.0.free.lock().unwrap().iter().all(|b| b.len() == SIZE));
    }
}
