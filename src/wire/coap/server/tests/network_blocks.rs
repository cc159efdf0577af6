//! A simulated network that loses, repeats and reorders, with clients that send the blocks of a body all at once.

use super::*;

/// Percent of the datagrams that are lost each way, and that come twice.
const LOSS: u32 = 30;
const TWICE: u32 = 20;

/// One block of a body, as its client knows it.
struct Piece {
    id: u16,
    datagram: Vec<u8>,
    acknowledged: bool,
}

/// A client that sends one body, in blocks that do not wait for each other.
struct Sender {
    body: Vec<u8>,
    szx: u32,
    next_id: u16,
    pieces: Vec<Piece>,
}

impl Sender {
    fn new(body: Vec<u8>, szx: u32, first_id: u16) -> Self {
        let mut sender = Self { body, szx, next_id: first_id, pieces: Vec::new() };
        let count = sender.body.len().div_ceil(16 << szx);
        sender.pieces = (0..count).map(|number| sender.piece(number, count)).collect();
        sender
    }

    /// Block `number` in a message of its own.
    fn piece(&mut self, number: usize, count: usize) -> Piece {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let value = (number as u32) << 4 | u32::from(number + 1 < count) << 3 | self.szx;
        let payload = self.body.chunks(16 << self.szx).nth(number).unwrap();
        let option = &value.to_be_bytes()[1..];
        let datagram = request(Kind::Con, Code::POST, id, "f", &[(option::BLOCK1, option)], payload);
        Piece { id, datagram, acknowledged: false }
    }

    /// What the network is given in this round: all that is not acknowledged.
    fn send(&self, rng: &mut fastrand::Rng, network: &mut Vec<Vec<u8>>) {
        for piece in self.pieces.iter().filter(|piece| !piece.acknowledged) {
            for _ in 0..if rng.u32(..100) < TWICE { 2 } else { 1 } {
                if rng.u32(..100) >= LOSS {
                    network.push(piece.datagram.clone());
                }
            }
        }
    }

    /// Takes a response; `true` where it is the answer to the whole body.
    fn hear(&mut self, heard: &Heard) -> bool {
        let (count, Some(number)) = (self.pieces.len(), self.pieces.iter().position(|piece| piece.id == heard.id))
        else {
            return false;
        };
        match heard.code {
            Code::CONTINUE => self.pieces[number].acknowledged = true,
            // The last block came too early: it has to be sent again, in a message of its own.
            Code::INCOMPLETE => {
                assert_eq!(number + 1, count, "only the last block is refused");
                self.pieces[number] = self.piece(number, count);
            }
            _ => return heard.code == Code::CONTENT,
        }
        false
    }
}

/// Sends bodies one after the other over the same network, where blocks of earlier ones still travel.
fn bodies_arrive(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut w = World::new(Config { rate: 0, ..Config::default() });
    let (mut network, mut first_id) = (Vec::new(), 0);
    for round in 0..3 {
        let szx = rng.u32(..=6);
        let length = rng.usize(2 * (16 << szx)..=12 * (16 << szx));
        let body: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
        let mut sender = Sender::new(body.clone(), szx, first_id);
        let (mut runs, mut answered) = (0, false);
        for _ in 0..500 {
            if answered {
                break;
            }
            sender.send(&mut rng, &mut network);
            rng.shuffle(&mut network);
            // Some stay on their way, and come in between what is sent later.
            let late = rng.usize(..=network.len() / 3);
            for datagram in network.split_off(late) {
                if let Some(job) = w.feed(peer(0), &datagram) {
                    assert_eq!(job.task.body.as_bytes(), body, "seed {seed}, body {round}");
                    runs += 1;
                    w.server.answer(w.now, &job, content(b"done"), &mut w.sent);
                }
                for heard in w.heard() {
                    answered |= rng.u32(..100) >= LOSS && sender.hear(&heard);
                }
            }
        }
        assert_eq!((answered, runs), (true, 1), "seed {seed}, body {round}");
        first_id = sender.next_id;
        // Each body is of another request: without a Request-Tag, blocks that come this late could be of either (RFC 9175 §3).
        network.clear();
    }
    w.wait(300_000);
    assert_eq!(w.budget.left(), 1 << 20);
}

#[test]
fn bodies_whose_blocks_are_lost_repeated_and_reordered_run_whole_and_once() {
    (0..300).for_each(bodies_arrive);
}
