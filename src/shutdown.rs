//! The wish to stop, told to everyone who waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use event_listener::Event;

/// Told once; cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    begun: AtomicBool,
    event: Event,
}

impl Shutdown {
    /// Nobody asked to stop yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everyone to stop.
    pub fn begin(&self) {
        self.inner.begun.store(true, Ordering::Release);
        self.inner.event.notify(usize::MAX);
    }

    /// Whether somebody asked.
    pub fn has_begun(&self) -> bool {
        self.inner.begun.load(Ordering::Acquire)
    }

    /// Completes when somebody asks, at once if somebody did.
    pub async fn begun(&self) {
        loop {
            let listener = self.inner.event.listen();
            if self.has_begun() {
                return;
            }
            listener.await;
        }
    }
}
