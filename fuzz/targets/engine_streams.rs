//! Any bytes as what a Docker engine answers: its log stream with the frames of two outputs, a build's lines of JSON, lists,
//! read through bollard and hyper as the server reads them, but from memory; and what our own code makes of the pieces.
//!
//! The first byte chooses the request, the second how the rest is cut.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use async_executor::StaticExecutor;
use bollard::query_parameters::{BuildImageOptions, ListContainersOptions, LogsOptions};
use bollard::{BollardRequest, Docker};
use bytes::Bytes;
use futures_lite::{Stream, StreamExt};
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use tinyfaas::backend::LogLine;
use tinyfaas::backend::docker::logs::{Assembly, MAX_LINE, Tail};
use tinyfaas::backend::docker::{EngineAddress, elf};

/// What is kept of a text.
const TAIL: usize = 64;

static EXECUTOR: StaticExecutor = StaticExecutor::new();
/// What the engine answers to the next request.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// A connection on which the answer comes once something was asked.
struct Memory {
    answer: Vec<u8>,
    at: usize,
    step: usize,
    asked: bool,
    reader: Option<Waker>,
}

impl Read for Memory {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.asked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let end = (self.at + self.step.min(buf.remaining())).min(self.answer.len());
        buf.put_slice(&self.answer[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn engine() -> &'static Docker {
    static ENGINE: OnceLock<Docker> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let carry = |request: BollardRequest| async move {
            let mut answer = std::mem::take(&mut *ANSWER.lock().unwrap_or_else(PoisonError::into_inner));
            let step = usize::from(answer.pop().unwrap_or(1)).max(1);
            let memory = Memory { answer, at: 0, step, asked: false, reader: None };
            let (mut sender, connection) = http1::handshake(memory).await?;
            EXECUTOR.spawn(async move { _ = connection.await }).detach();
            Ok::<_, bollard::errors::Error>(sender.send_request(request).await?)
        };
        Docker::connect_with_custom_transport(carry, Some("http://docker"), 3600, bollard::API_DEFAULT_VERSION).unwrap()
    })
}

/// As many items as there are before an error, at most what the bytes can make.
async fn items<T>(stream: impl Stream<Item = Result<T, bollard::errors::Error>>, most: usize, mut each: impl FnMut(T)) {
    let mut stream = std::pin::pin!(stream);
    let mut count = 0;
    while let Some(Ok(item)) = stream.next().await {
        each(item);
        count += 1;
        assert!(count <= most, "more items than bytes");
    }
}

fn look_at(line: Option<LogLine>) {
    assert!(line.is_none_or(|line| line.text.len() <= MAX_LINE));
}

/// Runs one input; panics where a promise is broken.
pub fn run(input: &[u8]) {
    let (&[kind, step], bytes) = input.split_first_chunk::<2>().unwrap_or((&[3, 1], input));
    if kind % 5 == 3 {
        return look_at_pieces(bytes, usize::from(step).max(1));
    }
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // The runtime that nobody drives, as in the server: bollard's timeouts ask for one.
    static INERT: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let inert = INERT.get_or_init(|| tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());
    let _entered = inert.enter();
    let head: &[u8] = if kind % 5 == 4 { b"" } else { b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" };
    *ANSWER.lock().unwrap_or_else(PoisonError::into_inner) = [head, bytes, &[step]].concat();
    let most = bytes.len() + 2;
    tinyfaas::reactor::block_on(EXECUTOR.run(async {
        match kind % 5 {
            0 | 4 => {
                let options = LogsOptions { stdout: true, stderr: true, timestamps: true, ..Default::default() };
                let mut line = Assembly::default();
                items(engine().logs("f", Some(options)), most, |item| look_at(line.push(&item.into_bytes()))).await;
                look_at(line.take());
            }
            1 => {
                let options = BuildImageOptions { t: Some("f".into()), ..Default::default() };
                let nothing = bollard::body_full(Bytes::new());
                let mut log = Tail::new(TAIL);
                items(engine().build_image(options, None, Some(nothing)), most, |item| {
                    log.push(item.stream.unwrap_or_default().as_bytes());
                })
                .await;
                assert!(log.text().len() <= 3 * TAIL);
            }
            _ => {
                let filters = HashMap::from([("label".to_string(), vec!["tinyFaaS".to_string()])]);
                let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
                let _ = engine().list_containers(Some(options)).await;
            }
        }
    }));
    // The connection ends by itself.
    while EXECUTOR.try_tick() {}
}

/// The same pieces without the way that they come.
fn look_at_pieces(bytes: &[u8], step: usize) {
    let (mut line, mut tail) = (Assembly::default(), Tail::new(TAIL));
    for piece in bytes.chunks(step) {
        look_at(line.push(piece));
        tail.push(piece);
    }
    look_at(line.take());
    assert!(line.take().is_none());
    assert!(tail.text().len() <= 3 * TAIL);
    let _ = elf::needs_loader(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(address) = EngineAddress::parse(text)
    {
        assert_eq!(EngineAddress::parse(&address.to_string()), Ok(address), "what is shown is read again");
    }
}
