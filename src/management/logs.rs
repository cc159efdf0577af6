//! `GET /logs`: what handlers wrote, as the original tells it, or several functions' by time, some of it, or on and on.
//!
//! What was written is read of all handlers at once and merged by its times; what is written from then on is passed on as it comes.
//! A reader that is slow slows what is read for it: the engine keeps the lines, a process's bounded log drops its oldest and says so. One
//! that takes nothing for `--body-timeout` is dropped, as with any answer.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_channel::{Receiver, Sender};
use async_executor::Task;
use futures_lite::{FutureExt, future};
use log::Level;

use super::{Management, TEXT, bad, content_type, refuse};
use crate::backend::{Lines, LogLine};
use crate::deploy::{DeployError, Deployer};
use crate::function::Name;
use crate::http_server::{Pieces, Responder};
use crate::quantity;
use crate::reactor::Timer;
use crate::wire::http1::percent_decode;

/// Streams of merged or followed logs at once: each reads handlers' logs side by side. People watch, and few of them.
pub(super) const STREAMS: usize = 8;
/// Handlers whose logs one stream reads at once: as many as one function may have.
const HANDLERS: usize = 64;
/// Functions that one request may name.
const NAMES: usize = 32;
/// What a longer tail is taken for: an engine on a 32-bit board counts no further. It keeps less by far.
const MOST_LINES: usize = i32::MAX as usize;
/// Lines that wait for their reader, of all handlers together.
const WAITING: usize = 8;
/// Bytes of lines that are sent at once where they are there already; one line may be longer.
const PIECE: usize = 4 * 1024;
/// Pause before a handler's log is asked for again that ended though the handler did not.
const AGAIN: Duration = Duration::from_secs(1);

/// What a request for logs asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Of these functions; of all where there is none.
    names: Vec<Name>,
    /// Whether it is the original's call: one function's or all handlers' logs, one after the other.
    is_plain: bool,
    follow: bool,
    tail: Option<usize>,
    since: Option<SystemTime>,
}

impl Asked {
    /// What a query asks for; what is not known in it is passed over, as it always was.
    pub(super) fn parse(query: &str, now: SystemTime) -> Result<Self, DeployError> {
        let mut asked = Self { is_plain: true, ..Self::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !["name", "follow", "tail", "since"].contains(&key) {
                continue;
            }
            let value = percent_decode(value).ok_or_else(|| bad(format!("{key} has a broken percent escape")))?;
            let wrong = |e: String| bad(format!("{key}: {e}"));
            match key {
                "name" => {
                    let name = Name::parse(&value).map_err(bad)?;
                    if !asked.names.contains(&name) {
                        asked.names.push(name);
                    }
                    if asked.names.len() > NAMES {
                        return Err(bad(format!("at most {NAMES} functions: name none to have the logs of all")));
                    }
                    continue;
                }
                "follow" => {
                    asked.follow = match value.as_str() {
                        "1" => true,
                        "0" => false,
                        _ => return Err(wrong(format!("{value:?} is neither 1 nor 0"))),
                    }
                }
                "tail" => asked.tail = Some(quantity::count_or_zero(&value).map_err(wrong)?.min(MOST_LINES)),
                _ => asked.since = Some(quantity::since(&value, now).map_err(wrong)?),
            }
            asked.is_plain = false;
        }
        asked.is_plain &= asked.names.len() < 2;
        Ok(asked)
    }
}

/// Whose lines they are.
struct Source {
    name: Name,
    id: String,
}

impl Source {
    /// Appends a line as it is sent.
    fn put(&self, line: &LogLine, out: &mut Vec<u8>) {
        for part in ["function=", self.name.as_str(), " handler=", &self.id, " ", &line.timestamp, " "] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(&line.text);
        out.push(b'\n');
    }
}

/// How far a handler's log was read. Times are compared as text: an engine writes them in one form.
#[derive(Debug, Default, Clone)]
struct Place {
    /// The time of the last line, and how many of that time were read.
    last: String,
    same: usize,
    /// In this reading: lines of that time so far, and whether the place was passed.
    seen: usize,
    passed: bool,
}

impl Place {
    /// What is to be read to go on from here; `first` where nothing was read yet.
    fn rest(&mut self, first: Lines) -> Lines {
        (self.seen, self.passed) = (0, self.last.is_empty());
        match humantime::parse_rfc3339(&self.last) {
            Ok(since) => Lines { tail: None, since: Some(since), follow: true },
            Err(_) => Lines { follow: true, ..first },
        }
    }

    /// Whether a line was not read before; it is then.
    fn is_new(&mut self, line: &LogLine) -> bool {
        if line.timestamp == self.last {
            self.seen += 1;
            self.passed |= self.seen > self.same;
            self.same = self.same.max(self.seen);
            return self.passed;
        }
        self.passed |= line.timestamp > self.last;
        if self.passed {
            self.last.clone_from(&line.timestamp);
            (self.same, self.seen) = (1, 1);
        }
        self.passed
    }
}

/// A handler's log up to now, of which one line is here.
struct Past {
    source: Arc<Source>,
    place: Place,
    next: Option<LogLine>,
    lines: Receiver<LogLine>,
    _read: Task<()>,
}

/// Why a stream goes on.
enum Step {
    /// There may be new handlers.
    Handlers,
    Line(Arc<Source>, LogLine),
    /// Nobody reads any more, or the server stops.
    End,
}

impl Management {
    /// Streams the logs that `query` asks for.
    pub(super) async fn logs(&self, query: &str, respond: Responder<'_>) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "log lines have its times")]
        let now = SystemTime::now();
        let asked = Asked::parse(query, now);
        let known =
            asked.and_then(|asked| asked.names.iter().try_for_each(|name| self.known(name).map(drop)).map(|()| asked));
        match known {
            Ok(asked) if asked.is_plain => self.logs_in_turn(asked.names.first(), respond).await,
            Ok(asked) => match self.log_streams.try_acquire() {
                Some(_place) => self.stream(&asked, respond).await,
                None => {
                    let text = format!("{STREAMS} streams of logs are open already: close one, or try again later");
                    refuse(respond, &DeployError::new(503, text)).await
                }
            },
            Err(e) => refuse(respond, &e).await,
        }
    }

    /// The original's answer: the log of each handler, one after the other.
    async fn logs_in_turn(&self, only: Option<&Name>, respond: Responder<'_>) -> io::Result<()> {
        let mut pieces = respond.pieces(200, &content_type(TEXT), None);
        for source in sources(&self.deployer, only.map(std::slice::from_ref).unwrap_or_default()) {
            let (sender, lines) = async_channel::bounded(8);
            let mut news = true;
            let read = read(&self.deployer, &source, Lines::default(), sender, &mut news);
            let write = async {
                let mut text = Vec::new();
                while let Ok(line) = lines.recv().await {
                    text.clear();
                    source.put(&line, &mut text);
                    pieces.send(&text).await?;
                }
                Ok::<(), io::Error>(())
            };
            future::zip(read, write).await.1?;
        }
        pieces.finish().await
    }

    async fn stream(&self, asked: &Asked, mut respond: Responder<'_>) -> io::Result<()> {
        let sources: Vec<_> = sources(&self.deployer, &asked.names).take(HANDLERS + 1).collect();
        if sources.len() > HANDLERS {
            let text = format!("more than {HANDLERS} handlers: name fewer functions");
            return refuse(respond, &bad(text)).await;
        }
        if asked.follow {
            // It is read from meanwhile, to see its end.
            respond.close_after();
        }
        let mut pieces = respond.pieces(200, &content_type(TEXT), None);
        if pieces.has_no_body() {
            return pieces.finish().await;
        }
        let first = Lines { tail: asked.tail, since: asked.since, follow: false };
        let read = self.past(sources, first, &mut pieces).await?;
        if asked.follow {
            pieces.begin().await?;
            self.follow(asked, read, &mut pieces).await?;
        }
        pieces.finish().await
    }

    /// Sends what handlers wrote up to now, by its times; returns how far each was read.
    async fn past(
        &self,
        sources: Vec<Source>,
        want: Lines,
        pieces: &mut Pieces<'_>,
    ) -> io::Result<Vec<(Arc<Source>, Place)>> {
        let mut logs = Vec::new();
        for source in sources {
            let source = Arc::new(source);
            let (sender, lines) = async_channel::bounded(1);
            let (deployer, of) = (Arc::clone(&self.deployer), Arc::clone(&source));
            let read =
                self.deployer.executor().spawn(async move { read(&deployer, &of, want, sender, &mut true).await });
            logs.push(Past { source, place: Place::default(), next: None, lines, _read: read });
        }
        for log in &mut logs {
            log.next = log.lines.recv().await.ok();
        }
        let mut text = Vec::new();
        loop {
            let oldest = logs.iter_mut().filter(|log| log.next.is_some());
            let Some(log) = oldest.min_by(|a, b| a.time().cmp(b.time())) else { break };
            if let Some(line) = log.next.take() {
                log.place.is_new(&line);
                log.source.put(&line, &mut text);
            }
            log.next = log.lines.recv().await.ok();
            if text.len() >= PIECE {
                pieces.send(&text).await?;
                text.clear();
            }
        }
        pieces.send(&text).await?;
        Ok(logs.into_iter().map(|log| (log.source, log.place)).collect())
    }

    /// Sends what handlers write from now on, those included that take the others' place, until nobody reads any more.
    async fn follow(&self, asked: &Asked, read: Vec<(Arc<Source>, Place)>, pieces: &mut Pieces<'_>) -> io::Result<()> {
        let executor = self.deployer.executor();
        let (sender, lines) = async_channel::bounded(WAITING);
        let first = Lines { tail: asked.tail, since: asked.since, follow: true };
        let go_on = |source: &Arc<Source>, place, first| {
            executor.spawn(go_on(Arc::clone(&self.deployer), Arc::clone(source), place, first, sender.clone()))
        };
        let mut followed: Vec<(Arc<Source>, Task<()>)> = Vec::new();
        for (source, place) in read {
            let task = go_on(&source, place, first);
            followed.push((source, task));
        }
        let mut text = Vec::new();
        loop {
            let news = self.deployer.new_handlers();
            followed.retain(|(_, task)| !task.is_finished());
            for source in sources(&self.deployer, &asked.names) {
                if followed.iter().any(|(known, _)| known.id == source.id) {
                    continue;
                }
                if followed.len() >= HANDLERS {
                    text.extend_from_slice(
                        format!("[more than {HANDLERS} handlers: {} of {} is not followed]\n", source.id, source.name)
                            .as_bytes(),
                    );
                    continue;
                }
                let source = Arc::new(source);
                // All that it wrote: it was not there before.
                let task = go_on(&source, Place::default(), Lines::default());
                followed.push((source, task));
            }
            let mut news = std::pin::pin!(news);
            loop {
                if !text.is_empty() {
                    let stop = async {
                        self.facts.stopping.begun().await;
                        Err(io::ErrorKind::Interrupted.into())
                    };
                    pieces.send(&text).or(stop).await?;
                    text.clear();
                }
                let told = async {
                    (&mut news).await;
                    Step::Handlers
                };
                let end = async {
                    pieces.gone().or(self.facts.stopping.begun()).await;
                    Step::End
                };
                let line = async { lines.recv().await.map_or(Step::End, |(source, line)| Step::Line(source, line)) };
                match told.or(end).or(line).await {
                    Step::Handlers => break,
                    Step::End => return Ok(()),
                    Step::Line(source, line) => source.put(&line, &mut text),
                }
                while text.len() < PIECE
                    && let Ok((source, line)) = lines.try_recv()
                {
                    source.put(&line, &mut text);
                }
            }
        }
    }
}

impl Past {
    fn time(&self) -> &str {
        self.next.as_ref().map_or("", |line| &line.timestamp)
    }
}

/// The handlers that these functions have now; all functions' where none is named.
fn sources<'d>(deployer: &'d Deployer, names: &'d [Name]) -> impl Iterator<Item = Source> + use<'d> {
    let named = names.iter().filter_map(|name| deployer.get(name));
    let all = names.is_empty().then(|| deployer.all()).into_iter().flatten();
    named.chain(all).flat_map(|active| {
        let handlers = active.function().snapshot();
        let name = active.deployment().name.clone();
        handlers.into_iter().map(move |handler| Source { name: name.clone(), id: handler.id().to_owned() })
    })
}

/// Sends a handler's log. That it cannot be read is a warning where that is `news`, which it is not until it could be again.
async fn read(deployer: &Deployer, source: &Source, want: Lines, lines: Sender<LogLine>, news: &mut bool) {
    match deployer.logs(&source.id, want, lines).await {
        Ok(()) => *news = true,
        Err(e) => {
            let level = if std::mem::take(news) { Level::Warn } else { Level::Debug };
            log::log!(level, "cannot read the log of handler {}: {e}", source.id);
        }
    }
}

/// Sends what a handler writes until it is gone. Where its log ends before, as when the engine is started anew, it is read again.
async fn go_on(
    deployer: Arc<Deployer>,
    source: Arc<Source>,
    mut place: Place,
    first: Lines,
    lines: Sender<(Arc<Source>, LogLine)>,
) {
    let mut news = true;
    loop {
        let (sender, read_lines) = async_channel::bounded(1);
        let want = place.rest(first);
        let read = read(&deployer, &source, want, sender, &mut news);
        let pass_on = async {
            while let Ok(line) = read_lines.recv().await {
                if place.is_new(&line) && lines.send((Arc::clone(&source), line)).await.is_err() {
                    break;
                }
            }
            // Nobody reads any more: whoever sends is told.
            drop(read_lines);
        };
        future::zip(read, pass_on).await;
        Timer::after(AGAIN).await;
        let name = std::slice::from_ref(&source.name);
        if !sources(&deployer, name).any(|there| there.id == source.id) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn asked(query: &str) -> Asked {
        Asked::parse(query, NOW + Duration::from_secs(1000)).unwrap()
    }

    fn line(time: &str) -> LogLine {
        LogLine { timestamp: time.into(), text: b"x".to_vec() }
    }

    #[test]
    fn without_what_is_new_the_call_is_the_originals() {
        let plain = |names: &[&str]| Asked {
            names: names.iter().map(|name| Name::parse(name).unwrap()).collect(),
            is_plain: true,
            ..Asked::default()
        };
        assert_eq!(asked(""), plain(&[]));
        assert_eq!(asked("x=y&name=si%65ve&"), plain(&["sieve"]));
        assert_eq!(asked("name=a&name=a"), plain(&["a"]));
        for other in ["follow=0", "tail=0", "since=1s", "name=a&name=b"] {
            assert!(!asked(other).is_plain, "{other}");
        }
    }

    #[test]
    fn what_is_asked_for_is_checked() {
        let all = asked("name=a&follow=1&tail=5&name=b&since=10m");
        assert_eq!(
            (all.names.len(), all.follow, all.tail, all.since),
            (2, true, Some(5), Some(NOW + Duration::from_secs(400)))
        );
        assert_eq!(asked("since=1970-01-01T00:00:07Z").since, Some(NOW + Duration::from_secs(7)));
        assert!(!asked("follow=0").follow);
        let many: String = (0..=NAMES).map(|n| format!("name=f{n}&")).collect();
        for wrong in [
            "name=a/b",
            "name=",
            "name=%zz",
            "follow=2",
            "follow",
            "follow=true",
            "tail=-1",
            "tail=",
            "tail=x",
            "since=",
            "since=10",
            "since=x",
            &many,
        ] {
            assert_eq!(Asked::parse(wrong, NOW).unwrap_err().status, 400, "{wrong}");
        }
    }

    #[test]
    fn a_log_that_is_read_again_goes_on_where_it_was() {
        let mut place = Place::default();
        let news =
            |place: &mut Place, times: &[&str]| times.iter().map(|time| place.is_new(&line(time))).collect::<Vec<_>>();
        let first = Lines { tail: Some(3), ..Lines::default() };
        assert_eq!(place.rest(first), Lines { follow: true, ..first });
        let (a, b, c) = ("2026-01-01T00:00:01.1Z", "2026-01-01T00:00:01.2Z", "2026-01-01T00:00:01.3Z");
        assert_eq!(news(&mut place, &[a, b, b]), [true; 3]);
        let since = humantime::parse_rfc3339(b).unwrap();
        assert_eq!(place.rest(first), Lines { tail: None, since: Some(since), follow: true });
        assert_eq!(news(&mut place, &[a, b, b, b, c]), [false, false, false, true, true]);
        // A clock that is set back later makes no line an old one.
        assert_eq!(news(&mut place, &[a, a]), [true; 2]);
    }
}
