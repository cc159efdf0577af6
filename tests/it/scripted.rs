//! A server that reads one request, keeps its bytes, and answers what the test wrote down.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

/// A server for one connection.
pub struct Scripted {
    pub addr: SocketAddr,
    thread: JoinHandle<Vec<u8>>,
}

impl Scripted {
    /// Reads a whole request, then answers `answer` and closes.
    pub fn answers(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::with(move |stream| {
            let request = read_request(stream);
            stream.write_all(&answer).unwrap();
            request
        })
    }

    /// Does `script` with the first connection; what it returns is the request.
    pub fn with(script: impl FnOnce(&mut TcpStream) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || script(&mut listener.accept().unwrap().0));
        Self { addr, thread }
    }

    /// The request's bytes, with the port in its Host field written as `PORT`.
    pub fn request(self) -> String {
        let port = format!("127.0.0.1:{}", self.addr.port());
        String::from_utf8(self.bytes()).unwrap().replace(&port, "127.0.0.1:PORT")
    }

    /// The request's bytes.
    pub fn bytes(self) -> Vec<u8> {
        self.thread.join().unwrap()
    }
}

/// The body of a request as [`Scripted::bytes`] gives it, without its chunks.
pub fn body_of(request: &[u8]) -> Vec<u8> {
    let end = head_end(request).unwrap();
    let (head, mut rest) = (std::str::from_utf8(&request[..end]).unwrap(), &request[end..]);
    if !head.contains("Transfer-Encoding: chunked\r\n") {
        return rest.to_vec();
    }
    let mut body = Vec::new();
    loop {
        let line = rest.iter().position(|&b| b == b'\n').unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line - 1]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[line + 1..line + 1 + size]);
        assert_eq!(&rest[line + 1 + size..line + 3 + size], b"\r\n");
        rest = &rest[line + 3 + size..];
        if size == 0 {
            assert_eq!(rest, b"", "nothing follows the body");
            return body;
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let (mut request, mut piece) = (Vec::new(), [0; 65536]);
    while !is_whole(&request) {
        let n = stream.read(&mut piece).unwrap();
        assert_ne!(n, 0, "the request ended early: {:?}", String::from_utf8_lossy(&request));
        request.extend_from_slice(&piece[..n]);
    }
    request
}

fn is_whole(request: &[u8]) -> bool {
    let Some(end) = head_end(request) else { return false };
    let head = std::str::from_utf8(&request[..end]).unwrap();
    if head.contains("Transfer-Encoding: chunked\r\n") {
        return request.ends_with(b"0\r\n\r\n");
    }
    let length = head.split("Content-Length: ").nth(1).map_or(0, |l| l.split("\r\n").next().unwrap().parse().unwrap());
    request.len() == end + length
}

/// Where the body starts.
pub fn head_end(request: &[u8]) -> Option<usize> {
    request.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}
