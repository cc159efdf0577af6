//! `grpc.health.v1.Health` of the front door.

use std::sync::Arc;

use futures_lite::future;
use http::HeaderMap;
use prost::Message;
use tinyfaas::front::grpc::Config;
use tinyfaas::wire::grpc::message::{HealthCheckRequest, HealthCheckResponse, framed};
use tinyfaas::wire::grpc::status::Code;

use crate::grpc_door::{Door, echo, limits, wait};
use crate::grpc_raw::{DATA, END_HEADERS, END_STREAM, HEADERS, Peer, block_for, frame};

fn check(door: &Door, service: &str) -> (Code, Option<i32>) {
    let question = framed(&HealthCheckRequest { service: service.into() });
    let answer = wait(door.client().unary("/grpc.health.v1.Health/Check", question, HeaderMap::new(), None)).unwrap();
    (answer.status.code, answer.message.map(|m| HealthCheckResponse::decode(m).unwrap().status))
}

#[test]
fn health_is_told_overall_and_for_each_function() {
    let mut door = Door::open(Config::default());
    let function = door.install("echo", limits(), echo);
    assert_eq!(check(&door, ""), (Code::Ok, Some(1)));
    assert_eq!(check(&door, "openfogstack.tinyfaas.tinyfaas.TinyFaaS"), (Code::Ok, Some(1)));
    assert_eq!(check(&door, "echo"), (Code::Ok, Some(1)));
    assert_eq!(check(&door, "nobody"), (Code::NotFound, None));
    function.drop_handler("h1");
    assert_eq!(check(&door, "echo"), (Code::Ok, Some(2)));
}

#[test]
fn a_watch_ends_when_the_runtime_stops_and_its_last_word_is_not_serving() {
    let mut door = Door::open(Config::default());
    let client = door.client();
    let question = framed(&HealthCheckRequest { service: String::new() });
    let watch = client.unary("/grpc.health.v1.Health/Watch", question, HeaderMap::new(), None);
    let stop = async {
        // The watch is under way when another stream of the same connection, begun after it, is answered.
        let check = framed(&HealthCheckRequest::default());
        client.unary("/grpc.health.v1.Health/Check", check, HeaderMap::new(), None).await.unwrap();
        door.begin_stop();
    };
    let (watch, ()) = wait(future::zip(watch, stop));
    let watch = watch.unwrap();
    assert_eq!(watch.status.code, Code::Unavailable);
    assert_eq!(HealthCheckResponse::decode(watch.message.unwrap()).unwrap().status, 2);
    drop(client);
    door.stop();
}

#[test]
fn a_watch_tells_when_a_function_comes_fails_and_goes() {
    let mut door = Door::open(Config::default());
    let mut peer = Peer::connect(&door);
    let question = framed(&HealthCheckRequest { service: "echo".into() });
    let head = frame(HEADERS, END_HEADERS, 1, &block_for("/grpc.health.v1.Health/Watch", &[]));
    peer.send(&[head, frame(DATA, END_STREAM, 1, &question)].concat());
    // A message of two bytes: field 1, and the status as a number.
    let mut told = || match peer.frame_of(DATA).payload[..] {
        [0, 0, 0, 0, 2, 8, status] => status,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(told(), 3, "SERVICE_UNKNOWN");
    let function = door.install("echo", limits(), echo);
    assert_eq!(told(), 1, "SERVING");
    let handler = Arc::clone(&function.snapshot()[0]);
    function.drop_handler(handler.id());
    assert_eq!(told(), 2, "NOT_SERVING");
    function.add(handler);
    assert_eq!(told(), 1, "SERVING");
    door.dispatch.remove("echo");
    assert_eq!(told(), 3, "SERVICE_UNKNOWN");
}
