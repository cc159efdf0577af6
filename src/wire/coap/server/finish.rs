//! How the answer of a job leaves: to the client that waits, and to those that observe.

use std::hash::BuildHasher;
use std::sync::Arc;

use super::super::block::Block;
use super::super::observers::{CONFIRM_AFTER, CONFIRM_EACH, Observer, Watch};
use super::*;

/// Max-Age where an answer does not say it (RFC 7252 §5.10.5), in seconds.
const DEFAULT_MAX_AGE: u32 = 60;

impl Server {
    /// Answers the exchange of a job.
    pub(super) fn finish(&mut self, scene: &mut Scene<'_>, key: Key, job: &Job, answer: Answer) {
        let Some(open) = self.open.remove(key) else { return };
        let answer = Arc::new(suit(open.wish.accept, answer));
        let observer = self.register(scene, &open, job, &answer);
        self.respond(scene, &open, &answer, observer);
    }

    /// Tells the client of a detached job 2.01 at once.
    pub(super) fn accept_detached(&mut self, scene: &mut Scene<'_>, key: Key) {
        let Some(open) = self.open.remove(key) else { return };
        let answer = Arc::new(Answer::failure(Code::CREATED, super::super::Held::EMPTY));
        self.respond(scene, &open, &answer, None);
    }

    fn respond(&mut self, scene: &mut Scene<'_>, open: &Open, answer: &Arc<Answer>, observer: Option<Key>) {
        let (origin, wish) = (&open.origin, &open.wish);
        let expires = scene.now + self.lifetime(origin.kind);
        let waits_for_ack = origin.kind == Kind::Con && open.ack_at.is_some();
        if origin.no_response.suppresses(answer.code) {
            if waits_for_ack {
                scene.out.send(&origin.peer, &message::empty(Kind::Ack, origin.id));
            }
            let seen = if origin.kind == Kind::Con { Seen::Acknowledged } else { Seen::Silent };
            return self.duplicates.end(origin.fingerprint, expires, seen);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let observe = observer.map(|_| self.observers.next_sequence());
        let reply = self.first_block(scene.now, wish, answer, observe);
        let (kind, id) = if waits_for_ack {
            (Kind::Ack, origin.id)
        } else {
            let kind = if origin.kind == Kind::Con { Kind::Con } else { Kind::Non };
            (kind, self.peers.next_id(scene.now, &origin.peer))
        };
        reply.write(&mut scratch, kind, id, &origin.token);
        scene.out.send(&origin.peer, &scratch);
        if kind != Kind::Ack
            && let Some(o) = observer.and_then(|key| self.observers.observers.get_mut(key))
        {
            o.last_id = Some(id);
        }
        if kind == Kind::Con {
            let due = self.confirmables.sent(scene.now, origin.peer, id, &scratch, observer);
            self.wake = self.wake.min(due);
            self.duplicates.end(origin.fingerprint, expires, Seen::Acknowledged);
        } else {
            self.duplicates.answered(origin.fingerprint, expires, &scratch);
        }
        self.scratch = scratch;
    }

    /// The first datagram's worth of an answer; the answer is kept where there is more of it (RFC 7959 §2.4).
    fn first_block<'a>(
        &mut self,
        now: Millis,
        wish: &Wish,
        answer: &'a Arc<Answer>,
        observe: Option<u32>,
    ) -> Reply<'a> {
        if wish.etag.is_some() && wish.etag == answer.etag && answer.code.is_success() {
            return Reply { etag: answer.etag, observe, max_age: answer.max_age, ..Reply::new(Code::VALID) };
        }
        let block = wish.block2.unwrap_or(Block { number: 0, more: false, szx: self.config.block_szx });
        let reply = self.cut(block.at_most(self.config.block_szx), wish.block2.is_some(), answer);
        if answer.body.len() > reply.payload.len() {
            self.results.keep(now, wish.request, answer.clone());
            self.wake = self.wake.min(now + self.config.transfer_lifetime);
        }
        Reply { observe, block1: wish.block1, ..reply }
    }

    /// Sends one block of an answer that is kept.
    pub(super) fn send_block(&mut self, scene: &mut Scene<'_>, origin: &Origin, block: Block, answer: &Answer) {
        let reply = self.cut(block.at_most(self.config.block_szx), true, answer);
        self.send(scene, origin, &reply);
    }

    fn cut<'a>(&self, block: Block, asked: bool, answer: &'a Answer) -> Reply<'a> {
        let body = answer.body.as_bytes();
        let Some((block, payload)) = block.cut(body) else {
            return Reply::text(Code::BAD_REQUEST, "the answer has no such block");
        };
        let in_blocks = asked || block.more;
        Reply {
            etag: answer.etag.or_else(|| in_blocks.then(|| self.etag_of(body))),
            location: answer.location.as_ref().filter(|_| block.number == 0 && answer.code.is_success()),
            format: answer.format,
            max_age: answer.max_age,
            block2: in_blocks.then_some(block),
            size2: (in_blocks && block.number == 0).then_some(body.len()),
            payload,
            ..Reply::new(answer.code)
        }
    }

    /// An entity tag that names these bytes.
    pub(super) fn etag_of(&self, bytes: &[u8]) -> Etag {
        Etag::new(&self.keys.hash_one(bytes).to_be_bytes()).unwrap_or_default()
    }

    /// Makes the client of a successful request an observer (RFC 7641 §4.1).
    fn register(&mut self, scene: &mut Scene<'_>, open: &Open, job: &Job, answer: &Arc<Answer>) -> Option<Key> {
        let key = open.wish.observe?;
        // A registration with a token that is known takes the place of the old one, which ends where the new one fails.
        if let Some(old) = self.observers.find(&open.origin.peer, &open.origin.token) {
            self.confirmables.end_observer(old);
            self.observers.remove(old);
        }
        if !answer.code.is_success() || !self.observers.has_room_for(open.origin.peer.client()) {
            return None;
        }
        let due = scene.now + self.config.observe_interval.max(1);
        if let Some(watch) = self.observers.watch(key) {
            // Else the others would not hear of a state that ends before the watch runs, nor this one of its end.
            self.publish(scene, watch, answer.clone());
        }
        let watch = match self.observers.watch(key) {
            Some(watch) => watch,
            // RFC 7641 §4.1: who cannot be told of changes gets a plain answer.
            None if !self.has_room_to_observe(None, answer) => return None,
            None => self.observers.watches.insert(Watch {
                key,
                task: job.task.clone(),
                accept: open.wish.accept,
                due,
                spread_to: 0,
                running: false,
                answer: answer.clone(),
                told: scene.now,
            })?,
        };
        let observer = self.observers.observers.insert(Observer {
            watch,
            peer: open.origin.peer,
            token: open.origin.token,
            request: open.wish.request,
            szx: open.wish.block2.map_or(self.config.block_szx, |block| block.szx.min(self.config.block_szx)),
            last_id: None,
            unconfirmed: 0,
            confirmed: scene.now,
            stale: false,
        })?;
        self.wake = self.wake.min(due);
        Some(observer)
    }

    /// Tells the observers of a watch that ran what came of it, if that is news.
    pub(super) fn notify(&mut self, scene: &mut Scene<'_>, key: Key, answer: Answer) {
        let Some(watch) = self.observers.watches.get_mut(key) else { return };
        watch.running = false;
        self.wake = self.wake.min(watch.due);
        let answer = Arc::new(suit(watch.accept, answer));
        self.publish(scene, key, answer);
    }

    /// Whether `answer` can be kept as the state of a watch, beside those of all others.
    fn has_room_to_observe(&self, watch: Option<Key>, answer: &Answer) -> bool {
        self.observers.held(watch) + answer.body.capacity() <= self.config.observed
    }

    /// Tells the observers of a watch its state, if that is news.
    fn publish(&mut self, scene: &mut Scene<'_>, key: Key, mut answer: Arc<Answer>) {
        let interval = self.config.observe_interval;
        let Some(watch) = self.observers.watches.get_mut(key) else { return };
        // What is not told again in time is no longer fresh at the observers (RFC 7641 §4.3.1).
        let fresh_for = u64::from(watch.answer.max_age.unwrap_or(DEFAULT_MAX_AGE)) * 1000;
        let grows_old = watch.told + fresh_for <= scene.now + interval;
        if same(&watch.answer, &answer) && !grows_old {
            return;
        }
        // All notifications have the format of the first (RFC 7641 §4.2).
        let is_content = answer.code == Code::CONTENT && watch.answer.code == Code::CONTENT;
        if is_content && answer.format != watch.answer.format {
            answer = Arc::new(not_acceptable("the function answers with another format than before".into()));
        } else if answer.code.is_success() && !self.has_room_to_observe(Some(key), &answer) {
            let text = super::super::Held::line("no room for what is observed now".into());
            let max_age = Some(self.config.retry_after);
            answer = Arc::new(Answer { max_age, ..Answer::failure(Code::UNAVAILABLE, text) });
        }
        let Some(watch) = self.observers.watches.get_mut(key) else { return };
        watch.answer = answer.clone();
        watch.told = scene.now;
        let mut at = 0;
        while let Some((next, observer)) = self.observers.of_watch(key, at) {
            at = next;
            self.tell(scene, observer, &answer);
        }
        // An error is the last that observers hear (RFC 7641 §4.2).
        if !answer.code.is_success() {
            self.observers.remove_watch(key);
        }
    }

    /// An observer acknowledged: tells it what changed meanwhile.
    pub(super) fn catch_up(&mut self, scene: &mut Scene<'_>, observer: Key) {
        if let Some(answer) = self.news(observer) {
            self.tell(scene, observer, &answer);
        }
    }

    /// A notification is overdue and its state is no longer the newest: that goes in its place (RFC 7641 §4.5.2).
    pub(super) fn supersede(&mut self, scene: &mut Scene<'_>, old: Transmission) {
        let Some((observer, answer)) = old.observer.and_then(|key| Some((key, self.news(key)?))) else { return };
        let Some(id) = self.write_notification(scene, observer, &answer, Kind::Con) else { return };
        let due = self.confirmables.replaced(scene.now, old, id, &self.scratch);
        self.wake = self.wake.min(due);
    }

    /// The state that an observer is behind, which from now on it is no longer.
    fn news(&mut self, observer: Key) -> Option<Arc<Answer>> {
        let o = self.observers.observers.get_mut(observer)?;
        let watch = std::mem::take(&mut o.stale).then_some(o.watch)?;
        self.observers.watches.get(watch).map(|watch| watch.answer.clone())
    }

    /// Tells an observer a new state (RFC 7641 §4.2).
    fn tell(&mut self, scene: &mut Scene<'_>, key: Key, answer: &Arc<Answer>) {
        let busy = self.confirmables.busy(key);
        let has_room = !self.is_full();
        let success = answer.code.is_success();
        let Some(o) = self.observers.observers.get_mut(key) else { return };
        // One message under way at a time (§4.5.1); the newest state goes when it is acknowledged or overdue.
        if busy && success {
            o.stale = true;
            return;
        }
        // An error is the last word: it stands in for what is under way, and nothing later would make up for its loss.
        if !success {
            self.confirmables.end_observer(key);
        }
        let overdue = o.unconfirmed + 1 >= CONFIRM_EACH || scene.now - o.confirmed >= CONFIRM_AFTER;
        let kind = if (overdue || !success) && has_room { Kind::Con } else { Kind::Non };
        let Some(id) = self.write_notification(scene, key, answer, kind) else { return };
        let Some(o) = self.observers.observers.get_mut(key) else { return };
        if kind == Kind::Con {
            (o.unconfirmed, o.confirmed) = (0, scene.now);
            let due = self.confirmables.sent(scene.now, o.peer, id, &self.scratch, Some(key));
            self.wake = self.wake.min(due);
        } else {
            o.unconfirmed = o.unconfirmed.saturating_add(1);
        }
    }

    /// Writes one notification and sends it; returns its message id.
    fn write_notification(&mut self, scene: &mut Scene<'_>, key: Key, answer: &Arc<Answer>, kind: Kind) -> Option<u16> {
        let sequence = answer.code.is_success().then(|| self.observers.next_sequence());
        let o = self.observers.observers.get_mut(key)?;
        let (peer, id, token) = (o.peer, self.peers.next_id(scene.now, &o.peer), o.token);
        o.last_id = Some(id);
        let wish = Wish {
            request: o.request,
            block1: None,
            block2: Some(Block { number: 0, more: false, szx: o.szx }).filter(|_| o.szx < self.config.block_szx),
            accept: None,
            etag: None,
            observe: None,
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        self.first_block(scene.now, &wish, answer, sequence).write(&mut scratch, kind, id, &token);
        scene.out.send(&peer, &scratch);
        self.scratch = scratch;
        Some(id)
    }
}

/// An answer that is not in the wanted format becomes 4.06 (RFC 7252 §5.10.4); one without a format takes the wanted.
fn suit(accept: Option<u16>, mut answer: Answer) -> Answer {
    if let Some(accept) = accept
        && answer.code == Code::CONTENT
        && answer.format != Some(accept)
    {
        if !answer.format_is_default {
            return not_acceptable(format!("the function answers with another format than {accept}"));
        }
        answer.format = Some(accept);
    }
    answer
}

fn not_acceptable(text: String) -> Answer {
    Answer::failure(Code::NOT_ACCEPTABLE, super::super::Held::line(text))
}

/// Whether an observer would see no difference.
fn same(a: &Answer, b: &Answer) -> bool {
    (a.code, a.format, a.body.as_bytes()) == (b.code, b.format, b.body.as_bytes())
}
