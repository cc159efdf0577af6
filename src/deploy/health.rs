//! Asks handlers whether they are ready: at once, then with growing pauses.

use std::io;
use std::time::{Duration, Instant};

use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};

use crate::net::{Address, Stream};
use crate::reactor::Timer;
use crate::wire::http1;

/// First pause between two rounds, and the longest one. A handler of `binary` is ready within a few milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How long one question may take: an address where nobody is may swallow packets.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest head of an answer that is read, in bytes.
const MAX_ANSWER: usize = 1024;

/// Asks at each address in turn until one answers that it is ready; `None` when `deadline` comes first.
pub async fn wait(addresses: &[Address], deadline: Instant) -> Option<Address> {
    let mut pause = FIRST_PAUSE;
    loop {
        for address in addresses {
            if is_ready(address).await {
                return Some(address.clone());
            }
        }
        if Instant::now() + pause >= deadline {
            return None;
        }
        Timer::after(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// Whether `GET /health` at `address` answers 200.
pub async fn is_ready(address: &Address) -> bool {
    let late = async {
        Timer::after(PATIENCE).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    matches!(ask(address).or(late).await, Ok(200))
}

async fn ask(address: &Address) -> io::Result<u16> {
    let stream = Stream::connect(address).await?;
    let mut stream = &stream;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: tinyfaas\r\nconnection: close\r\n\r\n").await?;
    let mut answer = [0; MAX_ANSWER];
    let mut filled = 0;
    loop {
        let room = answer.get_mut(filled..).unwrap_or_default();
        match stream.read(room).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => filled += n,
        }
        let head = http1::parse_response(answer.get(..filled).unwrap_or_default(), false);
        if let Some(head) = head.map_err(|refusal| io::Error::other(refusal.text))? {
            return Ok(head.status);
        }
    }
}
