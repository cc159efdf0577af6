//! The Docker backend against a real engine. Each test is an instance of its own, and leaves nothing of it.

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
use async_io::Timer;
use futures_lite::FutureExt;
use tinyfaas::backend::docker::{self, Config, Docker, EngineAddress, Network, Reach};
use tinyfaas::backend::{Backend, BackendErrorKind, LogLine, Started};
use tinyfaas::function::{Deployment, Limits, Name, Origin, Runtime};
use tinyfaas::net::Address;
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
    async_io::block_on(EXECUTOR.run(test))
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
        config.bases.extend(Runtime::ALL.map(|runtime| (runtime, format!("tinyfaas-test/{runtime}"))));
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
        config.images.push((Runtime::Binary, image.into()));
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
            idle: None,
            origin: Origin::Upload,
            subfolder: String::new(),
        };
        let mut spool = self.store.spool().unwrap();
        zip(&mut spool, files);
        deployment.digest = spool.digest(&deployment);
        spool.seal(&deployment).unwrap();
        deployment.package = self.store.commit(&mut spool, &deployment.name).unwrap();
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
    let (sent, lines) = futures_lite::future::zip(backend.logs(id, tail, sender), collect).await;
    sent.unwrap();
    lines
}

/// The engine's own words on a container.
fn inspect(id: &str, format: &str) -> String {
    let out = Command::new("docker").args(["inspect", "-f", format, id]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().into()
}

#[test]
fn an_image_that_knows_only_tcp_8000_is_reached_there_and_leaves_nothing() {
    let Some(bench) = Bench::new("foreign image") else { return };
    let backend = bench.foreign(HTTPD);
    let deployment = bench.deployment("foreign", Runtime::Binary, &[("fn.sh", "echo $GREETING")]);
    run(async {
        backend.prepare(&deployment).await.unwrap();
        let started = soon("start", backend.start(&deployment)).await.unwrap();
        assert!(matches!(started.addresses[..], [Address::Unix(_), Address::Tcp(_)]), "{:?}", started.addresses);
        assert!(matches!(healthy(&started), Address::Tcp(_)));
        let found = backend.running().await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].started, &found[0].name), (&started, &deployment.name));
        assert_eq!(found[0].digest, deployment.digest);
        backend.stop(&started.id).await.unwrap();
        backend.stop(&started.id).await.unwrap();
        backend.forget(&deployment).await.unwrap();
        backend.sweep(&[]).await.unwrap();
    });
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn a_function_is_called_over_the_socket_in_an_image_of_our_own() {
    let Some(bench) = Bench::new("binary") else { return };
    let backend = bench.on_base();
    let deployment = bench.deployment("hello", Runtime::Binary, &[("fn.sh", "cat; echo $GREETING; id -u")]);
    run(async {
        soon("prepare", backend.prepare(&deployment)).await.unwrap();
        let started = soon("start", backend.start(&deployment)).await.unwrap();
        assert!(matches!(started.addresses[..], [Address::Unix(_)]), "{started:?}");
        let address = healthy(&started);
        assert_eq!(ask(&address, &post("body")).unwrap(), (200, "bodyhello\n65534\n".into()));
        backend.stop(&started.id).await.unwrap();
        backend.forget(&deployment).await.unwrap();
        backend.sweep(&[]).await.unwrap();
    });
    // The runtime's image is kept: it serves every function.
    assert_eq!(bench.left().iter().filter(|l| !l.starts_with("images ")).count(), 0);
}

#[test]
fn dependencies_are_installed_once_and_go_with_the_version() {
    let Some(bench) = Bench::new("dependencies") else { return };
    let backend = bench.on_base();
    let code = "import six\ndef fn(input):\n    return six.__version__ + (input or '')\n";
    let deployment =
        bench.deployment("Deps", Runtime::Python3, &[("fn.py", code), ("requirements.txt", "# one\nsix==1.16.0\n")]);
    run(async {
        soon("prepare", backend.prepare(&deployment)).await.unwrap();
        let installed = bench.functions_images();
        assert_eq!(installed.len(), 1);
        soon("prepare", backend.prepare(&deployment)).await.unwrap();
        assert_eq!(bench.functions_images(), installed);
        let started = soon("start", backend.start(&deployment)).await.unwrap();
        assert_eq!(ask(&healthy(&started), &post("!")).unwrap(), (200, "1.16.0!".into()));
        backend.sweep(std::slice::from_ref(&deployment)).await.unwrap();
        assert_eq!(bench.functions_images(), installed);
        backend.stop(&started.id).await.unwrap();
        backend.forget(&deployment).await.unwrap();
        backend.forget(&deployment).await.unwrap();
        assert_eq!(bench.functions_images(), [""; 0]);
    });
    assert_eq!(bench.containers(), [""; 0]);
}

#[test]
fn node_modules_are_installed_from_package_json() {
    let Some(bench) = Bench::new("node modules") else { return };
    let backend = bench.on_base();
    let package = r#"{"name":"fn","version":"1.0.0","main":"fn.js","dependencies":{"dep":"file:./dep"}}"#;
    let deployment = bench.deployment(
        "modules",
        Runtime::Nodejs,
        &[
            ("package.json", package),
            ("fn.js", "const dep = require('dep'); module.exports = (req, res) => res.send(dep + req.body);"),
            ("dep/package.json", r#"{"name":"dep","version":"1.0.0","main":"dep.js"}"#),
            ("dep/dep.js", "module.exports = 'dep:';"),
        ],
    );
    run(async {
        soon("prepare", backend.prepare(&deployment)).await.unwrap();
        let started = soon("start", backend.start(&deployment)).await.unwrap();
        assert_eq!(ask(&healthy(&started), &post("x")).unwrap(), (200, "dep:x".into()));
    });
}

#[test]
fn an_installation_that_fails_returns_its_log_and_leaves_nothing() {
    let Some(bench) = Bench::new("failed installation") else { return };
    let backend = bench.on_base();
    let files = [("fn.py", "def fn(input): pass\n"), ("requirements.txt", "./no-such-folder\n")];
    let deployment = bench.deployment("nodeps", Runtime::Python3, &files);
    let error = run(async { soon("prepare", backend.prepare(&deployment)).await.unwrap_err() });
    assert_eq!(error.kind, BackendErrorKind::Function);
    assert!(error.text.starts_with("the installation of dependencies failed: it exited with status 1\n"), "{error}");
    assert!(error.text.contains("no-such-folder"), "{error}");
    assert!(error.text.len() < 17 * 1024);
    run(async { backend.sweep(&[]).await.unwrap() });
    assert_eq!(bench.functions_images(), [""; 0]);
    assert_eq!(bench.containers(), [""; 0]);
}

#[test]
fn an_installation_that_takes_too_long_is_ended() {
    let Some(bench) = Bench::new("slow installation") else { return };
    let mut config = bench.on_base_config();
    config.install_timeout = Duration::from_millis(1);
    let backend = bench.backend(config);
    let files = [("fn.py", "def fn(input): pass\n"), ("requirements.txt", "six\n")];
    let deployment = bench.deployment("slow", Runtime::Python3, &files);
    let error = run(async { soon("prepare", backend.prepare(&deployment)).await.unwrap_err() });
    assert_eq!(error.kind, BackendErrorKind::Function);
    assert!(error.text.starts_with("the installation of dependencies took longer than 1ms"), "{error}");
    assert_eq!(bench.containers(), [""; 0]);
}

#[test]
fn a_base_image_that_is_not_there_is_named_with_what_to_do() {
    let Some(bench) = Bench::new("missing base") else { return };
    let mut config = bench.config();
    config.bases.push((Runtime::Binary, "localhost:1/no-such-base:1".into()));
    let backend = bench.backend(config);
    let deployment = bench.deployment("lost", Runtime::Binary, &[("fn.sh", "")]);
    let error = run(async { soon("prepare", backend.prepare(&deployment)).await.unwrap_err() });
    assert_eq!(error.kind, BackendErrorKind::Engine);
    let start =
        "the base image localhost:1/no-such-base:1 for binary is not on the engine and cannot be pulled: load it";
    assert!(error.text.starts_with(start), "{error}");
    assert!(error.text.contains("--runtime-base binary=IMAGE"), "{error}");
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn an_executable_that_needs_a_loader_is_refused() {
    let Some(bench) = Bench::new("dynamic executable") else { return };
    let mut config = bench.config();
    config.bases.push((Runtime::Binary, BUSYBOX.into()));
    config.executable = "/bin/sh".into();
    let backend = bench.backend(config);
    let deployment = bench.deployment("dynamic", Runtime::Binary, &[("fn.sh", "")]);
    let error = run(async { soon("prepare", backend.prepare(&deployment)).await.unwrap_err() });
    assert!(error.text.contains("/bin/sh is not a static executable"), "{error}");
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn containers_are_hardened_limited_and_labelled() {
    let Some(bench) = Bench::new("hardened") else { return };
    let backend = bench.foreign(HTTPD);
    let deployment = bench.deployment("Hard", Runtime::Binary, &[("fn.sh", "")]);
    let started = run(async { soon("start", backend.start(&deployment)).await.unwrap() });
    let id = &started.id;
    for (format, expected) in [
        ("{{.Config.User}}", "65534:65534"),
        ("{{.HostConfig.CapDrop}}", "[ALL]"),
        ("{{.HostConfig.SecurityOpt}}", "[no-new-privileges]"),
        ("{{.HostConfig.PidsLimit}}", "64"),
        ("{{.HostConfig.Memory}}", "67108864"),
        ("{{.HostConfig.MemorySwap}}", "67108864"),
        ("{{.HostConfig.NanoCpus}}", "1000000000"),
        ("{{.HostConfig.Init}}", "true"),
        ("{{.HostConfig.RestartPolicy.Name}}", "no"),
        ("{{.HostConfig.LogConfig.Config}}", "map[max-file:2 max-size:524288]"),
        ("{{index .Config.Labels \"tinyFaaS\"}}", &bench.instance),
        ("{{index .Config.Labels \"tinyfaas-function\"}}", "Hard"),
        ("{{index .Config.Labels \"tinyfaas-digest\"}}", &deployment.digest),
    ] {
        let found = inspect(id, format);
        assert!(found == expected || expected == "no" && found.is_empty(), "{format}: {found}");
    }
    let envs = inspect(id, "{{.Config.Env}}");
    for env in ["GREETING=hello", "TINYFAAS_CONCURRENCY=4", "TINYFAAS_SOCKET=/run/tinyfaas/fn.sock"] {
        assert!(envs.contains(env), "{envs}");
    }
    let network = inspect(&format!("tinyfaas-{}", bench.instance), "{{.Options}}");
    assert!(network.contains("enable_icc:false"), "{network}");
}

#[test]
fn a_container_that_exits_is_noticed_with_its_status_and_its_log_is_there() {
    let Some(bench) = Bench::new("exit") else { return };
    let script = "echo out; echo err >&2; sleep 0.3; exit 7";
    let backend = bench.foreign(script);
    let deployment = bench.deployment("exits", Runtime::Binary, &[("fn.sh", "")]);
    run(async {
        let started = soon("start", backend.start(&deployment)).await.unwrap();
        assert_eq!(soon("exit", backend.exited(&started.id)).await, "it exited with status 7");
        // Again, of one that exited before it was asked.
        assert_eq!(soon("exit", backend.exited(&started.id)).await, "it exited with status 7");
        let mut lines = logs(&backend, &started.id, None).await;
        assert!(lines.iter().all(|l| l.timestamp.starts_with("20") && l.timestamp.ends_with('Z')), "{lines:?}");
        lines.sort_by(|a, b| a.text.cmp(&b.text));
        let texts: Vec<_> = lines.iter().map(|l| l.text.as_slice()).collect();
        assert_eq!(texts, [&b"err"[..], b"out"]);
        assert!(backend.running().await.unwrap().is_empty());
        backend.stop(&started.id).await.unwrap();
        assert_eq!(soon("exit", backend.exited(&started.id)).await, "its container was removed");
        assert_eq!(logs(&backend, &started.id, None).await, []);
    });
}

#[test]
fn many_exits_are_noticed_over_one_connection() {
    let Some(bench) = Bench::new("exits") else { return };
    let backend = bench.foreign("while :; do sleep 1; done");
    let deployment = bench.deployment("many", Runtime::Binary, &[("fn.sh", "")]);
    run(async {
        let mut waits = Vec::new();
        for _ in 0..4 {
            let id = soon("start", backend.start(&deployment)).await.unwrap().id;
            let (backend, watched) = (backend.clone(), id.clone());
            waits.push((id, EXECUTOR.spawn(async move { backend.exited(&watched).await })));
        }
        for (id, _) in &waits {
            assert!(Command::new("docker").args(["kill", id]).output().unwrap().status.success());
        }
        for (_, exit) in waits {
            assert_eq!(soon("exit", exit).await, "it was killed by signal 9");
        }
    });
}

#[test]
fn a_handler_that_takes_too_much_memory_is_said_to_be_out_of_it() {
    let Some(bench) = Bench::new("memory") else { return };
    let script = "a=0123456789abcdef; while :; do a=$a$a; done";
    let backend = bench.foreign(script);
    let deployment = bench.deployment("eats", Runtime::Binary, &[("fn.sh", "")]);
    run(async {
        let started = soon("start", backend.start(&deployment)).await.unwrap();
        assert_eq!(soon("exit", backend.exited(&started.id)).await, "it was killed: out of memory");
    });
}

#[test]
fn long_lines_are_cut_and_only_the_tail_is_sent() {
    let Some(bench) = Bench::new("log lines") else { return };
    // Longer than the 16 KiB at which the engine breaks lines.
    let script = "echo first; head -c 40000 /dev/zero | tr '\\0' x; echo; echo last";
    let backend = bench.foreign(script);
    let deployment = bench.deployment("talks", Runtime::Binary, &[("fn.sh", "")]);
    run(async {
        let started = soon("start", backend.start(&deployment)).await.unwrap();
        soon("exit", backend.exited(&started.id)).await;
        let lines = logs(&backend, &started.id, None).await;
        let lengths: Vec<_> = lines.iter().map(|l| l.text.len()).collect();
        assert_eq!(lengths, [5, 8192, 4]);
        assert!(lines[1].text.ends_with(b"x [cut]"));
        let tail = logs(&backend, &started.id, Some(1)).await;
        assert_eq!(tail.len(), 1);
        assert_eq!(tail[0].text, b"last");
        // A reader that has enough is no error.
        let (sender, receiver) = async_channel::bounded(1);
        drop(receiver);
        backend.logs(&started.id, None, sender).await.unwrap();
    });
}

#[test]
fn a_container_that_cannot_be_started_is_an_error_and_leaves_nothing() {
    let Some(bench) = Bench::new("failed start") else { return };
    let mut config = bench.with_image(BUSYBOX);
    config.network = Network::Named("no-such-network".into());
    let backend = bench.backend(config);
    let deployment = bench.deployment("broken", Runtime::Binary, &[("fn.sh", "")]);
    let error = run(async { soon("start", backend.start(&deployment)).await.unwrap_err() });
    assert_eq!(error.kind, BackendErrorKind::Engine);
    assert!(error.text.starts_with("the engine did not start a container for broken: "), "{error}");
    assert!(error.text.contains("no-such-network"), "{error}");
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let Some(bench) = Bench::new("missing image") else { return };
    let backend = bench.backend(bench.with_image("tinyfaas-no-such-image:1"));
    let deployment = bench.deployment("lost", Runtime::Binary, &[("fn.sh", "")]);
    run(async {
        for error in [backend.prepare(&deployment).await.unwrap_err(), backend.start(&deployment).await.unwrap_err()] {
            assert_eq!(error.kind, BackendErrorKind::Engine);
            assert!(
                error.text.contains("the image tinyfaas-no-such-image:1 for binary is not on the engine"),
                "{error}"
            );
            assert!(error.text.contains("docker load"), "{error}");
        }
        backend.sweep(&[]).await.unwrap();
    });
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn a_start_that_is_given_up_leaves_nothing() {
    let Some(bench) = Bench::new("given up") else { return };
    let backend = bench.foreign(HTTPD);
    let deployment = bench.deployment("dropped", Runtime::Binary, &[("fn.sh", "")]);
    run(async {
        // Dropped once the container is there.
        let created = async {
            while bench.containers().is_empty() {
                Timer::after(Duration::from_millis(1)).await;
            }
        };
        let start = async { drop(backend.start(&deployment).await.unwrap()) };
        soon("the container", created.or(start)).await;
        soon("its removal", async {
            while !bench.containers().is_empty() {
                Timer::after(Duration::from_millis(10)).await;
            }
        })
        .await;
        backend.sweep(&[]).await.unwrap();
    });
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn sweep_keeps_what_is_deployed_and_running_and_removes_the_rest() {
    let Some(bench) = Bench::new("sweep") else { return };
    let backend = bench.foreign(HTTPD);
    let kept = bench.deployment("kept", Runtime::Binary, &[("fn.sh", "1")]);
    let gone = bench.deployment("gone", Runtime::Binary, &[("fn.sh", "2")]);
    run(async {
        let stays = soon("start", backend.start(&kept)).await.unwrap();
        let killed = soon("start", backend.start(&kept)).await.unwrap();
        let goes = soon("start", backend.start(&gone)).await.unwrap();
        assert!(Command::new("docker").args(["kill", &killed.id]).output().unwrap().status.success());
        soon("exit", backend.exited(&killed.id)).await;
        // As another process after a restart.
        let backend = bench.foreign(HTTPD);
        backend.sweep(std::slice::from_ref(&kept)).await.unwrap();
        let found = backend.running().await.unwrap();
        assert_eq!(found.iter().map(|f| &f.started).collect::<Vec<_>>(), [&stays]);
        assert_eq!(soon("exit", backend.exited(&goes.id)).await, "its container was removed");
        assert_eq!(bench.left().iter().filter(|l| l.contains("/run/")).count(), 1);
        backend.sweep(&[]).await.unwrap();
    });
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn clean_removes_one_instance_and_says_what_it_was() {
    let Some(bench) = Bench::new("clean") else { return };
    let Some(other) = Bench::new("clean") else { return };
    let deployment = bench.deployment("cleaned", Runtime::Binary, &[("fn.sh", "")]);
    let stays = other.deployment("stays", Runtime::Binary, &[("fn.sh", "")]);
    run(async {
        let started = soon("start", bench.foreign(HTTPD).start(&deployment)).await.unwrap();
        soon("start", other.foreign(HTTPD).start(&stays)).await.unwrap();
        let engine = EngineAddress::parse(EngineAddress::DEFAULT).unwrap();
        let removed = docker::clean(engine, &EXECUTOR, Workers::new(), Some(&bench.instance)).await.unwrap();
        let made = [format!("container {}", started.id), format!("network tinyfaas-{}", bench.instance)];
        assert_eq!(removed[..2], made);
        assert!(matches!(&removed[2..], [image] if image.starts_with("image tinyfaas-it-")), "{removed:?}");
    });
    assert_eq!(bench.containers(), [""; 0]);
    assert_eq!(other.containers().len(), 1);
}

#[test]
fn clean_leaves_a_runtime_s_image_that_another_instance_runs_on() {
    let Some(bench) = Bench::new("shared image") else { return };
    let Some(other) = Bench::new("shared image") else { return };
    // A base of our own, so that no other test has made its image.
    let base = format!("tinyfaas-it-base:{}", bench.instance);
    assert!(Command::new("docker").args(["tag", BUSYBOX, &base]).status().unwrap().success());
    let on_base = |bench: &Bench| {
        let mut config = bench.config();
        config.bases.push((Runtime::Binary, base.clone()));
        bench.backend(config)
    };
    let mine = bench.deployment("mine", Runtime::Binary, &[("fn.sh", "cat")]);
    let theirs = other.deployment("theirs", Runtime::Binary, &[("fn.sh", "cat")]);
    let clean = |instance: &str| {
        let engine = EngineAddress::parse(EngineAddress::DEFAULT).unwrap();
        let instance = instance.to_owned();
        async move { docker::clean(engine, &EXECUTOR, Workers::new(), Some(&instance)).await.unwrap() }
    };
    run(async {
        soon("prepare", on_base(&bench).prepare(&mine)).await.unwrap();
        let backend = on_base(&other);
        soon("prepare", backend.prepare(&theirs)).await.unwrap();
        let started = soon("start", backend.start(&theirs)).await.unwrap();
        let removed = clean(&bench.instance).await;
        assert!(!removed.iter().any(|line| line.contains("tinyfaas-binary:")), "{removed:?}");
        assert_eq!(ask(&healthy(&started), &post("x")).unwrap(), (200, "x".into()));
        clean(&other.instance).await;
        let removed = clean(&bench.instance).await;
        assert!(matches!(&removed[..], [image] if image.starts_with("image tinyfaas-binary:")), "{removed:?}");
        // The image is gone under a backend that has made it: it is made again.
        let started = soon("start", backend.start(&theirs)).await.unwrap();
        assert_eq!(ask(&healthy(&started), &post("x")).unwrap(), (200, "x".into()));
    });
    assert!(Command::new("docker").args(["rmi", &base]).output().unwrap().status.success());
}

#[test]
fn sweep_removes_a_runtime_s_image_of_another_version_once_nothing_runs_on_it() {
    let Some(bench) = Bench::new("old image") else { return };
    let base = format!("tinyfaas-it-base:{}", bench.instance);
    assert!(Command::new("docker").args(["tag", BUSYBOX, &base]).status().unwrap().success());
    let mut old = bench.config();
    old.bases.push((Runtime::Binary, base.clone()));
    let old = bench.backend(old);
    let function = bench.deployment("f", Runtime::Binary, &[("fn.sh", "cat")]);
    let images = || {
        let label = format!("label=tinyFaaS={}", bench.instance);
        let out = Command::new("docker").args(["images", "-q", "--filter", &label]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).lines().count()
    };
    run(async {
        soon("prepare", old.prepare(&function)).await.unwrap();
        let started = soon("start", old.start(&function)).await.unwrap();
        old.sweep(std::slice::from_ref(&function)).await.unwrap();
        assert_eq!(images(), 1, "the version that runs now");
        let new = bench.on_base();
        new.sweep(std::slice::from_ref(&function)).await.unwrap();
        assert_eq!(images(), 1, "a handler that was taken over runs on it");
        assert_eq!(ask(&healthy(&started), &post("x")).unwrap(), (200, "x".into()));
        new.sweep(&[]).await.unwrap();
        assert_eq!(images(), 0);
    });
    assert!(Command::new("docker").args(["rmi", &base]).output().unwrap().status.success());
}

#[test]
fn two_stops_at_once_and_a_removal_by_hand_are_no_error() {
    let Some(bench) = Bench::new("races") else { return };
    let backend = bench.foreign(HTTPD);
    let deployment = bench.deployment("raced", Runtime::Binary, &[("fn.sh", "")]);
    run(async {
        let started = soon("start", backend.start(&deployment)).await.unwrap();
        let stops = futures_lite::future::zip(backend.stop(&started.id), backend.stop(&started.id));
        let (a, b) = soon("stop", stops).await;
        a.unwrap();
        b.unwrap();
        let started = soon("start", backend.start(&deployment)).await.unwrap();
        assert!(Command::new("docker").args(["rm", "-f", &started.id]).output().unwrap().status.success());
        backend.stop(&started.id).await.unwrap();
        backend.sweep(&[]).await.unwrap();
    });
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn an_engine_that_is_not_there_is_unreachable_and_used_once_it_came() {
    let Some(bench) = Bench::new("late engine") else { return };
    let socket = bench.dir.join("late.sock");
    let mut config = bench.config();
    config.engine = EngineAddress::parse(&format!("unix://{}", socket.display())).unwrap();
    let backend = bench.backend(config);
    run(async {
        let error = backend.probe(PATIENCE).await.unwrap_err();
        assert_eq!(error.kind, BackendErrorKind::Unreachable);
        assert!(error.text.contains("no Docker engine answers at unix:///"), "{error}");
        std::os::unix::fs::symlink("/var/run/docker.sock", &socket).unwrap();
        backend.probe(PATIENCE).await.unwrap();
    });
}

#[test]
fn a_remote_engine_is_used_over_tcp_and_its_handlers_by_published_ports() {
    let Some(bench) = Bench::new("remote engine") else { return };
    let mut config = bench.config();
    config.engine = Proxy::new().address();
    config.images.push((Runtime::Binary, bench.image(HTTPD)));
    let backend = bench.backend(config);
    let deployment = bench.deployment("remote", Runtime::Binary, &[("fn.sh", "")]);
    run(async {
        backend.prepare(&deployment).await.unwrap();
        let started = soon("start", backend.start(&deployment)).await.unwrap();
        assert!(matches!(started.addresses[..], [Address::Tcp(addr)] if addr.ip().is_loopback()), "{started:?}");
        healthy(&started);
        assert_eq!(backend.running().await.unwrap()[0].started, started);
        assert!(inspect(&started.id, "{{.HostConfig.PortBindings}}").contains("127.0.0.1"));
        let exit = EXECUTOR.spawn({
            let (backend, id) = (backend.clone(), started.id.clone());
            async move { backend.exited(&id).await }
        });
        backend.stop(&started.id).await.unwrap();
        soon("exit", exit).await;
        backend.sweep(&[]).await.unwrap();
    });
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn an_exit_while_the_engine_was_away_is_noticed_when_it_is_back() {
    let Some(bench) = Bench::new("engine away") else { return };
    let proxy = Proxy::new();
    let mut config = bench.config();
    config.engine = proxy.address();
    config.images.push((Runtime::Binary, bench.image(HTTPD)));
    let backend = bench.backend(config);
    let deployment = bench.deployment("away", Runtime::Binary, &[("fn.sh", "")]);
    run(async {
        let id = soon("start", backend.start(&deployment)).await.unwrap().id;
        let exit = EXECUTOR.spawn({
            let (backend, id) = (backend.clone(), id.clone());
            async move { backend.exited(&id).await }
        });
        // One connection stays: the events'. What else there is ends with its answer.
        let mut steady = 0;
        soon("the events", async {
            while steady < 20 {
                steady = if proxy.connections() == 1 { steady + 1 } else { 0 };
                Timer::after(Duration::from_millis(10)).await;
            }
        })
        .await;
        proxy.cut();
        assert_eq!(backend.stop(&id).await.unwrap_err().kind, BackendErrorKind::Unreachable);
        assert!(Command::new("docker").args(["kill", &id]).output().unwrap().status.success());
        proxy.mend();
        assert_eq!(soon("exit", exit).await, "it was killed by signal 9");
        soon("the end of the connection", async {
            while proxy.connections() > 0 {
                Timer::after(Duration::from_millis(10)).await;
            }
        })
        .await;
    });
}

#[test]
fn sixty_handlers_fit_on_one_engine() {
    const HANDLERS: usize = 60;
    const AT_ONCE: usize = 6;
    let Some(bench) = Bench::new("sixty") else { return };
    let backend = bench.foreign(HTTPD);
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|task| {
            let backend = backend.clone();
            let deployment = bench.deployment(&format!("f{task}"), Runtime::Binary, &[("fn.sh", "")]);
            EXECUTOR.spawn(async move {
                for _ in 0..HANDLERS / AT_ONCE {
                    backend.start(&deployment).await.unwrap();
                }
            })
        })
        .collect();
    run(async {
        for task in tasks {
            task.await;
        }
        let found = backend.running().await.unwrap();
        assert_eq!(found.len(), HANDLERS);
        for handler in &found {
            healthy(&handler.started);
        }
        backend.sweep(&[]).await.unwrap();
    });
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn tcp_is_the_only_address_where_the_operator_wants_no_socket() {
    let Some(bench) = Bench::new("reach tcp") else { return };
    let mut config = bench.config();
    config.reach = Reach::Tcp;
    config.images.push((Runtime::Binary, bench.image(HTTPD)));
    let backend = bench.backend(config);
    let deployment = bench.deployment("bridge", Runtime::Binary, &[("fn.sh", "")]);
    let started = run(async { soon("start", backend.start(&deployment)).await.unwrap() });
    assert!(matches!(started.addresses[..], [Address::Tcp(_)]), "{started:?}");
    healthy(&started);
    assert_eq!(inspect(&started.id, "{{len .Mounts}}"), "0");
}

#[test]
fn a_state_directory_that_is_too_deep_for_sockets_is_refused() {
    let engine = EngineAddress::parse(EngineAddress::DEFAULT).unwrap();
    let config = |dir: &Path| Config::new(engine.clone(), "a".into(), dir.into());
    let refused = |config| Docker::new(config, &EXECUTOR, Workers::new()).map(drop).unwrap_err();
    let fits = format!("/{}", "d".repeat(107 - 1 - "/run/00000000/fn.sock".len()));
    Docker::new(config(Path::new(&fits)), &EXECUTOR, Workers::new()).map(drop).unwrap();
    let error = refused(config(&Path::new(&fits).with_extension("d")));
    assert!(error.contains("socket paths of 109 bytes and the system takes 107"), "{error}");
    let mut bad = config(Path::new("/s"));
    bad.instance = "a/b".into();
    assert!(refused(bad).contains("bad instance id"));
}

/// Both ends of the connections that are open; `None` while none is let through.
type Open = Option<Vec<(TcpStream, UnixStream)>>;

/// Passes connections to a loopback port on to the engine, while it is let.
#[derive(Clone)]
struct Proxy {
    port: u16,
    open: Arc<Mutex<Open>>,
    count: Arc<AtomicUsize>,
}

impl Proxy {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self { port, open: Arc::new(Mutex::new(Some(Vec::new()))), count: Arc::default() };
        let (open, count) = (Arc::clone(&proxy.open), Arc::clone(&proxy.count));
        thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                let mut open = open.lock().unwrap();
                let Some(open) = open.as_mut() else { continue };
                let engine = UnixStream::connect("/var/run/docker.sock").unwrap();
                open.push((client.try_clone().unwrap(), engine.try_clone().unwrap()));
                let (mut up, mut down) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
                count.fetch_add(1, Ordering::SeqCst);
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    let (mut from, mut to) = (client, engine);
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                    count.fetch_sub(1, Ordering::SeqCst);
                });
                thread::spawn(move || {
                    let _ = std::io::copy(&mut down, &mut up);
                    let _ = up.shutdown(Shutdown::Both);
                });
            }
        });
        proxy
    }

    fn address(&self) -> EngineAddress {
        EngineAddress::parse(&format!("tcp://localhost:{}", self.port)).unwrap()
    }

    /// Connections that our side has not ended.
    fn connections(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Ends all connections, and every new one at once.
    fn cut(&self) {
        for (client, engine) in self.open.lock().unwrap().take().into_iter().flatten() {
            let _ = client.shutdown(Shutdown::Both);
            let _ = engine.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    fn mend(&self) {
        *self.open.lock().unwrap() = Some(Vec::new());
    }
}
