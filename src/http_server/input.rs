//! What a connection has received.

use crate::buffers::{Buffer, Buffers};

/// Bytes that were received and not yet used.
pub(crate) struct Input {
    /// Without memory where there are none.
    pub(super) buf: Buffer,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Input {
    pub(super) fn new(buffers: &Buffers) -> Self {
        Self { buf: buffers.promise(), start: 0, end: 0 }
    }

    /// Gives the memory back but for what is still to be used, where that is little: the call may wait.
    pub(super) fn settle(&mut self) {
        if self.end - self.start <= super::PART {
            self.buf.keep(self.start..self.end);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    /// Gives the memory back where all is used: a function may take its time.
    pub(super) fn rest(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.buf.give_back();
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn compact(&mut self) {
        self.buf.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }
}
