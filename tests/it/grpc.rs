//! The gRPC front door as callers that mean well see it.

use bytes::Bytes;
use futures_lite::{FutureExt, future};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use tinyfaas::cli::grpc_client::{Answer, framed_gzip};
use tinyfaas::front::grpc::Config;
use tinyfaas::function::Limits;
use tinyfaas::wire::grpc::message::{Data, Response, framed};
use tinyfaas::wire::grpc::status::{Code, Status};

use crate::grpc_door::{Door, NO_METADATA, call, echo, http, limits, wait};

const REQUEST: &str = "/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request";

/// The question of an old stub: two strings.
pub fn text(function: &str, data: &str) -> Bytes {
    framed(&text_message(function, data))
}

fn text_message(function: &str, data: &str) -> Data {
    Data { function_identifier: function.to_owned().into(), data: data.to_owned().into(), payload: None }
}

pub fn ask(door: &Door, question: Bytes, metadata: &[(&'static str, &'static str)]) -> Answer {
    let metadata = metadata.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
    wait(door.client().unary(REQUEST, question, metadata, None)).unwrap()
}

fn status(door: &Door, question: Bytes, metadata: &[(&'static str, &'static str)]) -> (Code, String) {
    let answer = ask(door, question, metadata);
    assert_eq!(answer.message, None);
    (answer.status.code, answer.status.message)
}

#[test]
fn text_goes_to_the_function_and_its_answer_comes_back_as_text() {
    let mut door = Door::open(Config::default());
    door.install("echo", limits(), echo);
    let answer = ask(&door, text("echo", "caf\u{e9}"), &[]);
    assert_eq!(answer.status, Status::new(Code::Ok, ""));
    let response = Response::decode(answer.message.unwrap()).unwrap();
    assert_eq!(response, Response { response: "caf\u{e9}".into(), payload: None });
    door.settled();
}

#[test]
fn any_bytes_travel_in_the_payload_fields() {
    let mut door = Door::open(Config::default());
    door.install("echo", limits(), echo);
    let client = door.client();
    for size in [0, 1, 100, 16_384, 70_000, 1_000_000] {
        let body: Vec<u8> = (0..size).map(|i| (i * 7 % 256) as u8).collect();
        assert_eq!(call(&client, "echo", &body).payload().unwrap(), body, "{size}");
    }
    door.settled();
}

#[test]
fn an_answer_that_is_no_text_is_an_error_that_says_so() {
    let mut door = Door::open(Config::default());
    door.install("bytes", limits(), |_| http(200, "", &[0xff, 0xfe]));
    let (code, message) = status(&door, text("bytes", ""), &[]);
    assert_eq!(code, Code::Internal);
    assert!(message.contains("not UTF-8") && message.contains("payload"), "{message}");
    assert_eq!(call(&door.client(), "bytes", b"").payload().unwrap()[..], [0xff, 0xfe]);
    door.settled();
}

#[test]
fn an_answer_of_unknown_length_arrives_whole() {
    let mut door = Door::open(Config::default());
    door.install("chunked", limits(), |_| {
        let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..50 {
            answer.extend(b"3e8\r\n");
            answer.extend([b'y'; 1000]);
            answer.extend(b"\r\n");
        }
        answer.extend(b"0\r\n\r\n");
        answer
    });
    assert_eq!(call(&door.client(), "chunked", b"").payload().unwrap(), vec![b'y'; 50_000]);
    door.settled();
}

#[test]
fn metadata_becomes_headers_and_headers_become_metadata() {
    let mut door = Door::open(Config::default());
    door.install("headers", limits(), |asked| {
        let lines = "X-Answer: 42\r\nblob-bin: AAEC\r\nbad-bin: ???\r\nSet-Cookie: a=1\r\nContent-Type: text/html\r\n";
        http(200, lines, asked.head.as_bytes())
    });
    let metadata =
        [("x-a", "1"), ("trace-bin", "AAEC"), ("grpc-accept-encoding", "gzip"), ("x-tinyfaas-path", "/forged")];
    let answer = ask(&door, text("headers", ""), &metadata);
    let head = Response::decode(answer.message.unwrap()).unwrap().response;
    let head = std::str::from_utf8(&head).unwrap();
    for line in ["x-a: 1\r\n", "trace-bin: AAEC\r\n", "user-agent: tinyfaas/"] {
        assert!(head.contains(line), "{line:?} in {head}");
    }
    for name in ["grpc-accept-encoding", "te:", "content-type", "forged"] {
        assert!(!head.contains(name), "{name:?} in {head}");
    }
    let field = |name| answer.headers.get(name).map(HeaderValue::as_bytes);
    assert_eq!(field("x-answer"), Some(&b"42"[..]));
    assert_eq!(field("blob-bin"), Some(&b"AAEC"[..]));
    assert_eq!(field("set-cookie"), Some(&b"a=1"[..]));
    assert_eq!(field("bad-bin"), None);
    assert_eq!(field("content-type"), Some(&b"application/grpc"[..]));
}

#[test]
fn each_failure_has_its_status() {
    let mut door = Door::open(Config { message: 1000, ..Config::default() });
    door.install("fails", limits(), |_| http(500, "X-Why: because\r\n", "no \u{e9}\n".as_bytes()));
    door.install("silent", limits(), |_| http(404, "", b""));
    door.install("forbids", limits(), |_| http(403, "", b"not you"));
    door.install("breaks", limits(), |_| Vec::new());
    door.install("cut", limits(), |asked| asked.break_off_after(b"HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\nhalf"));
    door.install("large", limits(), |_| http(200, "", &[b'x'; 1001]));
    assert_eq!(status(&door, text("nobody", ""), &[]).0, Code::NotFound);
    assert_eq!(status(&door, text("fails", ""), &[]), (Code::Internal, "no \u{e9}".into()));
    assert_eq!(status(&door, text("silent", ""), &[]), (Code::Internal, "the function answered 404".into()));
    assert_eq!(status(&door, text("forbids", ""), &[]), (Code::PermissionDenied, "not you".into()));
    assert_eq!(status(&door, text("breaks", ""), &[]).0, Code::Unavailable);
    assert_eq!(status(&door, text("cut", ""), &[]).0, Code::Unavailable);
    assert_eq!(status(&door, text("large", ""), &[]).0, Code::ResourceExhausted);
    assert_eq!(status(&door, text("fails", &"x".repeat(1000)), &[]).0, Code::ResourceExhausted);
    assert_eq!(ask(&door, text("fails", ""), &[]).headers.get("x-why").unwrap(), "because");
    door.settled();
}

#[test]
fn a_call_without_a_handler_waits_for_one_until_its_deadline() {
    let mut door = Door::open(Config::default());
    let function = door.install("gone", limits(), echo);
    function.drop_handler("h1");
    assert_eq!(status(&door, text("gone", ""), &[("grpc-timeout", "50m")]).0, Code::DeadlineExceeded);
}

#[test]
fn the_deadline_is_kept_and_passed_on() {
    let mut door = Door::open(Config::default());
    let held = door.install_held("held", limits());
    assert_eq!(status(&door, text("held", ""), &[("grpc-timeout", "1000m")]).0, Code::DeadlineExceeded);
    assert!(held.begun().contains("grpc-timeout: 1000m\r\n"));
    assert_eq!(status(&door, text("held", ""), &[("grpc-timeout", "1s")]).0, Code::Internal);
    assert_eq!(status(&door, text("held", ""), &[("grpc-timeout", "0n")]).0, Code::DeadlineExceeded);
    assert!(held.given_up(), "nobody waits for the handler any more");
    door.settled();
}

#[test]
fn a_full_queue_is_resource_exhausted() {
    let mut door = Door::open(Config::default());
    let held = door.install_held("one", Limits { concurrency: 1, queue: 0, ..limits() });
    let client = door.client();
    let first = client.call("one", Bytes::new(), &NO_METADATA, None);
    let second = async {
        held.begins().await;
        let second = client.call("one", Bytes::new(), &NO_METADATA, None).await;
        held.release();
        second
    };
    let (first, second) = wait(future::zip(first, second));
    assert_eq!(second.unwrap().status.code, Code::ResourceExhausted);
    assert_eq!(first.unwrap().payload().unwrap(), "done");
}

#[test]
fn a_cancelled_stream_cancels_the_call() {
    let mut door = Door::open(Config::default());
    let held = door.install_held("held", limits());
    let client = door.client();
    let answered = async {
        client.call("held", Bytes::from(vec![b'x'; 5000]), &NO_METADATA, None).await.unwrap();
        panic!("nobody lets the handler answer");
    };
    // The client resets the stream when its future is dropped.
    wait(answered.or(async {
        held.begins().await;
    }));
    assert!(held.given_up(), "the connection to the handler is closed");
    wait(door.dispatch.function("held").unwrap().drained());
    door.settled();
}

#[test]
fn gzip_messages_are_accepted_and_others_refused() {
    let mut door = Door::open(Config { message: 100_000, ..Config::default() });
    door.install("echo", limits(), echo);
    let message = text_message("echo", &"hello ".repeat(1000)).encode_to_vec();
    let answer = ask(&door, framed_gzip(&message), &[("grpc-encoding", "gzip")]);
    assert_eq!(Response::decode(answer.message.unwrap()).unwrap().response.len(), 6000);

    let answer = ask(&door, framed_gzip(&message), &[("grpc-encoding", "zstd")]);
    assert_eq!(answer.status.code, Code::Unimplemented);
    assert_eq!(answer.headers.get("grpc-accept-encoding").unwrap(), "identity,gzip");

    assert_eq!(status(&door, framed_gzip(&message), &[]).0, Code::Internal);
    let bomb = framed_gzip(&vec![0; 50 << 20]);
    assert_eq!(status(&door, bomb, &[("grpc-encoding", "gzip")]).0, Code::ResourceExhausted);
    let broken = Bytes::from_static(b"\x01\0\0\0\x03abc");
    assert_eq!(status(&door, broken, &[("grpc-encoding", "gzip")]).0, Code::Internal);
    door.settled();
}

#[test]
fn messages_that_are_not_what_the_protocol_says_have_their_status() {
    let mut door = Door::open(Config { message: 1000, ..Config::default() });
    door.install("echo", limits(), echo);
    let good = text("echo", "x");
    let twice = [&good[..], &good[..]].concat();
    for (question, code) in [
        (Bytes::new(), Code::Unimplemented),
        (Bytes::from(twice), Code::Unimplemented),
        (Bytes::from_static(b"\x02\0\0\0\0"), Code::Internal),
        (Bytes::from_static(b"\0\0\0\0\x03\x0a\x05a"), Code::Internal),
        (Bytes::from_static(b"\0\0\0\0\x03\x0a\x01\xff"), Code::Internal),
        (Bytes::from_static(b"\0\x7f\xff\xff\xff"), Code::ResourceExhausted),
    ] {
        assert_eq!(status(&door, question.clone(), &[]).0, code, "{question:?}");
    }
    for end in 1..good.len() {
        assert_eq!(status(&door, good.slice(..end), &[]).0, Code::Internal, "cut at {end}");
    }
    door.settled();
}

#[test]
fn what_is_no_grpc_is_told_so() {
    let door = Door::open(Config::default());
    for (kind, code) in [("application/json", Code::Unknown), ("application/grpc-web", Code::Unknown)] {
        let mut fields = HeaderMap::new();
        fields.insert("content-type", HeaderValue::from_static(kind));
        let answer = wait(door.client().unary(REQUEST, text("f", ""), fields, None)).unwrap();
        assert_eq!(answer.status.code, code);
        assert!(answer.status.message.contains("415"), "{}", answer.status.message);
    }
    let answer = wait(door.client().unary("/a.b.C/D", text("f", ""), HeaderMap::new(), None)).unwrap();
    assert_eq!(answer.status.code, Code::Unimplemented);
}

#[test]
fn calls_in_flight_finish_when_the_runtime_stops_and_new_ones_are_refused() {
    let mut door = Door::open(Config::default());
    let held = door.install_held("held", limits());
    let client = door.client();
    let first = client.call("held", Bytes::new(), &NO_METADATA, None);
    let stop = async {
        held.begins().await;
        door.begin_stop();
        // Either GOAWAY came first and the client itself refuses, or the server says UNAVAILABLE.
        if let Ok(late) = client.call("held", Bytes::new(), &NO_METADATA, None).await {
            assert_eq!(late.status.code, Code::Unavailable);
        }
        held.release();
    };
    let (first, ()) = wait(future::zip(first, stop));
    assert_eq!(first.unwrap().payload().unwrap(), "done");
    drop(client);
    door.stop();
}

#[test]
fn at_the_bound_the_connection_that_is_idle_for_longest_makes_room() {
    let mut door = Door::open(Config { connections: 2, ..Config::default() });
    door.install("echo", limits(), echo);
    let (first, second) = (door.client(), door.client());
    assert_eq!(call(&first, "echo", b"1").payload().unwrap(), "1");
    assert_eq!(call(&second, "echo", b"2").payload().unwrap(), "2");
    // Since when nobody called is known in milliseconds: within one, either is idle for as long.
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(call(&first, "echo", b"3").payload().unwrap(), "3");
    let third = door.client();
    assert_eq!(call(&third, "echo", b"4").payload().unwrap(), "4");
    assert_eq!(call(&first, "echo", b"5").payload().unwrap(), "5");
    assert!(wait(second.call("echo", Bytes::new(), &NO_METADATA, None)).is_err(), "it was closed for the third");
}

#[test]
fn a_message_over_the_budget_is_resource_exhausted() {
    let mut door = Door::open(Config { message: 16 << 20, ..Config::default() });
    door.install("echo", limits(), echo);
    let answer = call(&door.client(), "echo", &vec![b'x'; 9 << 20]);
    assert_eq!(answer.status.code, Code::ResourceExhausted);
    assert!(answer.status.message.contains("try again later"), "{}", answer.status.message);
    door.settled();
}
