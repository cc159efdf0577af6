//! Blocks in order, again, out of order and lost.

use super::super::Code;
use super::*;

const KEY: RequestKey = RequestKey(1);

fn uploads(config: Config) -> (Uploads, Budget) {
    (Uploads::new(&config), Budget::new(100_000))
}

fn who(last: u8) -> Client {
    Client::of([192, 0, 2, last].into())
}

fn block(number: u32, more: bool) -> Block {
    Block { number, more, szx: 0 }
}

/// One step, as a word. All come in the same message, so that a block 0 never begins anew.
fn step(uploads: &mut Uploads, budget: &Budget, key: RequestKey, block: Block, payload: &[u8]) -> String {
    step_in(uploads, budget, key, 7, block, payload)
}

/// One step in message `id`.
fn step_in(uploads: &mut Uploads, budget: &Budget, key: RequestKey, id: u16, block: Block, payload: &[u8]) -> String {
    match uploads.take(0, (key, who(1)), id, block, payload, budget) {
        Step::Whole(body) => format!("Whole {}", String::from_utf8_lossy(body.as_bytes())),
        other => format!("{other:?}"),
    }
}

#[test]
fn blocks_in_order_make_the_body_and_repeated_ones_do_no_harm() {
    let (mut u, b) = uploads(Config::default());
    for _ in 0..2 {
        assert_eq!(step(&mut u, &b, KEY, block(0, true), b"0123456789abcdef"), "Continue");
    }
    for number in [1, 0, 1] {
        let piece: &[u8] = if number == 0 { b"0123456789abcdef" } else { b"ABCDEFGHIJKLMNOP" };
        assert_eq!(step(&mut u, &b, KEY, block(number, true), piece), "Continue");
    }
    assert_eq!(step(&mut u, &b, KEY, block(2, false), b"!"), "Whole 0123456789abcdefABCDEFGHIJKLMNOP!");
    assert_eq!(b.left(), 100_000);
}

#[test]
fn blocks_in_any_order_make_the_body_and_those_that_miss_can_still_be_sent() {
    let (mut u, b) = uploads(Config::default());
    assert_eq!(step(&mut u, &b, KEY, block(3, true), &[b'd'; 16]), "Continue");
    assert_eq!(step(&mut u, &b, KEY, block(0, true), &[b'a'; 16]), "Continue");
    assert_eq!(step(&mut u, &b, KEY, block(4, false), b"e"), "Incomplete");
    assert_eq!(step(&mut u, &b, KEY, block(2, true), &[b'c'; 16]), "Continue");
    assert_eq!(step(&mut u, &b, KEY, block(4, false), b"e"), "Incomplete");
    assert_eq!(step(&mut u, &b, KEY, block(1, true), &[b'b'; 16]), "Continue");
    let whole = format!("Whole {0:a<16}{0:b<16}{0:c<16}{0:d<16}e", "");
    assert_eq!(step(&mut u, &b, KEY, block(4, false), b"e"), whole);
    assert_eq!(b.left(), 100_000);
}

#[test]
fn a_block_0_in_another_message_begins_anew() {
    let (mut u, b) = uploads(Config::default());
    step(&mut u, &b, KEY, block(0, true), &[b'x'; 16]);
    step(&mut u, &b, KEY, block(1, true), &[b'y'; 16]);
    assert_eq!(step_in(&mut u, &b, KEY, 8, block(0, true), &[b'x'; 16]), "Continue");
    assert_eq!(step(&mut u, &b, KEY, block(2, false), b"z"), "Incomplete");
    assert_eq!(step(&mut u, &b, KEY, block(1, true), &[b'b'; 16]), "Continue");
    assert_eq!(step(&mut u, &b, KEY, block(2, false), b"z"), format!("Whole {}{}z", "x".repeat(16), "b".repeat(16)));
    step(&mut u, &b, KEY, block(2, false), b"left over");
    assert_eq!(step(&mut u, &b, KEY, block(0, true), &[b'n'; 16]), "Continue");
    step_in(&mut u, &b, KEY, 9, block(1, false), b"left over");
    assert_eq!(step_in(&mut u, &b, KEY, 10, Block { number: 0, more: true, szx: 2 }, &[b'n'; 64]), "Continue");
    assert_eq!(step(&mut u, &b, KEY, block(4, false), b"."), format!("Whole {}.", "n".repeat(64)));
}

#[test]
fn blocks_of_different_bodies_are_never_put_together() {
    let (mut u, b) = uploads(Config::default());
    let mut mixed = |blocks: &[(u32, bool, &[u8])]| {
        let steps: Vec<_> =
            blocks.iter().map(|(n, more, piece)| step(&mut u, &b, KEY, block(*n, *more), piece)).collect();
        assert_eq!(u.len(), 0, "{steps:?}");
        steps.last().cloned().unwrap()
    };
    let (a, x) = ([b'a'; 16], [b'x'; 16]);
    assert_eq!(mixed(&[(0, true, &a), (1, true, &a), (1, true, &x)]), "Mixed", "another content");
    assert_eq!(mixed(&[(0, true, &a), (2, true, &a), (1, false, b"b")]), "Mixed", "a block behind the end");
    assert_eq!(mixed(&[(2, false, b"c"), (1, true, &a), (2, true, &a)]), "Mixed", "the end is not the end");
    assert_eq!(mixed(&[(2, false, b"c"), (1, true, &a), (1, false, b"c")]), "Mixed", "two ends");
    assert_eq!(mixed(&[(1, false, b"c"), (1, false, b"d")]), "Mixed", "another end");
    assert_eq!(b.left(), 100_000);
}

#[test]
fn what_comes_late_of_a_body_that_was_taken_begins_none() {
    let (mut u, b) = uploads(Config::default());
    step(&mut u, &b, KEY, block(0, true), &[b'a'; 16]);
    assert!(step(&mut u, &b, KEY, block(1, false), b"b").starts_with("Whole"));
    assert_eq!(step(&mut u, &b, KEY, block(0, true), &[b'a'; 16]), "Continue");
    assert_eq!(step(&mut u, &b, KEY, block(1, false), b"b"), "Incomplete");
    assert_eq!(b.left(), 100_000);
    assert_eq!(step_in(&mut u, &b, KEY, 9, block(1, false), b"d"), "Incomplete", "but a newer message does");
    assert_eq!(step_in(&mut u, &b, KEY, 8, block(0, true), &[b'c'; 16]), "Continue");
    assert_eq!(step_in(&mut u, &b, KEY, 10, block(1, false), b"d"), format!("Whole {}d", "c".repeat(16)));
}

#[test]
fn a_block_that_is_not_as_long_as_it_says_is_wrong() {
    let (mut u, b) = uploads(Config::default());
    assert_eq!(step(&mut u, &b, KEY, block(0, true), b"short"), "WrongSize");
    assert_eq!(step(&mut u, &b, KEY, block(0, false), &[0; 17]), "WrongSize");
    assert_eq!(step(&mut u, &b, KEY, block(0, false), b""), "Whole ");
}

#[test]
fn the_size_may_change_on_the_way() {
    let (mut u, b) = uploads(Config::default());
    assert_eq!(step(&mut u, &b, KEY, Block { number: 0, more: true, szx: 1 }, &[b'a'; 32]), "Continue");
    assert_eq!(step(&mut u, &b, KEY, block(2, true), &[b'b'; 16]), "Continue");
    assert_eq!(step(&mut u, &b, KEY, block(3, false), b"c"), format!("Whole {}{}c", "a".repeat(32), "b".repeat(16)));
}

#[test]
fn bodies_of_different_requests_are_told_apart() {
    let (mut u, b) = uploads(Config::default());
    for key in [1, 2] {
        step(&mut u, &b, RequestKey(key), block(0, true), &[b'0' + key as u8; 16]);
    }
    for key in [1, 2] {
        let whole = step(&mut u, &b, RequestKey(key), block(1, false), b"");
        assert_eq!(whole, format!("Whole {}", key.to_string().repeat(16)));
    }
}

#[test]
fn a_body_has_a_bound_and_so_has_the_sum_of_all() {
    let (mut u, b) = uploads(Config { max_body: 31, ..Config::default() });
    step(&mut u, &b, KEY, block(0, true), &[0; 16]);
    assert_eq!(step(&mut u, &b, KEY, block(1, true), &[0; 16]), "TooLarge");
    assert_eq!(u.len(), 0);
    let (mut u, _) = uploads(Config::default());
    let b = Budget::new(40);
    assert_eq!(step(&mut u, &b, KEY, block(0, true), &[0; 16]), "Continue");
    assert_eq!(step(&mut u, &b, KEY, block(1, true), &[0; 16]), "Continue");
    assert_eq!(step(&mut u, &b, KEY, block(2, true), &[0; 16]), "Full");
    assert_eq!((u.len(), b.left()), (0, 40));
    assert_eq!(step(&mut u, &b, KEY, block(2, true), &[0; 16]), "Full", "a gap counts");
    assert_eq!((u.len(), b.left()), (0, 40));
}

#[test]
fn when_the_table_is_full_only_a_stalled_body_gives_way() {
    let config = Config { uploads: 2, transfer_stall: 1_000, ..Config::default() };
    let (mut u, b) = uploads(config);
    let begin = |u: &mut Uploads, now, key| u.take(now, (RequestKey(key), who(1)), 7, block(0, true), &[0; 16], &b);
    assert!(matches!(begin(&mut u, 0, 1), Step::Continue));
    assert!(matches!(begin(&mut u, 500, 2), Step::Continue));
    assert!(matches!(begin(&mut u, 999, 3), Step::Full));
    assert!(matches!(begin(&mut u, 1_000, 3), Step::Continue));
    assert!(u.table.iter().all(|upload| upload.key != RequestKey(1)));
    assert_eq!(u.next(), Some(500 + 247_000));
    u.expire(247_500);
    assert_eq!(u.len(), 1);
}

#[test]
fn a_body_of_which_only_one_block_came_gives_way_sooner() {
    let (mut u, b) = uploads(Config { uploads: 2, transfer_start: 1_000, ..Config::default() });
    let take = |u: &mut Uploads, now, key, id, n| {
        u.take(now, (RequestKey(key), who(key as u8)), id, block(n, true), &[0; 16], &b)
    };
    assert!(matches!(take(&mut u, 0, 1, 7, 0), Step::Continue));
    assert!(matches!(take(&mut u, 0, 1, 8, 1), Step::Continue));
    assert!(matches!(take(&mut u, 10, 2, 7, 0), Step::Continue));
    assert!(matches!(take(&mut u, 1_009, 3, 7, 0), Step::Full));
    assert!(matches!(take(&mut u, 1_010, 3, 7, 0), Step::Continue));
    assert!(u.table.iter().all(|upload| upload.key != RequestKey(2)));
}

#[test]
fn one_client_cannot_begin_so_many_bodies_that_others_begin_none() {
    let (mut u, b) = uploads(Config { uploads: 4, ..Config::default() });
    let begin = |u: &mut Uploads, key, client| u.take(key, (RequestKey(key), client), 7, block(0, true), &[0; 16], &b);
    for key in 1..=4 {
        assert!(matches!(begin(&mut u, key, who(1)), Step::Continue));
    }
    assert!(matches!(begin(&mut u, 5, who(1)), Step::Full));
    assert!(matches!(begin(&mut u, 6, who(2)), Step::Continue));
    assert!(matches!(begin(&mut u, 7, who(2)), Step::Continue));
    assert!(matches!(begin(&mut u, 8, who(2)), Step::Full), "both have as many");
    assert!(u.table.iter().all(|upload| ![1, 2].contains(&upload.key.0)), "the oldest went");
}

#[test]
fn a_body_that_was_taken_gives_way_before_any_other() {
    let (mut u, b) = uploads(Config { uploads: 2, ..Config::default() });
    for key in [1, 2] {
        step(&mut u, &b, RequestKey(key), block(0, true), &[0; 16]);
    }
    assert_eq!(step(&mut u, &b, RequestKey(3), block(0, true), &[0; 16]), "Full");
    step(&mut u, &b, RequestKey(2), block(1, false), b"");
    assert_eq!(step(&mut u, &b, RequestKey(3), block(0, true), &[0; 16]), "Continue");
    assert!(u.table.iter().all(|upload| upload.key != RequestKey(2)));
}

#[test]
fn results_give_way_fetched_ones_first_then_the_oldest() {
    let mut r = Results::new(&Config { results: 3, ..Config::default() });
    let answer = || Arc::new(Answer::failure(Code::CONTENT, Held::line("0123456789abcdefX".into())));
    for key in 1..=3 {
        r.keep(key, RequestKey(key), answer());
    }
    assert!(r.fetch(9, RequestKey(2), block(1, false)).is_some());
    r.keep(10, RequestKey(4), answer());
    assert!(r.fetch(10, RequestKey(2), block(0, false)).is_none(), "fetched to its end");
    r.keep(11, RequestKey(5), answer());
    assert!(r.fetch(11, RequestKey(1), block(0, false)).is_none(), "the oldest");
    r.expire(3 + 247_000);
    assert_eq!(r.len(), 2);
}
