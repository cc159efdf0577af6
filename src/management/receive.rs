//! Takes what comes in through management to a spool: the body goes in pieces to a worker thread, which parses and writes.

use std::io::{self, Read, Write};
use std::sync::Arc;

use async_channel::{Receiver, Sender};
use futures_lite::FutureExt;

use crate::deploy::DeployError;
use crate::fetch::{self, Download};
use crate::http_server::RequestBody;
use crate::store::{Spool, Store};
use crate::wire::untar;
use crate::wire::upload::{self, Parser};
use crate::wire::zip::{self, Writer};
use crate::worker::Workers;

/// Bytes of one piece on its way to the worker, and pieces on the way at once: flash may be slower than the network.
const PIECE: usize = 8 * 1024;
const PIECES: usize = 3;

/// A body that was read: its JSON without the archive, and the archive.
pub(super) struct Received {
    pub(super) rest: String,
    pub(super) zip: Option<u64>,
    pub(super) spool: Spool,
}

/// Reads the JSON of an upload; its archive, at most `most` bytes, goes to a new spool.
pub(super) async fn upload(
    body: &mut RequestBody<'_>,
    store: &Arc<Store>,
    workers: &Workers,
    most: u64,
) -> Result<Received, DeployError> {
    let (sender, pieces) = async_channel::bounded(PIECES);
    let store = Arc::clone(store);
    let work = workers.unblock(move || parse(&store, most, &pieces));
    let (sent, received) = futures_lite::future::zip(send_body(body, sender), work).await;
    let received = received.map_err(|e| disk(&e))?;
    // Why the body was refused says more than that nobody took the rest of it.
    sent.and(received)
}

/// Reads a zip or tar archive of at most `most` bytes that is the whole body to a new spool.
pub(super) async fn archive(
    body: &mut RequestBody<'_>,
    store: &Arc<Store>,
    workers: &Workers,
    most: u64,
) -> Result<Spool, DeployError> {
    if body.is_longer_than(most) {
        return Err(DeployError::new(413, too_large(most)));
    }
    let (sender, pieces) = async_channel::bounded(PIECES);
    let store = Arc::clone(store);
    let work = workers.unblock(move || unpacked(&store, Pieces::new(pieces, most)));
    let work = async { work.await.map_err(|e| disk(&e)).and_then(|spool| spool) };
    let send = async {
        send_body(body, sender).await?;
        futures_lite::future::pending().await
    };
    // What is refused is refused at once, not when more of it came.
    work.or(send).await
}

/// A new spool for a deployment that comes without an archive; the body has to be empty.
pub(super) async fn nothing(
    body: &mut RequestBody<'_>,
    store: &Arc<Store>,
    workers: &Workers,
) -> Result<Spool, DeployError> {
    if body.read(&mut [0]).await.map_err(|e| DeployError::new(400, e.to_string()))? > 0 {
        return Err(DeployError::new(400, "no archive comes with an image: leave the body empty, or image out"));
    }
    let store = Arc::clone(store);
    workers.unblock(move || store.spool()).await.and_then(|r| r).map_err(|e| disk(&e))
}

/// Stores a download of at most the bytes it was opened with in a new spool.
pub(super) async fn download(
    mut download: Download,
    store: &Arc<Store>,
    workers: &Workers,
) -> Result<Spool, DeployError> {
    let (sender, pieces) = async_channel::bounded(PIECES);
    let store = Arc::clone(store);
    let work = workers.unblock(move || copy(&store, &pieces));
    let send = async {
        loop {
            let mut piece = vec![0; PIECE];
            let n = download.read(&mut piece).await.map_err(|e| fetch_error(&e))?;
            piece.truncate(n);
            if sender.send(piece).await.is_err() || n == 0 {
                sender.close();
                return Ok(());
            }
        }
    };
    let (sent, spool) = futures_lite::future::zip(send, work).await;
    let spool = spool.and_then(|r| r).map_err(|e| disk(&e));
    sent.and(spool)
}

pub(super) fn fetch_error(e: &fetch::Error) -> DeployError {
    let status = match e.kind {
        fetch::ErrorKind::Address => 400,
        fetch::ErrorKind::TooLarge => 413,
        fetch::ErrorKind::Server => 502,
        fetch::ErrorKind::TooLate => 504,
        fetch::ErrorKind::Own => 500,
    };
    DeployError::new(status, e.text.clone())
}

/// An empty piece tells the worker that the body is complete; a sender that is gone, that it broke off.
async fn send_body(body: &mut RequestBody<'_>, sender: Sender<Vec<u8>>) -> Result<(), DeployError> {
    loop {
        let mut piece = vec![0; PIECE];
        let n = body.read(&mut piece).await.map_err(|e| {
            let status = if e.kind() == io::ErrorKind::TimedOut { 408 } else { 400 };
            DeployError::new(status, e.to_string())
        })?;
        piece.truncate(n);
        if sender.send(piece).await.is_err() || n == 0 {
            return Ok(());
        }
    }
}

fn parse(store: &Store, most: u64, pieces: &Receiver<Vec<u8>>) -> Result<Received, DeployError> {
    let mut spool = store.spool().map_err(|e| disk(&e))?;
    let mut parser = Parser::new(most);
    while let Ok(piece) = pieces.recv_blocking() {
        if piece.is_empty() {
            break;
        }
        parser.feed(&piece, &mut spool).map_err(upload_error)?;
    }
    let parsed = parser.finish().map_err(upload_error)?;
    spool.flush().map_err(|e| disk(&e))?;
    Ok(Received { rest: parsed.rest, zip: parsed.zip, spool })
}

/// How a zip archive begins: with an entry, or its end where it has none.
const ZIP: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];
/// Bytes of a block of tar, and where its first one says that it is one.
const BLOCK: usize = 512;
const USTAR: (usize, &[u8]) = (257, b"ustar");

/// Stores the archive as zip, by what it begins with: clients say all sorts of things of its type.
fn unpacked(store: &Store, mut body: Pieces) -> Result<Spool, DeployError> {
    let mut spool = store.spool().map_err(|e| disk(&e))?;
    let mut start = [0; BLOCK];
    let mut filled = 0;
    while let Some(room) = start.get_mut(filled..).filter(|room| !room.is_empty()) {
        match body.read(room).map_err(|e| archive_error(zip::Error::Io(e)))? {
            0 => break,
            n => filled += n,
        }
    }
    let start = start.get(..filled).unwrap_or_default();
    let is_tar = start.get(USTAR.0..).is_some_and(|rest| rest.starts_with(USTAR.1));
    if ZIP.iter().any(|zip| start.starts_with(zip)) {
        spool.write_all(start).and_then(|()| io::copy(&mut body, &mut spool)).map_err(|e| archive_error(e.into()))?;
    } else if is_tar {
        // Not deflated: that would cost 300 kB.
        let mut zip = Writer::stored(&mut spool);
        untar::to_zip(start.chain(body), &mut zip, &zip::Bounds::default()).map_err(archive_error)?;
        zip.finish().map_err(|e| disk(&e))?;
    } else if start.is_empty() {
        return Err(DeployError::new(400, "the body is empty: send a zip or tar archive of the function"));
    } else {
        return Err(DeployError::new(
            415,
            "the body is neither a zip nor a tar archive: send one, not packed otherwise",
        ));
    }
    spool.flush().map_err(|e| disk(&e))?;
    Ok(spool)
}

fn archive_error(e: zip::Error) -> DeployError {
    match e {
        zip::Error::Io(e) if e.kind() == io::ErrorKind::FileTooLarge => DeployError::new(413, e.to_string()),
        zip::Error::Io(e) if e.raw_os_error().is_none() => DeployError::new(400, e.to_string()),
        zip::Error::Io(e) => disk(&e),
        refused => refused.into(),
    }
}

fn too_large(most: u64) -> String {
    format!("the archive is larger than {most} bytes (--max-upload)")
}

/// A body that comes in pieces, as something to read: an empty piece is its end.
struct Pieces {
    from: Receiver<Vec<u8>>,
    piece: io::Cursor<Vec<u8>>,
    most: u64,
    left: u64,
    ended: bool,
}

impl Pieces {
    fn new(from: Receiver<Vec<u8>>, most: u64) -> Self {
        Self { from, piece: io::Cursor::default(), most, left: most, ended: false }
    }
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.piece.read(buf)?;
            if n > 0 || self.ended || buf.is_empty() {
                return Ok(n);
            }
            let broke_off = |_| io::Error::new(io::ErrorKind::UnexpectedEof, "the body ended early");
            let piece = self.from.recv_blocking().map_err(broke_off)?;
            let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, too_large(self.most));
            self.left = self.left.checked_sub(piece.len() as u64).ok_or_else(too_large)?;
            self.ended = piece.is_empty();
            self.piece = io::Cursor::new(piece);
        }
    }
}

fn copy(store: &Store, pieces: &Receiver<Vec<u8>>) -> io::Result<Spool> {
    let mut spool = store.spool()?;
    while let Ok(piece) = pieces.recv_blocking() {
        spool.write_all(&piece)?;
    }
    spool.flush()?;
    Ok(spool)
}

fn upload_error(e: upload::Error) -> DeployError {
    match e {
        upload::Error::Bad(text) => DeployError::new(400, text),
        upload::Error::TooLarge(text) => DeployError::new(413, text),
        upload::Error::Io(e) => disk(&e),
    }
}

fn disk(e: &io::Error) -> DeployError {
    DeployError::new(500, format!("cannot spool to the state directory: {e}"))
}
