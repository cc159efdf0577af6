//! RFC 7959: bodies in blocks, both ways.

use super::*;

fn block(number: u32, more: bool, szx: u32) -> Vec<u8> {
    let value = number << 4 | u32::from(more) << 3 | szx;
    value.to_be_bytes()[1..].to_vec()
}

fn post(id: u16, more: &[(u16, &[u8])], payload: &[u8]) -> Vec<u8> {
    request(Kind::Con, Code::POST, id, "f", more, payload)
}

fn get_block(id: u16, number: u32, szx: u32) -> Vec<u8> {
    request(Kind::Con, Code::GET, id, "f", &[(option::BLOCK2, &block(number, false, szx))], b"")
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + (i % 26) as u8).collect()
}

#[test]
fn a_body_in_blocks_of_every_size_becomes_one_call() {
    for szx in 0..=6 {
        let mut w = World::new(Config::default());
        let body = text(3000);
        let mut job = None;
        for (number, piece) in body.chunks(16 << szx).enumerate() {
            let more = (number + 1) * (16 << szx) < body.len();
            let option = block(number as u32, more, szx);
            let bytes = post(number as u16, &[(option::BLOCK1, &option)], piece);
            if more {
                let heard = w.ask(&bytes);
                assert_eq!(heard.code, Code::CONTINUE);
                assert_eq!(heard.block(option::BLOCK1), Some((number as u32, true, szx as u8)));
                assert_eq!(w.ask(&bytes).code, Code::CONTINUE, "a repeated block");
            } else {
                job = Some(w.job(&bytes));
            }
        }
        let job = job.unwrap();
        assert_eq!(job.task.body.as_bytes(), body);
        let heard = w.answer(&job, content(b"done"));
        assert_eq!(heard.code, Code::CONTENT);
        assert_eq!(heard.block(option::BLOCK1).map(|b| b.1), Some(false));
        drop(job);
        assert_eq!(w.budget.left(), 1 << 20, "all is given back");
    }
}

#[test]
fn an_answer_in_blocks_of_every_size_is_fetched_without_running_again() {
    for szx in 0..=6 {
        let mut w = World::new(Config::default());
        let body = text(3000);
        let first = w.call(&get_block(0, 0, szx), &body);
        assert_eq!(first.block(option::BLOCK2), Some((0, true, szx as u8)));
        assert_eq!(first.uint(option::SIZE2), Some(3000));
        let (mut all, etag) = (first.payload, first.options[0].clone());
        assert_eq!(etag.0, option::ETAG);
        for number in 1.. {
            let heard = w.ask(&get_block(number as u16, number, szx));
            assert_eq!((heard.code, &heard.options[0]), (Code::CONTENT, &etag));
            all.extend_from_slice(&heard.payload);
            if !heard.block(option::BLOCK2).unwrap().1 {
                break;
            }
        }
        assert_eq!(all, body);
    }
}

#[test]
fn a_long_answer_comes_in_blocks_that_nobody_asked_for() {
    let mut w = World::new(Config::default());
    let heard = w.call(&get(1, "f"), &text(1025));
    assert_eq!((heard.block(option::BLOCK2), heard.payload.len()), (Some((0, true, 6)), 1024));
    let heard = w.ask(&get_block(2, 1, 6));
    assert_eq!((heard.block(option::BLOCK2), heard.payload.len()), (Some((1, false, 6)), 1));
    assert_eq!(w.call(&get(3, "f"), &text(1024)).block(option::BLOCK2), None, "a short one does not");
}

#[test]
fn blocks_are_fetched_in_any_order_and_the_size_may_shrink() {
    let mut w = World::new(Config::default());
    let body = text(2500);
    w.call(&get(0, "f"), &body);
    for (id, number, szx) in [(1, 2u32, 6), (2, 1, 6), (3, 9, 4), (4, 0, 4), (5, 156, 0)] {
        let heard = if number == 0 { continue } else { w.ask(&get_block(id, number, szx)) };
        let start = number as usize * (16 << szx);
        assert_eq!(heard.payload, body[start..body.len().min(start + (16 << szx))]);
    }
    assert_eq!(w.ask(&get_block(6, 3, 6)).code, Code::BAD_REQUEST, "behind the end");
    assert_eq!(w.ask(&get_block(7, 1, 7)).code, Code::BAD_REQUEST, "the reserved size");
}

#[test]
fn a_block_of_an_answer_that_is_gone_runs_a_safe_request_again_and_refuses_another() {
    let mut w = World::new(Config::default());
    let heard = w.call(&get_block(1, 2, 6), &text(2500));
    assert_eq!((heard.block(option::BLOCK2), heard.payload.len()), (Some((2, false, 6)), 452));
    let heard = w.ask(&post(2, &[(option::BLOCK2, &block(1, false, 6))], b""));
    assert_eq!(heard.code, Code::INCOMPLETE);
}

#[test]
fn both_directions_at_once() {
    let mut w = World::new(Config::default());
    let body = text(1500);
    let (b0, b1) = (block(0, true, 6), block(1, false, 6));
    assert_eq!(w.ask(&post(1, &[(option::BLOCK1, &b0)], &body[..1024])).code, Code::CONTINUE);
    let want = block(0, false, 4);
    let heard = w.call(&post(2, &[(option::BLOCK1, &b1), (option::BLOCK2, &want)], &body[1024..]), &body);
    assert_eq!(heard.block(option::BLOCK1), Some((1, false, 6)));
    assert_eq!(heard.block(option::BLOCK2), Some((0, true, 4)));
    let heard = w.ask(&post(3, &[(option::BLOCK2, &block(1, false, 4))], b""));
    assert_eq!(heard.payload, body[256..512]);
}

#[test]
fn a_smaller_size_is_asked_for_where_blocks_are_too_large() {
    let mut w = World::new(Config { block_szx: 2, ..Config::default() });
    let heard = w.ask(&post(1, &[(option::BLOCK1, &block(0, true, 6))], &text(1024)));
    assert_eq!((heard.code, heard.block(option::BLOCK1)), (Code::CONTINUE, Some((0, true, 2))));
    let job = w.job(&post(2, &[(option::BLOCK1, &block(16, false, 2))], b"end"));
    assert_eq!(job.task.body.len(), 1027);
}

#[test]
fn lost_and_long_bodies_are_refused_by_code() {
    let mut w = World::new(Config { max_body: 2000, ..Config::default() });
    let heard = w.ask(&post(1, &[(option::BLOCK1, &block(1, false, 0))], &text(16)));
    assert_eq!((heard.code, heard.block(option::BLOCK1)), (Code::INCOMPLETE, Some((1, false, 0))));
    let heard = w.ask(&post(2, &[(option::BLOCK1, &block(0, true, 6)), (option::SIZE1, &[0x10, 0])], &text(1024)));
    assert_eq!((heard.code, heard.uint(option::SIZE1)), (Code::TOO_LARGE, Some(2000)));
    assert_eq!(w.ask(&post(3, &[(option::BLOCK1, &block(0, true, 6))], &text(1024))).code, Code::CONTINUE);
    let heard = w.ask(&post(4, &[(option::BLOCK1, &block(1, true, 6))], &text(1024)));
    assert_eq!((heard.code, heard.uint(option::SIZE1)), (Code::TOO_LARGE, Some(2000)));
    let heard = w.ask(&post(5, &[(option::BLOCK1, &block(0, true, 6))], b"short"));
    assert_eq!(heard.code, Code::BAD_REQUEST);
    let heard = w.ask(&post(6, &[], &text(2001)));
    assert_eq!((heard.code, heard.block(option::BLOCK1)), (Code::TOO_LARGE, Some((0, true, 6))));
    assert_eq!(w.budget.left(), 1 << 20);
}

#[test]
fn an_upload_to_a_name_that_nobody_has_is_refused_at_its_first_block() {
    let mut w = World::new(Config::default());
    let option = block(0, true, 6);
    let bytes = request(Kind::Con, Code::POST, 1, "nosuch", &[(option::BLOCK1, &option)], &text(1024));
    assert_eq!(w.ask(&bytes).code, Code::NOT_FOUND);
}

#[test]
fn concurrent_bodies_are_told_apart_by_endpoint_path_and_request_tag() {
    let mut w = World::new(Config::default());
    let first = block(0, true, 0);
    let last = block(1, false, 0);
    let kinds: [(Peer, &str, Option<&[u8]>); 4] =
        [(peer(0), "f", None), (peer(1), "f", None), (peer(0), "g", None), (peer(0), "f", Some(b"tag"))];
    let make = |n: usize, id: u16, option: &[u8], payload: &[u8]| {
        let mut more = vec![(option::BLOCK1, option)];
        more.extend(kinds[n].2.map(|tag| (option::REQUEST_TAG, tag)));
        request(Kind::Con, Code::POST, id, kinds[n].1, &more, payload)
    };
    for (n, kind) in kinds.iter().enumerate() {
        assert!(w.feed(kind.0, &make(n, n as u16, &first, &[b'0' + n as u8; 16])).is_none());
    }
    for (n, kind) in kinds.iter().enumerate() {
        let job = w.feed(kind.0, &make(n, 10 + n as u16, &last, b".")).unwrap();
        assert_eq!(job.task.body.as_bytes(), format!("{}.", n.to_string().repeat(16)).as_bytes());
    }
}

#[test]
fn bodies_expire() {
    let mut w = World::new(Config::default());
    w.ask(&post(1, &[(option::BLOCK1, &block(0, true, 6))], &text(1024)));
    assert!(w.budget.left() < 1 << 20);
    w.wait(247_000);
    assert_eq!(w.budget.left(), 1 << 20);
    assert_eq!(w.ask(&post(2, &[(option::BLOCK1, &block(1, false, 6))], b"end")).code, Code::INCOMPLETE);
    w.call(&get(3, "f"), &text(2000));
    w.wait(247_000);
    assert!(w.server.results.is_empty());
}

#[test]
fn a_last_block_that_was_refused_is_refused_again_when_it_is_repeated() {
    let mut w = World::new(Config::default());
    let last = post(1, &[(option::BLOCK1, &block(1, false, 0))], b"end");
    let refused = w.ask(&last);
    assert_eq!(refused.code, Code::INCOMPLETE);
    assert_eq!(w.ask(&post(2, &[(option::BLOCK1, &block(0, true, 0))], &text(16))).code, Code::CONTINUE);
    assert_eq!(w.ask(&last), refused, "its client was told that it did not run");
    let again = post(3, &[(option::BLOCK1, &block(1, false, 0))], b"end");
    assert_eq!(w.job(&again).task.body.len(), 19);
}
