//! Takes what comes in through management to a spool: the body goes in pieces to a worker thread, which parses and writes.

use std::io::{self, Write};
use std::sync::Arc;

use async_channel::{Receiver, Sender};

use crate::deploy::DeployError;
use crate::fetch::{self, Download};
use crate::http_server::RequestBody;
use crate::store::{Spool, Store};
use crate::wire::upload::{self, Parser};
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
