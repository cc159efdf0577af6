//! What a request asks for: discovery, blocks, a function.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use super::super::block::Block;
use super::super::link;
use super::super::option;
use super::super::request::{Refusal, Request};
use super::super::transfers::Step;
use super::super::{Held, Task, format};
use super::*;

impl Server {
    /// A request that was not seen before.
    pub(super) fn request(
        &mut self,
        scene: &mut Scene<'_>,
        mut origin: Origin,
        message: Message<'_>,
        resources: &dyn Resources,
    ) -> Option<Job> {
        let request = match Request::read(message) {
            Ok(request) => request,
            Err(refusal) => {
                self.refuse(scene, &origin, refusal);
                return None;
            }
        };
        origin.no_response = request.no_response;
        if let Some(value) = request.echo
            && self.echo.is_fresh(scene.now, &origin.peer, value)
        {
            self.peers.prove(scene.now, &origin.peer);
            self.crowd.prove(scene.now, origin.peer.client());
        }
        match self.route(scene, &origin, &request, resources) {
            Ok(body) => self.begin(scene, origin, &request, body),
            Err(Done) => None,
        }
    }

    fn refuse(&mut self, scene: &mut Scene<'_>, origin: &Origin, refusal: Refusal) {
        match refusal {
            // A non-confirmable request is rejected in silence (RFC 7252 §5.4.1).
            Refusal::BadOption(_) if origin.kind == Kind::Non => {}
            Refusal::BadOption(number) => {
                let text = format!("option {number} is unknown, repeated or has a value that it may not have");
                self.send(scene, origin, &Reply::text(Code::BAD_OPTION, &text));
            }
            Refusal::BadBlock => {
                self.send(scene, origin, &Reply::text(Code::BAD_REQUEST, "a block's size exponent is 0 to 6"));
            }
        }
    }

    /// Answers what needs no job; hands back the whole body of a request that needs one.
    fn route(
        &mut self,
        scene: &mut Scene<'_>,
        origin: &Origin,
        request: &Request<'_>,
        resources: &dyn Resources,
    ) -> Result<Held, Done> {
        let code = request.message.code;
        if request.proxied {
            return Err(self.done(scene, origin, &Reply::text(Code::PROXYING_NOT_SUPPORTED, "this is no proxy")));
        }
        if !self.peers.allow(scene.now, &origin.peer) {
            return Err(self.busy(scene, origin, Code::TOO_MANY_REQUESTS, "too many requests from this endpoint"));
        }
        if request.discovery {
            if code != Code::GET {
                let text = "/.well-known/core is there for GET";
                return Err(self.done(scene, origin, &Reply::text(Code::METHOD_NOT_ALLOWED, text)));
            }
            self.discover(scene, origin, request, resources);
            return Err(Done);
        }
        // Functions are called one by one, not by a group: what they do is not known to be harmless.
        if origin.group {
            return Err(Done);
        }
        if !resources.exists(request.name) {
            let text = "no function of that name: GET /.well-known/core lists those deployed";
            return Err(self.done(scene, origin, &Reply::text(Code::NOT_FOUND, text)));
        }
        if code > Code::IPATCH {
            let text = "use GET, POST, PUT, DELETE, FETCH, PATCH or iPATCH";
            return Err(self.done(scene, origin, &Reply::text(Code::METHOD_NOT_ALLOWED, text)));
        }
        // How long the answer gets is not known yet, and a function must not run twice to find out.
        if self.amplifies(scene.now, origin, Self::longest_answer(request, &self.config)) {
            self.challenge(scene, origin);
            return Err(Done);
        }
        if request.observe == Some(1)
            && let Some(observer) = self.observers.find(&origin.peer, &origin.token)
        {
            self.confirmables.end_observer(observer);
            self.observers.remove(observer);
        }
        self.fetch(scene, origin, request)?;
        self.body(scene, origin, request)
    }

    /// Bytes of the longest first answer: a block, and room for header, token and options.
    fn longest_answer(request: &Request<'_>, config: &Config) -> usize {
        const HEAD: usize = 160;
        HEAD + request.block2.map_or(config.block_szx, |block| block.szx.min(config.block_szx)).into_size()
    }

    /// Serves a further block of an answer that is kept (RFC 7959 §2.4).
    fn fetch(&mut self, scene: &mut Scene<'_>, origin: &Origin, request: &Request<'_>) -> Result<(), Done> {
        let Some(block) = request.block2.filter(|block| block.number > 0 && request.block1.is_none()) else {
            return Ok(());
        };
        let key = self.request_key(&origin.peer, request);
        if let Some(answer) = self.results.fetch(scene.now, key, block) {
            self.send_block(scene, origin, block, &answer);
            return Err(Done);
        }
        // A safe request may run once more; the entity tag tells the client whether the answer is still the same.
        if is_safe(request.message.code) {
            return Ok(());
        }
        let text = "the answer is no longer kept: begin again with block 0";
        Err(self.done(scene, origin, &Reply::text(Code::INCOMPLETE, text)))
    }

    /// The request's whole body, perhaps with this its last block (RFC 7959 §2.5).
    fn body(&mut self, scene: &mut Scene<'_>, origin: &Origin, request: &Request<'_>) -> Result<Held, Done> {
        let (block1, payload) = (request.block1, request.message.payload);
        let claimed = request.size1.unwrap_or_default() as usize;
        if claimed > self.config.max_body
            || payload.len() > self.config.max_body
            || origin.size > self.config.max_datagram
        {
            return Err(self.too_large(scene, origin, block1));
        }
        let step = match block1 {
            None => self.with_room(|server| Held::copy(payload, &server.budget)).map_or(Step::Full, Step::Whole),
            Some(block) => {
                let key = self.request_key(&origin.peer, request);
                // Room is made before: a body that finds none is given up.
                while self.budget.left() < payload.len() && self.results.evict() {}
                self.uploads.take(scene.now, (key, origin.peer.client()), origin.id, block, payload, &self.budget)
            }
        };
        match step {
            Step::Whole(body) => Ok(body),
            Step::Continue => {
                self.wake = self.wake.min(scene.now + self.config.transfer_lifetime);
                // A smaller block asks the client to go on with such (RFC 7959 §2.3, early negotiation).
                let block = block1.map(|block| Block { szx: block.szx.min(self.config.block_szx), ..block });
                Err(self.done(scene, origin, &Reply { block1: block, ..Reply::new(Code::CONTINUE) }))
            }
            Step::Incomplete => Err(self.incomplete(scene, origin, block1)),
            Step::Mixed => {
                let text = "the block contradicts others of its body: begin again with block 0";
                Err(self.done(scene, origin, &Reply { block1, ..Reply::text(Code::INCOMPLETE, text) }))
            }
            Step::WrongSize => {
                let text = "the block is not as long as its size exponent says";
                Err(self.done(scene, origin, &Reply { block1, ..Reply::text(Code::BAD_REQUEST, text) }))
            }
            Step::TooLarge => Err(self.too_large(scene, origin, block1)),
            Step::Full => Err(self.busy(scene, origin, Code::UNAVAILABLE, "no room for the body now")),
        }
    }

    /// Says that blocks are missing.
    fn incomplete(&mut self, scene: &mut Scene<'_>, origin: &Origin, block1: Option<Block>) -> Done {
        let text = "blocks of the body are missing: send them and then the last one again, or begin with block 0";
        let done = self.done(scene, origin, &Reply { block1, ..Reply::text(Code::INCOMPLETE, text) });
        // A copy of this message that comes when the others are there must not run what the client thinks refused.
        let expires = scene.now + self.lifetime(origin.kind);
        self.duplicates.refused(origin.fingerprint, expires, &self.scratch);
        done
    }

    fn too_large(&mut self, scene: &mut Scene<'_>, origin: &Origin, block1: Option<Block>) -> Done {
        let reply = Reply {
            // To a body without blocks, one says which to use (RFC 7959 §2.9.3).
            block1: block1.or(Some(Block { number: 0, more: true, szx: self.config.block_szx })),
            size1: Some(self.config.max_body),
            ..Reply::text(Code::TOO_LARGE, "the body is too large")
        };
        self.done(scene, origin, &reply)
    }

    /// Hands out the job of a request whose body is whole.
    fn begin(&mut self, scene: &mut Scene<'_>, origin: Origin, request: &Request<'_>, body: Held) -> Option<Job> {
        let mut client = origin.peer.client();
        // Many calls at work are more than handlers get done.
        if self.open.len() >= self.config.exchanges / 4 {
            self.crowd.press(scene.now, Sign::Calls);
        }
        let stranger = self.crowd.is_crowded(scene.now) && !self.crowd.is_proved(client);
        if stranger {
            client = Client::STRANGERS;
        }
        let full = self.is_full() && !self.make_room_for_exchange();
        if full || stranger && self.is_nearly_full() || self.is_full_of(origin.peer.client()) {
            self.busy(scene, &origin, Code::UNAVAILABLE, "too many calls at once");
            return None;
        }
        let observe = self.observation(request, &body);
        let task = Arc::new(Task {
            method: request.message.code,
            name: request.name.into(),
            path: request.path(),
            query: request.query(),
            headers: request.headers(),
            body,
        });
        let wish = Wish {
            request: self.request_key(&origin.peer, request),
            block1: request.block1,
            block2: request.block2,
            accept: request.accept,
            // Of other methods' answers a client holds no version (RFC 7252 §5.10.6.2).
            etag: request.etag.filter(|_| is_safe(request.message.code)).and_then(Etag::new),
            observe,
        };
        let ack_at = (origin.kind == Kind::Con).then_some(scene.now + self.config.ack_delay);
        let key = self.open.insert(Open { origin, ack_at, wish })?;
        if !self.duplicates.begin(origin.fingerprint, key) {
            self.open.remove(key);
            return None;
        }
        if request.detached {
            self.detached += 1;
            self.accept_detached(scene, key);
            return Some(Job { id: JobId::Detached, client: Some(client), task });
        }
        self.wake = self.wake.min(ack_at.unwrap_or(Millis::MAX));
        Some(Job { id: JobId::Exchange(key), client: Some(client), task })
    }

    /// Names what is observed, the same for everyone who asks for the same; `None` where nothing is to be.
    fn observation(&self, request: &Request<'_>, body: &Held) -> Option<u64> {
        if request.observe != Some(0) || !is_safe(request.message.code) || request.detached {
            return None;
        }
        let mut hasher = self.keys.build_hasher();
        request.hash_key(&mut hasher);
        body.as_bytes().hash(&mut hasher);
        Some(hasher.finish())
    }

    /// Lists the functions (RFC 7252 §7, RFC 6690).
    fn discover(&mut self, scene: &mut Scene<'_>, origin: &Origin, request: &Request<'_>, resources: &dyn Resources) {
        if request.accept.is_some_and(|accept| accept != format::LINK_FORMAT) {
            let text = "/.well-known/core is application/link-format, 40";
            return self.send(scene, origin, &Reply::text(Code::NOT_ACCEPTABLE, text));
        }
        let mut links = std::mem::take(&mut self.links);
        links.clear();
        let observable = self.config.observers > 0;
        resources.list(&mut |name| link::push(&mut links, name, observable, request.values(option::URI_QUERY)));
        // A group member that has nothing to list stays quiet (RFC 6690 §4.1).
        if !(origin.group && links.is_empty()) {
            let block = request.block2.unwrap_or(Block { number: 0, more: false, szx: self.config.block_szx });
            self.send_links(scene, origin, request, block.at_most(self.config.block_szx), &links);
        }
        self.links = links;
    }

    fn send_links(
        &mut self,
        scene: &mut Scene<'_>,
        origin: &Origin,
        request: &Request<'_>,
        block: Block,
        links: &[u8],
    ) {
        let etag = self.etag_of(links);
        if request.etag == Some(etag.as_bytes()) {
            return self.send(scene, origin, &Reply { etag: Some(etag), ..Reply::new(Code::VALID) });
        }
        let Some((block, payload)) = block.cut(links) else {
            return self.send(scene, origin, &Reply::text(Code::BAD_REQUEST, "the answer has no such block"));
        };
        let in_blocks = request.block2.is_some() || block.more;
        let reply = Reply {
            etag: in_blocks.then_some(etag),
            format: Some(format::LINK_FORMAT),
            block2: in_blocks.then_some(block),
            size2: (in_blocks && block.number == 0).then_some(links.len()),
            payload,
            ..Reply::new(Code::CONTENT)
        };
        self.send(scene, origin, &reply);
    }

    /// Names one request of one endpoint.
    fn request_key(&self, peer: &Peer, request: &Request<'_>) -> RequestKey {
        let mut hasher = self.keys.build_hasher();
        peer.hash(&mut hasher);
        request.hash_key(&mut hasher);
        RequestKey(hasher.finish())
    }

    /// Tries `take` again for each kept answer that is given up for it.
    fn with_room<T>(&mut self, mut take: impl FnMut(&Self) -> Option<T>) -> Option<T> {
        loop {
            let taken = take(self);
            if taken.is_some() || !self.results.evict() {
                return taken;
            }
        }
    }

    /// Says that it cannot be done now, and when to try again (RFC 7252 §5.9.3.4, RFC 8516).
    fn busy(&mut self, scene: &mut Scene<'_>, origin: &Origin, code: Code, text: &str) -> Done {
        let max_age = Some(self.config.retry_after);
        self.done(scene, origin, &Reply { max_age, ..Reply::text(code, text) })
    }

    fn done(&mut self, scene: &mut Scene<'_>, origin: &Origin, reply: &Reply<'_>) -> Done {
        self.send(scene, origin, reply);
        Done
    }
}

/// Whether the method only reads (RFC 7252 §5.8, RFC 8132 §2).
fn is_safe(method: Code) -> bool {
    matches!(method, Code::GET | Code::FETCH)
}

/// The request is answered.
struct Done;

/// A size exponent as bytes.
trait IntoSize {
    fn into_size(self) -> usize;
}

impl IntoSize for u8 {
    fn into_size(self) -> usize {
        Block { number: 0, more: false, szx: self }.size()
    }
}
