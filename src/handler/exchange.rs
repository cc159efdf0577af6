//! The bytes of one call: socket to stdin, stdout to socket, stderr to the log, all at once on one thread.
//!
//! Memory is constant whatever the sizes: one buffer a direction. Nothing waits for one pipe alone, so a program that
//! answers while it reads, or never reads, blocks nobody.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::child::{self, Running};
use super::connection::{BodyLeft, Received, Socket, TEXT, head};
use crate::wire::chunked;
use crate::wire::http1::Framing;

/// Output held back in bytes before the answer's head is sent: up to here the exit status decides what the head says.
/// It is also one chunk, whose prefix has four hexadecimal digits.
const HOLD: usize = 64 * 1024 - 1;
/// First size of the buffer for output in bytes; it grows as output comes.
const FIRST: usize = 4 * 1024;
/// What is kept of the program's stderr in bytes, for the message when it fails.
const MAX_MESSAGE: usize = 1024;

/// Where the answer stands.
#[derive(PartialEq, Eq)]
enum Stage {
    /// Output is held back.
    Held,
    /// Chunks are sent.
    Streaming,
    /// The last bytes are in `out`.
    Last,
}

pub(super) struct Exchange<'a> {
    /// The call's id.
    call: &'a str,
    socket: &'a Socket,
    received: &'a mut Received,
    body: BodyLeft,
    /// Bytes at the front of `received` that are body and go to stdin.
    due: usize,
    child: Running,
    stage: Stage,
    /// Held output, or one chunk of it with room for its prefix in front.
    out: Vec<u8>,
    /// The head, while it is to be sent with the first output.
    head: Vec<u8>,
    /// Bytes sent of `head` and `out` together.
    sent: usize,
    /// The end of what the program wrote to stderr.
    message: Vec<u8>,
    exited: bool,
    keep_alive: bool,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        call: &'a str,
        socket: &'a Socket,
        received: &'a mut Received,
        body: BodyLeft,
        child: Running,
        keep_alive: bool,
    ) -> Self {
        Self {
            call,
            socket,
            received,
            body,
            due: 0,
            child,
            stage: Stage::Held,
            out: Vec::new(),
            head: Vec::new(),
            sent: 0,
            message: Vec::new(),
            exited: false,
            keep_alive,
        }
    }

    /// Moves the bytes until the call is answered and its body read; whether another call may follow.
    ///
    /// # Errors
    /// The peer went away, its body is broken, or the program failed when part of its answer was sent: the connection
    /// has to be closed. The program is gone in any case.
    pub(super) fn run(mut self) -> io::Result<bool> {
        loop {
            self.move_body()?;
            self.read_stderr();
            while self.unsent() == 0 && self.stage != Stage::Last && self.read_stdout()? {}
            self.send()?;
            if self.stage == Stage::Last && self.unsent() == 0 && self.body_is_read() {
                break;
            }
            self.wait()?;
        }
        Ok(self.keep_alive)
    }

    fn body_is_read(&self) -> bool {
        self.due == 0 && self.body.is_done()
    }

    fn unsent(&self) -> usize {
        match self.stage {
            Stage::Held => 0,
            _ => self.head.len() + self.out.len() - self.sent,
        }
    }

    /// Waits until something can move.
    fn wait(&mut self) -> io::Result<()> {
        let mut socket = PollFlags::RDHUP;
        // Body bytes are asked for when those that came are passed on.
        if self.due == 0 && !self.body.is_done() {
            socket |= PollFlags::IN;
        }
        if self.unsent() > 0 {
            socket |= PollFlags::OUT;
        }
        let mut fds = Vec::with_capacity(5);
        fds.push(PollFd::from_borrowed_fd(self.socket.as_fd(), socket));
        let wants_output = self.stage != Stage::Last && self.unsent() == 0;
        if let Some(pipe) = self.child.stdin.as_ref().filter(|_| self.due > 0) {
            fds.push(PollFd::new(pipe, PollFlags::OUT));
        }
        if let Some(pipe) = self.child.stdout.as_ref().filter(|_| wants_output) {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        if let Some(pipe) = self.child.stderr.as_ref() {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        let exit_at = fds.len();
        if let Some(exit) = self.child.exit.as_ref().filter(|_| !self.exited) {
            fds.push(PollFd::from_borrowed_fd(exit.as_fd(), PollFlags::IN));
        }
        // The program has ended, or closed its output and no descriptor tells of its end: what is left is there now.
        let ended = self.exited || (self.child.stdout.is_none() && self.child.exit.is_none());
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut fds, Some(&at_once).filter(|_| ended && wants_output)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let gone =
            fds.first().is_some_and(|fd| fd.revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR));
        let exited = fds.get(exit_at).is_some_and(|fd| !fd.revents().is_empty());
        self.exited |= exited;
        // Nobody waits for the answer: the program is killed when it is dropped.
        if gone { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Passes body bytes from the socket to the program; drops them when it does not read.
    fn move_body(&mut self) -> io::Result<()> {
        loop {
            while self.due == 0 && !self.body.is_done() && !self.received.bytes().is_empty() {
                self.due = self.body.next(self.received).map_err(|r| io::Error::other(r.text))?;
            }
            if self.due > 0 {
                let data = self.received.bytes().get(..self.due).unwrap_or_default();
                let n = match self.child.stdin.as_mut().map(|pipe| pipe.write(data)) {
                    None => self.due,
                    Some(Ok(n)) => n,
                    Some(Err(e)) if would_wait(&e) => return Ok(()),
                    Some(Err(_)) => {
                        // It reads no more: the rest still has to be read from the connection.
                        self.child.stdin = None;
                        self.due
                    }
                };
                self.received.consume(n);
                self.due -= n;
                continue;
            }
            if self.body.is_done() {
                self.child.stdin = None;
                return Ok(());
            }
            match self.received.fill(self.socket) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if would_wait(&e) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    fn read_stderr(&mut self) {
        let mut piece = [0; 2048];
        while let Some(pipe) = &mut self.child.stderr {
            match pipe.read(&mut piece) {
                Ok(n) if n > 0 => {
                    let bytes = piece.get(..n).unwrap_or_default();
                    child::log(bytes);
                    self.message.extend_from_slice(bytes);
                    let excess = self.message.len().saturating_sub(MAX_MESSAGE);
                    self.message.drain(..excess);
                }
                Err(e) if would_wait(&e) => return,
                _ => self.child.stderr = None,
            }
        }
    }

    /// Reads output into `out`; whether to go on reading.
    fn read_stdout(&mut self) -> io::Result<bool> {
        let streaming = self.stage == Stage::Streaming;
        if streaming {
            (self.head, self.sent) = (Vec::new(), 0);
            self.out.clear();
            self.out.resize(chunked::PREFIX, 0);
        }
        let from = self.out.len();
        let most = if streaming { chunked::PREFIX + HOLD } else { HOLD };
        // Doubled each time it was filled: a short answer takes little.
        let to = if streaming { most } else { (from * 2).clamp(FIRST, most) };
        self.out.resize(to, 0);
        let read = match &mut self.child.stdout {
            Some(pipe) => pipe.read(self.out.get_mut(from..).unwrap_or_default()),
            None => Ok(0),
        };
        let n = match &read {
            Ok(n) => *n,
            Err(_) => 0,
        };
        self.out.truncate(from + n);
        match read {
            // When the program has ended, nobody that counts can write any more.
            Err(e) if e.kind() == io::ErrorKind::Interrupted || would_wait(&e) && !self.exited => {
                if streaming {
                    self.out.clear();
                }
                return Ok(e.kind() == io::ErrorKind::Interrupted);
            }
            Ok(n) if n > 0 => {
                if streaming {
                    self.seal_chunk(n);
                    return Ok(false);
                }
                if self.out.len() < HOLD {
                    return Ok(true);
                }
                head(&mut self.head, 200, content_type(&self.out), Framing::Chunked, self.keep_alive);
                self.head.extend_from_slice(&chunked::write_prefix(self.out.len()));
                self.out.extend_from_slice(chunked::SUFFIX);
                self.stage = Stage::Streaming;
                return Ok(false);
            }
            _ => {}
        }
        self.child.stdout = None;
        if !self.exited && self.child.exit.is_some() {
            // It closed its output and still runs: its status counts.
            if streaming {
                self.out.clear();
            }
            return Ok(false);
        }
        self.end()?;
        Ok(false)
    }

    fn seal_chunk(&mut self, size: usize) {
        if let Some(prefix) = self.out.get_mut(..chunked::PREFIX) {
            prefix.copy_from_slice(&chunked::write_prefix(size));
        }
        self.out.extend_from_slice(chunked::SUFFIX);
    }

    /// All output is read: the exit status decides.
    fn end(&mut self) -> io::Result<()> {
        let status = self.child.finish()?;
        self.read_stderr();
        self.child.stderr = None;
        // The body's rest goes nowhere.
        self.child.stdin = None;
        let streaming = self.stage == Stage::Streaming;
        if !status.success() {
            let after = if streaming { " after part of its answer was sent" } else { "" };
            child::log(format!("call {}: {}{after}\n", self.call, child::failure(status)).as_bytes());
        }
        if streaming {
            if !status.success() {
                // Only a connection that breaks says that the body is not whole.
                return Err(io::Error::other("the function failed"));
            }
            self.out.clear();
            self.out.extend_from_slice(chunked::LAST);
        } else if status.success() {
            head(&mut self.head, 200, content_type(&self.out), Framing::Length(self.out.len() as u64), self.keep_alive);
        } else {
            let text = match last_lines(&self.message).or_else(|| last_lines(&self.out)) {
                Some(text) => text.to_vec(),
                None => child::failure(status).into_bytes(),
            };
            self.out = text;
            head(&mut self.head, 500, TEXT, Framing::Length(self.out.len() as u64), self.keep_alive);
        }
        self.stage = Stage::Last;
        Ok(())
    }

    /// Sends what is ready, head and output in one write.
    fn send(&mut self) -> io::Result<()> {
        while self.unsent() > 0 {
            let head = self.head.get(self.sent..).unwrap_or_default();
            let out = self.out.get(self.sent.saturating_sub(self.head.len())..).unwrap_or_default();
            match self.socket.write(&[IoSlice::new(head), IoSlice::new(out)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.sent += n,
                Err(e) if would_wait(&e) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn would_wait(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Text or bytes, by the first output: a script cannot say which.
fn content_type(out: &[u8]) -> &'static [u8] {
    let text = match std::str::from_utf8(out) {
        Ok(_) => true,
        // The output goes on and this cut is in the middle of a character.
        Err(e) => e.error_len().is_none() && out.len() >= HOLD,
    };
    if text && !out.contains(&0) { TEXT } else { b"application/octet-stream" }
}

/// The last whole lines in at most [`MAX_MESSAGE`] bytes of `text`; `None` when there is nothing but white space.
fn last_lines(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_end();
    let tail = text.get(text.len().saturating_sub(MAX_MESSAGE)..)?;
    let cut = tail.len() >= MAX_MESSAGE;
    let start = tail.iter().position(|&b| b == b'\n').filter(|_| cut).map_or(0, |at| at + 1);
    tail.get(start..).filter(|t| !t.trim_ascii().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_last_whole_lines() {
        assert_eq!(last_lines(b" \n\n"), None);
        assert_eq!(last_lines(b"first\nsecond\n"), Some(&b"first\nsecond"[..]));
        let long = [b"x".repeat(MAX_MESSAGE), b"\nthe end\n".to_vec()].concat();
        assert_eq!(last_lines(&long), Some(&b"the end"[..]));
        let one = b"y".repeat(MAX_MESSAGE * 2);
        assert_eq!(last_lines(&one).map(<[u8]>::len), Some(MAX_MESSAGE));
    }

    #[test]
    fn output_is_text_unless_its_bytes_say_otherwise() {
        assert_eq!(content_type("grün".as_bytes()), TEXT);
        assert_ne!(content_type(b"a\0b"), TEXT);
        assert_ne!(content_type(b"a\xff"), TEXT);
        let cut = [vec![b'a'; HOLD - 1], vec![0xc3]].concat();
        assert_eq!(content_type(&cut), TEXT);
    }
}
