//! A peer of the gRPC front door that writes the HTTP/2 frames (RFC 9113) it likes, for the tests in `grpc_floods`,
//! `grpc_frames` and `grpc_connections`.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tinyfaas::front::grpc::Config;
use tinyfaas::wire::grpc::message::{Data, framed};

use crate::grpc_door::{Door, call, echo, limits};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A peer that writes the bytes it likes.
pub struct Peer {
    pub stream: TcpStream,
}

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// How a connection or a stream ended, as the peer saw it.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// GOAWAY with this error, or the connection was closed without a word.
    Closed(Option<u32>),
    /// RST_STREAM with this error.
    Reset(u32),
    /// Trailers or trailers-only; the header block as it came.
    Answered,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header field as HPACK's literal without indexing (RFC 7541 §6.2.2), never Huffman-coded.
pub fn field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        if text.len() < 127 {
            block.push(text.len() as u8);
        } else {
            block.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                block.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            block.push(rest as u8);
        }
        block.extend(text);
    }
}

pub fn request_block(more: &[(&str, &[u8])]) -> Vec<u8> {
    block_for("/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request", more)
}

/// The header block of a call of any method.
pub fn block_for(path: &str, more: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        field(&mut block, name.as_bytes(), value.as_bytes());
    }
    for (name, value) in more {
        field(&mut block, name.as_bytes(), value);
    }
    block
}

pub fn question(function: &str, body: &[u8]) -> Vec<u8> {
    let function_identifier = function.to_owned().into();
    framed(&Data { function_identifier, data: Default::default(), payload: Some(body.to_vec().into()) }).to_vec()
}

impl Peer {
    /// Connects and says only what RFC 9113 §3.4 asks for.
    pub fn connect(door: &Door) -> Self {
        let mut peer = Self::mute(door);
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        peer
    }

    /// Connects and says nothing.
    pub fn mute(door: &Door) -> Self {
        let stream = TcpStream::connect(door.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream }
    }

    /// Sends; `false` when the server closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => false,
            Err(e) => panic!("{e}"),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes), "the server closed");
    }

    /// The next frame; `None` when the server closed.
    pub fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.read(&mut payload)?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    fn read(&mut self, buf: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buf) {
            Ok(()) => Some(()),
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
            Err(e) => panic!("the server neither answers nor closes: {e}"),
        }
    }

    /// The next frame of this type.
    pub fn frame_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().unwrap_or_else(|| panic!("closed before a frame of type {kind}"));
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Reads until the connection ends.
    pub fn closed(&mut self) -> End {
        let mut error = None;
        while let Some(frame) = self.frame() {
            if frame.kind == GOAWAY {
                error = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
        End::Closed(error)
    }

    /// Reads until the stream or the connection ends.
    pub fn end_of(&mut self, stream: u32) -> End {
        while let Some(frame) = self.frame() {
            let code = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
            match frame.kind {
                GOAWAY => return End::Closed(Some(code(4))),
                RST_STREAM if frame.stream == stream => return End::Reset(code(0)),
                HEADERS if frame.stream == stream && frame.flags & END_STREAM != 0 => return End::Answered,
                _ => {}
            }
        }
        End::Closed(None)
    }

    /// Sends the head of a call and this part of its body.
    pub fn begin_call(&mut self, stream: u32, part: &[u8]) {
        let head = frame(HEADERS, END_HEADERS, stream, &request_block(&[]));
        self.send(&[head, frame(DATA, 0, stream, part)].concat());
    }

    pub fn call(&mut self, stream: u32, question: &[u8]) {
        let head = frame(HEADERS, END_HEADERS, stream, &request_block(&[]));
        self.send(&[head, frame(DATA, END_STREAM, stream, question)].concat());
    }

    /// Sends `bytes` until the server closes, a million times at most.
    pub fn flood(&mut self, bytes: &[u8]) -> End {
        let many = bytes.repeat((8192 / bytes.len()).max(1));
        for _ in 0..1_000_000 / (8192 / bytes.len()).max(1) {
            if !self.try_send(&many) {
                break;
            }
        }
        self.closed()
    }
}

/// Closed, and where a word came before, it was this one. A word can be lost when the server closes while bytes that it
/// did not read are under way: TCP then resets the connection.
pub fn assert_closed(end: &End, error: u32) {
    assert!(matches!(end, End::Closed(None)) || *end == End::Closed(Some(error)), "{end:?}");
}

/// A door with an echo.
pub fn open() -> Door {
    let mut door = Door::open(Config::default());
    door.install("echo", limits(), echo);
    door
}

/// Another client is served as ever, and nothing is held.
pub fn assert_well(door: &Door) {
    assert_eq!(call(&door.client(), "echo", b"still here").payload().unwrap(), "still here");
    door.settled();
}
