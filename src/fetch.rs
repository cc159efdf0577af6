//! Downloads one archive over HTTP or HTTPS: a GET by hand, with bounds on everything a server chooses.
//!
//! Which addresses may be contacted is [`Policy`]'s to say. It judges addresses, not names, and the address that was
//! judged is the one that is connected to; so a name that resolves differently a moment later changes nothing.
//! Redirects are judged the same way. What the body is, and where it goes, is the caller's business.
//!
//! # Implementation
//! The system's resolver blocks: it runs on a thread of its own for each download. Everything else is on the executor.
//! While a download is open it holds one buffer of [`HEAD`] bytes, and with TLS a record.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::{AsyncReadExt, AsyncWriteExt, future};

use crate::net::Stream;
use crate::reactor::{Async, Timer};
use crate::tls::{self, Trust};
use crate::wire::chunked::ChunkDecoder;
use crate::wire::http1::{self, Framing};
use crate::wire::url::Url;

mod policy;
#[cfg(test)]
mod tests;
#[cfg(test)]
#[cfg(feature = "tls")]
mod tests_tls;

pub use policy::Policy;

/// Redirects that are followed; more are a loop.
const MAX_REDIRECTS: usize = 5;
/// Bytes of a response's head, and of the buffer: public servers send up to some 8 KiB.
const HEAD: usize = 16 * 1024;
/// Interim (1xx) responses before the real one.
const MAX_INTERIM: usize = 8;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// Time for one TCP connection: with several addresses the next one has to get its turn.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Stack of the resolver's thread in bytes; musl's resolver needs a few KiB, glibc's some tens.
const RESOLVER_STACK: usize = 128 * 1024;

/// Bounds of a download, and who may be contacted.
#[derive(Debug, Clone)]
pub struct Config {
    /// Largest body in bytes.
    pub max_bytes: u64,
    /// Time for all of it: resolving, redirects, body.
    pub timeout: Duration,
    /// Longest time without a byte from the server.
    pub stall_timeout: Duration,
    /// Which addresses may be contacted.
    pub policy: Policy,
    /// File of PEM certificates to trust besides the public ones.
    pub ca_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_bytes: 64 * 1024 * 1024,
            timeout: Duration::from_secs(300),
            stall_timeout: Duration::from_secs(30),
            policy: Policy::default(),
            ca_file: None,
        }
    }
}

/// Why a download failed: a line of text, and whose fault it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// What was wrong and what would be right. Names scheme and host, never path or query: they may hold a signature.
    pub text: String,
}

/// The kinds of [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The URL, or where it leads, is not to be fetched. HTTP 400.
    Address,
    /// The body passes [`Config::max_bytes`]. HTTP 413.
    TooLarge,
    /// The server cannot be reached, or answered something else. HTTP 502.
    Server,
    /// Not done within [`Config::timeout`]. HTTP 504.
    TooLate,
    /// This machine: a thread, a file. HTTP 500.
    Own,
}

impl Error {
    fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    fn server(url: &Url, what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Server, format!("{url}: {what}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// A download whose head was read; the body comes by [`Download::read`].
pub struct Download {
    url: Url,
    connection: Stream,
    deadlines: Deadlines,
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
    body: Body,
    received: u64,
    max_bytes: u64,
}

enum Body {
    Length(u64),
    Chunked(ChunkDecoder),
    UntilClose,
    Ended,
}

#[derive(Clone, Copy)]
struct Deadlines {
    end: Instant,
    total: Duration,
    stall: Duration,
}

/// Starts to download `url`, following redirects, up to the body of a 200 response.
///
/// # Errors
/// [`Error`].
pub async fn open(url: &Url, config: &Config) -> Result<Download, Error> {
    let deadlines =
        Deadlines { end: Instant::now() + config.timeout, total: config.timeout, stall: config.stall_timeout };
    let mut url = url.clone();
    for _ in 0..=MAX_REDIRECTS {
        match request(&url, config, deadlines).await? {
            Answer::Body(download) => return Ok(*download),
            Answer::Redirect(next) => {
                if url.https && !next.https {
                    let text = format!("{url} redirects to {next}: from https to http is not followed");
                    return Err(Error::new(ErrorKind::Address, text));
                }
                url = next;
            }
        }
    }
    Err(Error::server(&url, format_args!("more than {MAX_REDIRECTS} redirects")))
}

enum Answer {
    Body(Box<Download>),
    Redirect(Url),
}

async fn request(url: &Url, config: &Config, deadlines: Deadlines) -> Result<Answer, Error> {
    let connection = deadlines.total(url, connect(url, config)).await?;
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\nuser-agent: tinyfaas/{}\r\naccept: */*\r\naccept-encoding: identity\r\n\
         connection: close\r\n\r\n",
        url.target,
        url.host_field(),
        env!("CARGO_PKG_VERSION")
    );
    let mut writer = &connection;
    deadlines.stall(url, writer.write_all(head.as_bytes())).await?;
    deadlines.stall(url, writer.flush()).await?;

    let buffer = vec![0; HEAD].into_boxed_slice();
    let mut download = Download {
        url: url.clone(),
        connection,
        deadlines,
        buffer,
        from: 0,
        to: 0,
        body: Body::Ended,
        received: 0,
        max_bytes: config.max_bytes,
    };
    let response = download.head().await?;
    let header = |name| response.headers.get_str(name);
    match (response.status, header("location")) {
        (301 | 302 | 303 | 307 | 308, Some(location)) => {
            let next = url.join(location).map_err(|why| Error::server(url, format_args!("its redirect: {why}")))?;
            return Ok(Answer::Redirect(next));
        }
        (200, _) => {}
        (status, _) => {
            let what = format!("it answered {status} {}; 200 was expected", http1::reason(status));
            return Err(Error::server(url, what));
        }
    }
    if header("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Error::server(url, "it packed the archive once more (Content-Encoding), unasked"));
    }
    download.body = match response.framing {
        Framing::Length(length) if length > config.max_bytes => return Err(download.too_large()),
        Framing::Length(length) => Body::Length(length),
        Framing::Chunked => Body::Chunked(ChunkDecoder::new()),
        Framing::UntilClose => Body::UntilClose,
    };
    Ok(Answer::Body(Box::new(download)))
}

impl Download {
    /// The body's length in bytes, where the server said it.
    pub fn length(&self) -> Option<u64> {
        match self.body {
            Body::Length(left) => Some(self.received + left),
            _ => None,
        }
    }

    /// Reads the next piece of the body into `buf`, which is not empty; 0 means that the body is complete.
    ///
    /// # Errors
    /// [`Error`], also where the body ends early.
    pub async fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let n = match &mut self.body {
            Body::Ended => return Ok(0),
            Body::Length(0) => 0,
            Body::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                let n = self.receive(buf.get_mut(..most).unwrap_or_default()).await?;
                if n == 0 {
                    return Err(self.cut());
                }
                if let Body::Length(left) = &mut self.body {
                    *left -= n as u64;
                }
                n
            }
            Body::Chunked(_) => self.read_chunked(buf).await?,
            Body::UntilClose => self.receive(buf).await?,
        };
        if n == 0 {
            self.body = Body::Ended;
        }
        self.received += n as u64;
        if self.received > self.max_bytes {
            return Err(self.too_large());
        }
        Ok(n)
    }

    /// Reads all of the body into `out`: its length.
    ///
    /// `out` is written to on the executor's thread: a file's writes go to the page cache.
    ///
    /// # Errors
    /// As [`Download::read`], and where `out` fails.
    pub async fn save(&mut self, out: &mut (dyn io::Write + Send)) -> Result<u64, Error> {
        let mut buf = vec![0; HEAD].into_boxed_slice();
        loop {
            let n = self.read(&mut buf).await?;
            if n == 0 {
                return Ok(self.received);
            }
            out.write_all(buf.get(..n).unwrap_or_default())
                .map_err(|e| Error::new(ErrorKind::Own, format!("failed to store the download: {e}")))?;
        }
    }

    async fn head(&mut self) -> Result<http1::Response, Error> {
        let mut interim = 0;
        loop {
            let bytes = self.buffer.get(self.from..self.to).unwrap_or_default();
            let parsed = http1::parse_response(bytes, false)
                .map_err(|refusal| Error::server(&self.url, format_args!("no HTTP response: {}", refusal.text)))?;
            if let Some(response) = parsed {
                self.from += response.len;
                if response.status >= 200 {
                    return Ok(response);
                }
                interim += 1;
                if interim > MAX_INTERIM {
                    return Err(Error::server(&self.url, "too many 1xx responses"));
                }
                continue;
            }
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
            if self.to == self.buffer.len() {
                return Err(Error::server(&self.url, format_args!("the response's head is over {HEAD} bytes")));
            }
            let room = self.buffer.get_mut(self.to..).unwrap_or_default();
            let n = self.deadlines.stall(&self.url, (&self.connection).read(room)).await?;
            if n == 0 {
                return Err(Error::server(&self.url, "the connection ended before the response's head did"));
            }
            self.to += n;
        }
    }

    /// Bytes as they come: what is in the buffer first.
    async fn receive(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let held = self.buffer.get(self.from..self.to).unwrap_or_default();
        if held.is_empty() {
            return self.deadlines.stall(&self.url, (&self.connection).read(buf)).await;
        }
        let n = held.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), held.get(..n)) {
            to.copy_from_slice(from);
        }
        self.from += n;
        Ok(n)
    }

    async fn read_chunked(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        loop {
            let Body::Chunked(decoder) = &mut self.body else { return Ok(0) };
            let most = (self.to - self.from).min(buf.len());
            let held = self.buffer.get(self.from..self.from + most).unwrap_or_default();
            let (used, data) = decoder.decode(held).map_err(|e| Error::server(&self.url, e.0))?;
            self.from += used;
            if let Some(to) = buf.get_mut(..data.len())
                && !data.is_empty()
            {
                to.copy_from_slice(data);
                return Ok(data.len());
            }
            if decoder.is_done() {
                return Ok(0);
            }
            if self.from == self.to {
                (self.from, self.to) = (0, 0);
                let n = self.deadlines.stall(&self.url, (&self.connection).read(&mut self.buffer)).await?;
                if n == 0 {
                    return Err(self.cut());
                }
                self.to = n;
            }
        }
    }

    fn cut(&self) -> Error {
        Error::server(&self.url, "the connection ended before the body did")
    }

    fn too_large(&self) -> Error {
        Error::new(ErrorKind::TooLarge, format!("{}: the archive is larger than {} bytes", self.url, self.max_bytes))
    }
}

impl Deadlines {
    /// Waits for `work` within the time for all.
    async fn total<T>(self, url: &Url, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let late = async {
            Timer::at(self.end).await;
            Err(self.too_late(url))
        };
        future::or(work, late).await
    }

    /// Waits for `work` within the time for all, and the time without a byte.
    async fn stall<T>(self, url: &Url, work: impl Future<Output = io::Result<T>>) -> Result<T, Error> {
        let stalled = Instant::now() + self.stall;
        let work = async { work.await.map_err(|e| Error::server(url, format_args!("the connection broke: {e}"))) };
        let late = async {
            Timer::at(stalled.min(self.end)).await;
            if self.end <= stalled {
                return Err(self.too_late(url));
            }
            let text = format!("{url}: nothing came for {} s", self.stall.as_secs_f32());
            Err(Error::new(ErrorKind::TooLate, text))
        };
        future::or(work, late).await
    }

    fn too_late(self, url: &Url) -> Error {
        let text = format!("{url}: the download was not done within {} s", self.total.as_secs_f32());
        Error::new(ErrorKind::TooLate, text)
    }
}

/// Connects to the first address of the URL's host that may be contacted and answers.
async fn connect(url: &Url, config: &Config) -> Result<Stream, Error> {
    if url.https && !tls::IS_THERE {
        let text = format!("{url}: this build has no TLS; use http, or build with `--features tls`");
        return Err(Error::new(ErrorKind::Address, text));
    }
    let mut failed = Error::server(url, "its name has no address");
    for address in resolve(url).await?.into_iter().take(MAX_ADDRESSES) {
        if let Err(kind) = config.policy.check(address.ip()) {
            let text = format!("{url} is at {}, {kind}: such are not fetched from", address.ip());
            failed = Error::new(ErrorKind::Address, text);
            continue;
        }
        if !config.policy.allow_local && is_own(address) {
            let text = format!("{url} is at {}, an address of this machine: such are not fetched from", address.ip());
            failed = Error::new(ErrorKind::Address, text);
            continue;
        }
        match connect_tcp(address).await {
            Ok(tcp) => return secure(url, config, tcp).await,
            Err(e) => failed = Error::server(url, format_args!("cannot connect to {address}: {e}")),
        }
    }
    Err(failed)
}

/// Whether what is sent to `address` stays on this machine: it would come from that very address. Nothing is sent for that.
fn is_own(address: SocketAddr) -> bool {
    let any: SocketAddr =
        if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let from = UdpSocket::bind(any).and_then(|socket| socket.connect(address).and_then(|()| socket.local_addr()));
    from.is_ok_and(|from| from.ip().to_canonical() == address.ip().to_canonical())
}

async fn connect_tcp(address: SocketAddr) -> io::Result<Async<TcpStream>> {
    let late = async {
        Timer::after(CONNECT_TIMEOUT).await;
        Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s"))
    };
    future::or(Async::<TcpStream>::connect(address), late).await
}

/// Does the handshake where the URL wants one. What it needs is made for each download and goes with it.
async fn secure(url: &Url, config: &Config, tcp: Async<TcpStream>) -> Result<Stream, Error> {
    if !url.https {
        return Ok(tcp.into());
    }
    let client = tls::Client::new(Trust::Public(config.ca_file.as_deref()), None, "http/1.1")
        .map_err(|e| Error::new(ErrorKind::Own, format!("failed to set TLS up: {e}")))?;
    client.connect(&url.host, tcp).await.map(Stream::from).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidInput => Error::new(ErrorKind::Address, format!("{url}: {e}")),
        _ => Error::server(url, format_args!("TLS failed: {e}")),
    })
}

/// The addresses of the URL's host, in the system's order.
async fn resolve(url: &Url) -> Result<Vec<SocketAddr>, Error> {
    if let Some(address) = url.address() {
        return Ok(vec![SocketAddr::new(address, url.port)]);
    }
    let (sender, receiver) = async_channel::bounded(1);
    let (host, port) = (url.host.clone(), url.port);
    thread::Builder::new()
        .name("resolver".into())
        .stack_size(RESOLVER_STACK)
        .spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            // Fails only when nobody waits any more.
            let _ = sender.try_send(found);
        })
        .map_err(|e| Error::new(ErrorKind::Own, format!("failed to start the resolver's thread: {e}")))?;
    match receiver.recv().await {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(e)) => Err(Error::server(url, format_args!("its name cannot be resolved: {e}"))),
        Err(_) => Err(Error::new(ErrorKind::Own, "the resolver's thread ended without a result")),
    }
}
