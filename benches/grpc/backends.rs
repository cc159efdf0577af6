//! The children of the benchmark: our front door, nginx's upstream, and the handler behind ours.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_executor::{Executor, StaticExecutor};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tinyfaas::budget::Budget;
use tinyfaas::buffers::Buffers;
use tinyfaas::dispatch::{Dispatch, Function, Handler};
use tinyfaas::front::grpc::{Config, serve};
use tinyfaas::function::{Limits, Name};
use tinyfaas::h2_socket::Socket;
use tinyfaas::net::Address;
use tinyfaas::reactor::{Async, block_on};
use tinyfaas::shutdown::Shutdown;
use tinyfaas::wire::grpc::message::{Response as Answer, framed};

/// Bytes of the answer.
const ANSWER: &[u8] = &[b'y'; 100];

fn listen() -> Async<TcpListener> {
    let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
    println!("{}", listener.get_ref().local_addr().unwrap().port());
    std::io::stdout().flush().unwrap();
    listener
}

/// The front door with function `echo`, whose handler is at `socket`.
pub fn door(socket: &Path) {
    let executor: &'static StaticExecutor = Executor::new().leak();
    let dispatch = Arc::new(Dispatch::new(Buffers::default()));
    let limits =
        Limits { memory: 0, cpu_millis: 0, pids: 0, timeout: Duration::from_secs(60), concurrency: 4, queue: 256 };
    let function = Arc::new(Function::new(Name::parse("echo").unwrap(), limits));
    function.add(Arc::new(Handler::new("h".into(), Address::Unix(socket.into()))));
    dispatch.install(function);
    let served = serve(listen(), Config::default(), executor, dispatch, Budget::new(4 << 20), Shutdown::new());
    // A task of its own, as in the server: it is looked at only when there is a connection to accept.
    block_on(executor.run(executor.spawn(served)));
}

/// A thread a connection that answers each invocation at once.
pub fn handler(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || invocations(stream));
        }
    });
}

/// Each invocation of the benchmark is far below what one read takes, and the next comes after its answer.
fn invocations(mut stream: UnixStream) {
    let answer = [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", ANSWER.len()).as_bytes(), ANSWER].concat();
    let mut buf = [0; 4096];
    while stream.read(&mut buf).is_ok_and(|n| n > 0) {
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// A gRPC server that answers each call at once and knows nothing else.
pub fn upstream() {
    let executor: &'static StaticExecutor = Executor::new().leak();
    let listener = listen();
    let accepting = executor.spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            stream.get_ref().set_nodelay(true).unwrap();
            executor.spawn(connection(stream, executor)).detach();
        }
    });
    block_on(executor.run(accepting));
}

async fn connection(stream: Async<std::net::TcpStream>, executor: &'static StaticExecutor) {
    let answer = framed(&Answer { response: Bytes::from_static(ANSWER), payload: None });
    let Ok(mut connection) = h2::server::handshake(Socket::new(stream, ())).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let answer = answer.clone();
        let task = async move {
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
            let mut response = Response::new(());
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let Ok(mut stream) = respond.send_response(response, false) else { return };
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let _ = stream.send_data(answer, false).and_then(|()| stream.send_trailers(trailers));
        };
        executor.spawn(task).detach();
    }
}
