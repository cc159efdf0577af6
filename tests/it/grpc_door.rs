//! A gRPC front door with a scripted handler behind it, for tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_executor::Executor;
use bytes::Bytes;
use futures_lite::FutureExt;
use tinyfaas::budget::Budget;
use tinyfaas::buffers::Buffers;
use tinyfaas::cli::grpc_client::{Answer, Client};
use tinyfaas::dispatch::{Dispatch, Function, Handler};
use tinyfaas::front::grpc::{self, Config};
use tinyfaas::function::{Limits, Name};
use tinyfaas::net::Address;
use tinyfaas::reactor::{Async, Timer, block_on};
use tinyfaas::shutdown::Shutdown;
use tinyfaas::wire::headers::Headers;

/// Bytes of messages that a test's door may hold.
pub const BUDGET: usize = 8 << 20;

/// A front door that runs in this process.
pub struct Door {
    pub address: SocketAddr,
    pub budget: Budget,
    pub dispatch: Arc<Dispatch>,
    shutdown: Shutdown,
    thread: Option<JoinHandle<()>>,
    sockets: Vec<PathBuf>,
}

/// What a handler was asked: its head and body.
pub struct Asked {
    pub head: String,
    pub body: Vec<u8>,
    connection: UnixStream,
}

impl Asked {
    /// Sends these bytes and closes the connection: to be returned by the script.
    pub fn break_off_after(&self, bytes: &[u8]) -> Vec<u8> {
        (&self.connection).write_all(bytes).unwrap();
        Vec::new()
    }

    /// Waits until the server gives the call up and closes the connection; `false` where it does not.
    pub fn given_up(&self) -> bool {
        self.connection.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!((&self.connection).read(&mut [0]), Ok(0))
    }
}

/// A handler whose calls wait for the test.
pub struct Held {
    heads: Receiver<String>,
    watch: Sender<()>,
    given_up: Receiver<bool>,
}

impl Held {
    /// Waits until a call reached the handler; its head.
    pub fn begun(&self) -> String {
        wait(self.begins())
    }

    /// As [`Held::begun`], beside other work.
    pub async fn begins(&self) -> String {
        self.heads.recv().await.unwrap()
    }

    /// The calls are answered with `done`, those to come as well.
    pub fn release(self) {}

    /// Whether the server gives the call up, which is not answered meanwhile.
    pub fn given_up(self) -> bool {
        self.watch.send_blocking(()).unwrap();
        wait(self.given_up.recv()).unwrap()
    }
}

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what has to come.
pub fn wait<T>(work: impl Future<Output = T>) -> T {
    let late = async {
        Timer::after(PATIENCE).await;
        panic!("it did not come within {PATIENCE:?}")
    };
    block_on(work.or(late))
}

pub fn limits() -> Limits {
    Limits { memory: 0, cpu_millis: 0, pids: 0, timeout: Duration::from_secs(20), concurrency: 8, queue: 8 }
}

impl Door {
    pub fn open(config: Config) -> Self {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
        let address = listener.get_ref().local_addr().unwrap();
        let executor = Executor::new().leak();
        let (shutdown, budget) = (Shutdown::new(), Budget::new(BUDGET));
        let dispatch = Arc::new(Dispatch::new(Buffers::default()));
        let served =
            grpc::serve(listener, None, config, executor, Arc::clone(&dispatch), budget.clone(), shutdown.clone());
        let thread = Some(thread::spawn(move || block_on(executor.run(served))));
        Self { address, budget, dispatch, shutdown, thread, sockets: Vec::new() }
    }

    /// Installs a function whose handler answers with what `script` makes of each question: whole HTTP answers. An
    /// empty answer closes the connection.
    pub fn install(
        &mut self,
        name: &str,
        limits: Limits,
        script: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    ) -> Arc<Function> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tinyfaas-grpc-{}-{number}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let script = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&script);
                thread::spawn(move || while answer(&mut BufReader::new(&stream), &*script).is_some() {});
            }
        });
        let function = Arc::new(Function::new(Name::parse(name).unwrap(), limits));
        function.add(Arc::new(Handler::new("h1".into(), Address::Unix(path.clone()))));
        self.sockets.push(path);
        self.dispatch.install(Arc::clone(&function));
        function
    }

    /// Installs a function whose calls wait for the test.
    pub fn install_held(&mut self, name: &str, limits: Limits) -> Held {
        let (told, heads) = async_channel::unbounded();
        let (watch, watched) = async_channel::bounded(1);
        let (tell, given_up) = async_channel::unbounded();
        self.install(name, limits, move |asked| {
            let _ = told.send_blocking(asked.head.clone());
            if watched.recv_blocking().is_ok() {
                let _ = tell.send_blocking(asked.given_up());
            }
            http(200, "", b"done")
        });
        Held { heads, watch, given_up }
    }

    /// A connection of our own client.
    pub fn client(&self) -> Client {
        let address = self.address;
        block_on(async {
            let stream = Async::<std::net::TcpStream>::connect(address).await.unwrap();
            stream.get_ref().set_nodelay(true).unwrap();
            let (client, connection) = Client::new(stream, &address.to_string()).await.unwrap();
            // On a thread of its own: it goes on when the door is closed.
            thread::spawn(move || block_on(connection));
            client
        })
    }

    pub fn begin_stop(&self) {
        self.shutdown.begin();
    }

    /// Stops and waits until all calls are done.
    pub fn stop(&mut self) {
        self.shutdown.begin();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Waits until nothing of the budget is held.
    pub fn settled(&self) {
        for _ in 0..500 {
            if self.budget.left() == BUDGET {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{} bytes of the budget are still held", BUDGET - self.budget.left());
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shutdown.begin();
        for path in &self.sockets {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn answer(stream: &mut BufReader<&UnixStream>, script: &dyn Fn(&Asked) -> Vec<u8>) -> Option<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).unwrap_or(0) == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let answer = script(&Asked { head, body, connection: stream.get_ref().try_clone().ok()? });
    let mut stream: &UnixStream = stream.get_ref();
    stream.write_all(&answer).ok()?;
    (!answer.is_empty()).then_some(())
}

/// An HTTP answer with these header lines (each ended by CR LF) and this body.
pub fn http(status: u16, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} x\r\n{lines}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A handler that answers what it was asked.
pub fn echo(asked: &Asked) -> Vec<u8> {
    http(200, "", &asked.body)
}

/// Calls a function and waits.
pub fn call(client: &Client, function: &str, body: &[u8]) -> Answer {
    wait(client.call(function, Bytes::copy_from_slice(body), &NO_METADATA, None)).unwrap()
}

/// A call without metadata.
pub static NO_METADATA: Headers = Headers::new();
