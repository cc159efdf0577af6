//! The end of a connection: a last request that was on its way, and time for the peer to read the last answer.

use std::pin::Pin;
use std::time::Duration;

use futures_lite::{AsyncWriteExt, FutureExt};

use crate::net::Stream;
use crate::reactor::Timer;

/// How long an idle connection stays open when the server stops: a request may be on its way, and is answered then.
pub const LAST_WORD: Duration = Duration::from_millis(500);

/// Whether something still comes. Boxed: the task of an idle connection stays small.
pub(super) fn last_word(stream: &Stream) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
    Box::pin(async {
        let late = async {
            Timer::after(LAST_WORD).await;
            false
        };
        let readable = async { stream.readable().await.is_ok() };
        readable.or(late).await
    })
}

/// Longest time and most bytes that a connection is read after its last answer: closing a socket with unread bytes
/// resets it, and the peer may lose the answer (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

pub(super) async fn linger(stream: &Stream) {
    let discard = async {
        let mut closing = stream;
        if closing.close().await.is_err() {
            return;
        }
        let (mut scratch, mut total) = ([0; 512], 0);
        while total < LINGER_BYTES {
            match stream.discard(&mut scratch).await {
                Ok(0) | Err(_) => break,
                Ok(n) => total += n,
            }
        }
    };
    let late = async {
        Timer::after(LINGER).await;
    };
    discard.or(late).await;
}
