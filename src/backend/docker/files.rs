//! Files on their way into the engine: a tar stream made on a worker thread, never whole in memory.

use std::fs::File;
use std::io::{self, Write};

use async_channel::{Receiver, Sender};
use bytes::Bytes;

use super::Inner;
use super::container::{FUNCTION_DIR, Owner};
use super::engine::Fault;
use crate::backend::{BackendError, BackendErrorKind};
use crate::function::Deployment;
use crate::store;
use crate::wire::tar::TarSink;
use crate::wire::zip::{self, Archive};
use crate::worker::Workers;

/// Bytes of tar that travel in one piece.
const PIECE: usize = 32 * 1024;
/// Pieces that wait for the engine.
const PIECES: usize = 2;

/// The writing end of a request's body.
pub struct Pipe {
    piece: Vec<u8>,
    to: Sender<io::Result<Bytes>>,
}

/// The reading end of a [`Pipe`].
pub type Pieces = Receiver<io::Result<Bytes>>;

impl Pipe {
    /// A pipe and its other end.
    fn new() -> (Self, Pieces) {
        let (to, from) = async_channel::bounded(PIECES);
        (Self { piece: Vec::new(), to }, from)
    }

    fn send(&self, item: io::Result<Bytes>) -> io::Result<()> {
        self.to.send_blocking(item).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece.reserve_exact(PIECE);
        }
        let fits = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(bytes.get(..fits).unwrap_or_default());
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.send(Ok(piece.into()))
    }
}

/// Lets `write` fill a pipe on a worker thread while `send` passes it to the engine.
///
/// # Errors
/// What `write` found wrong comes before what the engine then said of a body that broke off.
pub async fn feed<W, S, T>(workers: &Workers, write: W, send: impl FnOnce(Pieces) -> S) -> Result<T, BackendError>
where
    W: FnOnce(&mut Pipe) -> Result<(), zip::Error> + Send + 'static,
    S: Future<Output = Result<T, Fault>> + Send,
    T: Send,
{
    let (mut pipe, pieces) = Pipe::new();
    let writing = workers.unblock(move || {
        let result = write(&mut pipe).and_then(|()| Ok(pipe.flush()?));
        if result.is_err() {
            // The engine must not take what it has for the whole. It may be gone already.
            let _ = pipe.send(Err(io::ErrorKind::Interrupted.into()));
        }
        result
    });
    let (written, sent) = futures_lite::future::zip(writing, send(pieces)).await;
    match written {
        Err(e) | Ok(Err(zip::Error::Io(e))) => match sent {
            // The engine hung up first, and its reason is the better one.
            Err(fault) if e.kind() == io::ErrorKind::BrokenPipe => Err(fault.into()),
            _ => Err(BackendError {
                kind: BackendErrorKind::Engine,
                text: format!("cannot read the files to send: {e}"),
            }),
        },
        Ok(Err(refused)) => Err(BackendError { kind: BackendErrorKind::Function, text: refused.to_string() }),
        Ok(Ok(())) => Ok(sent?),
    }
}

/// Where the files of a function go in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Into its root, where the folder is made.
    Root,
    /// Into the volume that is the folder: the engine lets nothing else be written where the root is read-only.
    Volume,
}

/// Sends the function's files into the folder `/fn` of the container `id`.
///
/// # Errors
/// The archive is refused, or the engine.
pub async fn send_function(
    inner: &Inner,
    deployment: &Deployment,
    id: &str,
    owner: Owner,
    place: Place,
) -> Result<(), BackendError> {
    let (package, subfolder) = (deployment.package.clone(), deployment.subfolder.clone());
    let bounds = inner.config.zip.clone();
    let (prefix, path) = match place {
        Place::Root => (FUNCTION_DIR.trim_matches('/'), "/"),
        Place::Volume => (".", FUNCTION_DIR),
    };
    let write = move |pipe: &mut Pipe| {
        let mut archive = open(&package, &bounds)?;
        let mut tar = TarSink::new(pipe, prefix, owner.uid, owner.gid)?;
        archive.visit(&subfolder, &mut tar)?;
        tar.finish()?;
        Ok(())
    };
    feed(&inner.workers, write, |pieces| {
        let options = bollard::query_parameters::UploadToContainerOptions { path: path.into(), ..Default::default() };
        let body = bollard::body_try_stream(pieces);
        let request = inner.engine.client.upload_to_container(id, Some(options), body);
        inner.engine.call(inner.config.transfer_timeout, Box::pin(request))
    })
    .await
}

/// Opens a deployment's archive.
///
/// # Errors
/// As [`Archive::open`].
pub fn open(package: &std::path::Path, bounds: &zip::Bounds) -> Result<Archive<File>, zip::Error> {
    let mut file = File::open(package)?;
    let len = store::archive_len(&mut file)?;
    Archive::open(file, len, bounds)
}
