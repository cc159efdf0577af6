//! The Docker backend against a real engine. Each test is an instance of its own, and leaves nothing of it.

mod containers;
mod engine;
mod images;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use async_executor::StaticExecutor;
use futures_lite::FutureExt;
use tinyfaas::backend::docker::{self, Config, Docker, EngineAddress, Network, Reach};
use tinyfaas::backend::{Backend, BackendErrorKind, Lines, LogLine, Progress, Started};
use tinyfaas::function::{Deployment, Limits, Name, Origin, Runtime};
use tinyfaas::net::Address;
use tinyfaas::reactor::Timer;
use tinyfaas::store::Store;
use tinyfaas::worker::Workers;

use crate::board::docker_is_ready;

/// An image with busybox.
const BUSYBOX: &str = "tinyfaas-test/binary";
/// A handler that serves TCP 8000 and knows no socket.
const HTTPD: &str = "mkdir /tmp/www; echo ok > /tmp/www/health; exec httpd -f -p 8000 -h /tmp/www";
/// The longest that anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

static EXECUTOR: StaticExecutor = StaticExecutor::new();

/// Runs `test` on the executor, within [`PATIENCE`] for each of its steps.
fn run<T>(test: impl Future<Output = T>) -> T {
    tinyfaas::reactor::block_on(EXECUTOR.run(test))
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let late = async {
        Timer::after(PATIENCE).await;
        panic!("{what} took longer than {PATIENCE:?}")
    };
    future.or(late).await
}

/// One instance on the engine; all of it is removed when dropped.
struct Bench {
    instance: String,
    dir: PathBuf,
    store: Store,
}

impl Bench {
    /// `None`, said loudly, where there is no engine; a failure where CI promised one.
    fn new(test: &str) -> Option<Self> {
        if !docker_is_ready() {
            eprintln!("SKIPPED {test}: no Docker engine answers");
            return None;
        }
        let instance = format!("it-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(format!("tinyfaas-{instance}"));
        let store = Store::open(&dir).unwrap();
        Some(Self { instance, dir, store })
    }

    fn config(&self) -> Config {
        let engine = EngineAddress::parse(EngineAddress::DEFAULT).unwrap();
        let mut config = Config::new(engine, self.instance.clone(), self.dir.clone());
        config.executable = env!("CARGO_BIN_EXE_tinyfaas").into();
        config
    }

    fn backend(&self, config: Config) -> Docker {
        Docker::new(config, &EXECUTOR, Workers::new()).unwrap()
    }

    /// A backend whose functions run in images of our own.
    fn on_base(&self) -> Docker {
        self.backend(self.on_base_config())
    }

    fn on_base_config(&self) -> Config {
        let mut config = self.config();
        config.bases.extend(
            [Runtime::PYTHON3, Runtime::NODEJS, Runtime::BINARY]
                .map(|runtime| (runtime, format!("tinyfaas-test/{runtime}"))),
        );
        config
    }

    /// The images of functions.
    fn functions_images(&self) -> Vec<String> {
        let filters = ["--filter", &format!("label=tinyFaaS={}", self.instance), "--filter", "label=tinyfaas-function"];
        let out = Command::new("docker").args(["images", "-q"]).args(filters).output().unwrap();
        String::from_utf8_lossy(&out.stdout).lines().map(String::from).collect()
    }

    /// The settings of a backend whose `binary` functions run in the complete image `image`.
    fn with_image(&self, image: &str) -> Config {
        let mut config = self.config();
        config.images.push((Runtime::BINARY, image.into()));
        config
    }

    /// A backend whose functions run `script` in an image of somebody else.
    fn foreign(&self, script: &str) -> Docker {
        self.backend(self.with_image(&self.image(script)))
    }

    /// An image of busybox that runs `script`; it goes with the bench.
    fn image(&self, script: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let docker = |args: &[&str]| {
            let out = Command::new("docker").args(args).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap().trim().to_string()
        };
        let tag = format!("tinyfaas-it-{}:{}", COUNT.fetch_add(1, Ordering::SeqCst), self.instance);
        let id = docker(&["create", BUSYBOX, "true"]);
        let command = format!("CMD {}", serde_json::to_string(&["sh", "-c", script]).unwrap());
        let label = format!("LABEL tinyFaaS={}", self.instance);
        docker(&["commit", "-c", &command, "-c", &label, &id, &tag]);
        docker(&["rm", &id]);
        tag
    }

    fn deployment(&self, name: &str, runtime: Runtime, files: &[(&str, &str)]) -> Deployment {
        let mut deployment = Deployment {
            name: Name::parse(name).unwrap(),
            runtime,
            image: None,
            threads: 1,
            envs: vec!["GREETING=hello".into()],
            limits: Limits {
                memory: 64 << 20,
                cpu_millis: 1000,
                pids: 64,
                timeout: Duration::from_secs(10),
                concurrency: 4,
                queue: 4,
            },
            digest: String::new(),
            package: PathBuf::new(),
            auth: Vec::new(),
            network: true,
            idle: None,
            origin: Origin::Upload,
            subfolder: String::new(),
        };
        let mut spool = self.store.spool().unwrap();
        zip(&mut spool, files);
        deployment.digest = spool.digest(&deployment);
        spool.seal(&deployment).unwrap();
        deployment.package = self.store.commit(&mut spool, &deployment.name).unwrap().0;
        deployment
    }

    /// The instance's containers in the engine.
    fn containers(&self) -> Vec<String> {
        let filter = format!("label=tinyFaaS={}", self.instance);
        let out = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().unwrap();
        assert!(out.status.success());
        String::from_utf8_lossy(&out.stdout).lines().map(String::from).collect()
    }

    /// What the engine has of this instance, and what the folder of sockets holds.
    fn left(&self) -> Vec<String> {
        let filter = format!("label=tinyFaaS={}", self.instance);
        let mut left = Vec::new();
        // A test's own images are labelled as well, to go with the bench; the backend's name functions or runtimes.
        let ours = ["tinyfaas-function", "tinyfaas-runtime"].map(|label| format!("label={label}"));
        let images = ours.each_ref().map(|label| ["images", "-q", "--filter", label]);
        for what in [&["ps", "-aq"][..], &["network", "ls", "-q"], &images[0], &images[1]] {
            let out = Command::new("docker").args(what).args(["--filter", &filter]).output().unwrap();
            assert!(out.status.success());
            left.extend(String::from_utf8_lossy(&out.stdout).lines().map(|id| format!("{} {id}", what[0])));
        }
        let folders = fs::read_dir(self.dir.join("run")).unwrap().flatten();
        left.extend(folders.map(|f| f.path().display().to_string()));
        left
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let engine = EngineAddress::parse(EngineAddress::DEFAULT).unwrap();
        let removed = run(docker::clean(engine, &EXECUTOR, Workers::new(), Some(&self.instance)));
        let _ = fs::remove_dir_all(&self.dir);
        if !thread::panicking() {
            removed.unwrap();
        }
    }
}

fn zip(out: &mut impl Write, files: &[(&str, &str)]) {
    let mut writer = tinyfaas::wire::zip::Writer::new(out);
    for (path, content) in files {
        writer.file(path, 0o755, &mut content.as_bytes()).unwrap();
    }
    writer.finish().unwrap();
}

/// One request over a connection of its own, and the answer's status and body.
fn ask(address: &Address, request: &str) -> std::io::Result<(u16, String)> {
    fn speak(mut stream: impl Read + Write, request: &str) -> std::io::Result<String> {
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
    let answer = match address {
        Address::Unix(path) => speak(UnixStream::connect(path)?, request)?,
        Address::Tcp(addr) => speak(TcpStream::connect_timeout(addr, PATIENCE)?, request)?,
    };
    let status = answer.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
    Ok((status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.into())))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: handler\r\nConnection: close\r\n\r\n")
}

fn post(body: &str) -> String {
    let length = body.len();
    format!("POST /fn HTTP/1.1\r\nHost: f\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The first of the handler's addresses that is healthy.
fn healthy(started: &Started) -> Address {
    let until = Instant::now() + PATIENCE;
    loop {
        for address in &started.addresses {
            if matches!(ask(address, &get("/health")), Ok((200, _))) {
                return address.clone();
            }
        }
        assert!(Instant::now() < until, "{} never became healthy at {:?}", started.id, started.addresses);
        thread::sleep(Duration::from_millis(5));
    }
}

async fn logs(backend: &Docker, id: &str, tail: Option<usize>) -> Vec<LogLine> {
    let (sender, receiver) = async_channel::bounded(4);
    let collect = async {
        let mut lines = Vec::new();
        while let Ok(line) = receiver.recv().await {
            lines.push(line);
        }
        lines
    };
    let (sent, lines) =
        futures_lite::future::zip(backend.logs(id, Lines { tail, ..Lines::default() }, sender), collect).await;
    sent.unwrap();
    lines
}

/// The engine's own words on a container.
fn inspect(id: &str, format: &str) -> String {
    let out = Command::new("docker").args(["inspect", "-f", format, id]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().into()
}
