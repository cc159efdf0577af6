//! Work in the engine that is done whole or undone, also when the one who waits for it goes away.
//!
//! A request that is dropped may still be carried out: the engine makes the container after its removal was asked for.
//! So such work goes on by itself, and what comes of it is undone when nobody wants it any more.

use std::sync::Arc;

use async_channel::Receiver;

use super::Inner;
use crate::backend::{BackendError, Boxed};

/// Removes what a piece of work made.
pub type Undo<T> = fn(Arc<Inner>, T) -> Boxed<'static, ()>;

/// Runs `work`, and `undo` on what it made when this future is dropped before it says so.
///
/// # Errors
/// Those of `work`.
pub async fn whole<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: Boxed<'static, Result<T, BackendError>>,
    undo: Undo<T>,
) -> Result<T, BackendError> {
    let (tell, told) = async_channel::bounded(1);
    let waiting = Waiting { told, inner, undo };
    let owned = Arc::clone(inner);
    let run = async move {
        if let Err(unheard) = tell.send(work.await).await
            && let Ok(made) = unheard.0
        {
            undo(owned, made).await;
        }
    };
    inner.executor.spawn(run).detach();
    match waiting.told.recv().await {
        Ok(result) => result,
        // The executor is going away, and so are we.
        Err(_) => futures_lite::future::pending().await,
    }
}

/// The one who waits; what is told too late is undone.
struct Waiting<'a, T: Send + 'static> {
    told: Receiver<Result<T, BackendError>>,
    inner: &'a Arc<Inner>,
    undo: Undo<T>,
}

impl<T: Send + 'static> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        // From now on the worker's message fails to be sent; it may have been just before.
        self.told.close();
        if let Ok(Ok(made)) = self.told.try_recv() {
            self.inner.executor.spawn((self.undo)(Arc::clone(self.inner), made)).detach();
        }
    }
}
