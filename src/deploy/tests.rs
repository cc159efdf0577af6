//! Deployments on a backend that a test plays: what is started, stopped and forgotten, and when it fails.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_lite::future;

use super::*;
use crate::backend::{BackendErrorKind, Boxed, Found, Lines, Progress, Started};
use crate::buffers::Buffers;
use crate::call::{Body, Call, Failure, Method, Protocol};
use crate::call_id::CallId;
use crate::function::Limits;
use crate::function::Runtime;
use crate::net::Address;
use crate::reactor::Timer;
use crate::store::disk::BROKEN;
use crate::wire::headers::Headers;
use crate::wire::zip::Writer;

mod sleeping;
mod stopping;

/// Handlers that answer with the digest of what they run.
#[derive(Default)]
struct Played {
    next: AtomicUsize,
    dir: PathBuf,
    /// Ids of handlers that run.
    alive: Mutex<BTreeSet<String>>,
    /// Notified when a handler ends.
    ended: event_listener::Event,
    forgotten: Mutex<Vec<String>>,
    /// Whether a start gives a handler that ends at once.
    broken: Mutex<bool>,
    /// Whether the engine cannot be reached.
    away: Mutex<bool>,
    found: Mutex<Vec<Found>>,
    /// Whether a sweep never ends.
    sweeps: Mutex<bool>,
}

impl Played {
    fn start_thread(&self, digest: &str) -> Started {
        let id = format!("h{}", self.next.fetch_add(1, Ordering::Relaxed));
        let path = self.dir.join(&id);
        let listener = UnixListener::bind(&path).unwrap();
        let digest = digest.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let digest = digest.clone();
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    let mut line = String::new();
                    while stream.read_line(&mut line).unwrap_or(0) > 0 {
                        if line.ends_with("\r\n\r\n") {
                            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{digest}", digest.len());
                            let _ = stream.get_mut().write_all(answer.as_bytes());
                            line.clear();
                        }
                    }
                });
            }
        });
        lock(&self.alive).insert(id.clone());
        Started { id, addresses: vec![Address::Unix(path)] }
    }

    fn end(&self, id: &str) {
        lock(&self.alive).remove(id);
        let _ = std::fs::remove_file(self.dir.join(id));
        self.ended.notify(usize::MAX);
    }

    fn reach(&self) -> Result<(), BackendError> {
        let away = || BackendError { kind: BackendErrorKind::Unreachable, text: "no engine".into() };
        if *lock(&self.away) { Err(away()) } else { Ok(()) }
    }

    fn alive(&self) -> Vec<String> {
        lock(&self.alive).iter().cloned().collect()
    }
}

impl Backend for Played {
    fn name(&self) -> &'static str {
        "played"
    }

    fn prepare<'a>(&'a self, _: &'a Deployment, _: &'a Progress) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(async { Ok(()) })
    }

    fn start<'a>(&'a self, deployment: &'a Deployment) -> Boxed<'a, Result<Started, BackendError>> {
        Box::pin(async {
            let started = self.start_thread(&deployment.digest);
            if *lock(&self.broken) {
                self.end(&started.id);
            }
            Ok(started)
        })
    }

    fn exited<'a>(&'a self, id: &'a str) -> Boxed<'a, String> {
        Box::pin(async move {
            loop {
                let ended = self.ended.listen();
                if !lock(&self.alive).contains(id) {
                    return "exit status 1".into();
                }
                ended.await;
            }
        })
    }

    fn stop<'a>(&'a self, id: &'a str) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(async {
            self.reach()?;
            self.end(id);
            Ok(())
        })
    }

    fn forget<'a>(&'a self, deployment: &'a Deployment) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(async {
            self.reach()?;
            lock(&self.forgotten).push(deployment.digest.clone());
            Ok(())
        })
    }

    fn logs<'a>(
        &'a self,
        _: &'a str,
        _: Lines,
        lines: async_channel::Sender<LogLine>,
    ) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let _ = lines.send(LogLine { timestamp: String::new(), text: b"its last words".to_vec() }).await;
            Ok(())
        })
    }

    fn resident(&self, _id: &str) -> Option<u64> {
        None
    }

    fn running(&self) -> Boxed<'_, Result<Vec<Found>, BackendError>> {
        Box::pin(async {
            self.reach()?;
            Ok(std::mem::take(&mut *lock(&self.found)))
        })
    }

    fn sweep<'a>(&'a self, _: &'a [Deployment]) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(async {
            if *lock(&self.sweeps) {
                future::pending::<()>().await;
            }
            Ok(())
        })
    }
}

struct Stage {
    dir: PathBuf,
    backend: Arc<Played>,
    dispatch: Arc<Dispatch>,
    store: Arc<Store>,
    deployer: Arc<Deployer>,
    executor: &'static StaticExecutor,
    /// What functions are deployed with.
    idle: Mutex<Option<Duration>>,
    queue: Mutex<usize>,
}

impl Stage {
    fn new(tag: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("tinyfaas-deploy-{tag}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let stage = Self::on(dir, Played::default());
        stage.run(stage.restore());
        stage
    }

    fn on(dir: PathBuf, mut backend: Played) -> Self {
        let executor: &'static StaticExecutor = Box::leak(Box::new(StaticExecutor::new()));
        let store = Arc::new(Store::open(&dir).unwrap());
        backend.dir = store.run_dir();
        let backend = Arc::new(backend);
        let dispatch = Arc::new(Dispatch::new(Buffers::default()));
        let bounds = Bounds { functions: 2, health_timeout: Duration::from_secs(20), drain: Duration::from_secs(20) };
        let deployer = Arc::new(Deployer::new(
            Arc::clone(&backend) as Arc<dyn Backend>,
            Arc::clone(&dispatch),
            Arc::clone(&store),
            Workers::new(),
            executor,
            bounds,
        ));
        Self { dir, backend, dispatch, store, deployer, executor, idle: Mutex::default(), queue: Mutex::new(8) }
    }

    /// Starts anew on a copy of the state, as after a power cut; handlers of `self` stay as they are.
    fn again(&self, backend: Played) -> Self {
        let dir = self.dir.with_extension("again");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("functions")).unwrap();
        for function in self.store.load().unwrap() {
            let name = function.package.file_name().unwrap().to_owned();
            std::fs::copy(function.package, dir.join("functions").join(name)).unwrap();
        }
        Self::on(dir, backend)
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        crate::reactor::block_on(self.executor.run(future))
    }

    /// What a start does with what is stored.
    async fn restore(&self) {
        let stored = self.deployer.load().await.unwrap();
        self.deployer.restore(stored).await;
    }

    async fn deploy(&self, name: &str, content: &str, threads: usize) -> Result<(), DeployError> {
        let mut writer = Writer::new(self.store.spool().unwrap());
        writer.file("fn.sh", 0o755, &mut content.as_bytes()).unwrap();
        let request = Deploy {
            name: Name::parse(name).unwrap(),
            runtime: Runtime::BINARY,
            image: None,
            threads,
            envs: Vec::new(),
            limits: Limits { queue: *lock(&self.queue), ..limits() },
            auth: Vec::new(),
            network: true,
            idle: *lock(&self.idle),
            subfolder: String::new(),
            origin: Origin::Upload,
        };
        self.deployer.deploy(request, writer.finish().unwrap()).await
    }

    async fn call(&self, name: &str) -> String {
        self.try_call(name).await.unwrap()
    }

    async fn try_call(&self, name: &str) -> Result<String, Failure> {
        let headers = Headers::new();
        let call = Call {
            id: &CallId::make(),
            function: name,
            method: Method::Get,
            path: "",
            query: "",
            headers: &headers,
            body: Body::Bytes(b""),
            token: None,
            deadline: None,
            protocol: Protocol::Http,
            client: None,
        };
        let mut reply = self.dispatch.call(call).await?;
        let text = String::from_utf8(reply.chunk().await?.to_vec()).unwrap();
        // To its end: only then the handler is free.
        assert!(reply.chunk().await?.is_empty());
        Ok(text)
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !done(self) {
            assert!(Instant::now() < end, "waited in vain until {what}");
            Timer::after(Duration::from_millis(2)).await;
        }
    }

    fn digest(&self, name: &str) -> String {
        self.deployer.get(&Name::parse(name).unwrap()).unwrap().deployment().digest.clone()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn limits() -> Limits {
    Limits { memory: 0, cpu_millis: 0, pids: 0, timeout: Duration::from_secs(20), concurrency: 2, queue: 8 }
}

#[test]
fn a_new_version_takes_over_and_the_old_one_is_forgotten() {
    let stage = Stage::new("swap");
    stage.run(async {
        stage.deploy("f", "one", 2).await.unwrap();
        let old = stage.digest("f");
        assert_eq!((stage.call("f").await, stage.backend.alive().len()), (old.clone(), 2));
        stage.deploy("f", "two", 1).await.unwrap();
        assert_ne!(stage.call("f").await, old);
        stage.until("the old handlers are gone", |s| s.backend.alive().len() == 1).await;
        stage.until("the old version is forgotten", |s| lock(&s.backend.forgotten).len() == 1).await;
        assert_eq!(*lock(&stage.backend.forgotten), [old]);
    });
}

#[test]
fn the_same_version_again_has_new_handlers_and_is_not_forgotten() {
    let stage = Stage::new("same");
    stage.run(async {
        stage.deploy("f", "one", 1).await.unwrap();
        let before = stage.backend.alive();
        stage.deploy("f", "one", 1).await.unwrap();
        stage.until("the old handler is gone", |s| s.backend.alive().len() == 1).await;
        assert_ne!(stage.backend.alive(), before);
        stage.deployer.delete(&Name::parse("f").unwrap()).await.unwrap();
        assert_eq!(lock(&stage.backend.forgotten).len(), 1, "only when it was deleted");
        assert!(stage.backend.alive().is_empty() && stage.store.load().unwrap().is_empty());
    });
}

#[test]
fn a_deployment_that_fails_leaves_the_old_version_and_nothing_of_its_own() {
    let stage = Stage::new("fails");
    stage.run(async {
        stage.deploy("f", "one", 1).await.unwrap();
        let (old, alive) = (stage.digest("f"), stage.backend.alive());
        *lock(&stage.backend.broken) = true;
        let error = stage.deploy("f", "two", 3).await.unwrap_err();
        assert_eq!(error.status, 422);
        assert!(error.text.contains("exit status 1") && error.text.ends_with("\nits last words"), "{error}");
        assert_eq!((stage.call("f").await, stage.backend.alive()), (old.clone(), alive));
        assert!(!lock(&stage.backend.forgotten).contains(&old));
        assert_eq!(stage.store.load().unwrap()[0].digest, old);
        assert_eq!(std::fs::read_dir(stage.dir.join("spool")).unwrap().count(), 0);
    });
}

#[test]
fn a_handler_that_ends_is_replaced() {
    let stage = Stage::new("ends");
    stage.run(async {
        stage.deploy("f", "one", 2).await.unwrap();
        let before = stage.backend.alive();
        stage.backend.end(&before[0]);
        stage.until("another one runs", |s| s.backend.alive().len() == 2 && s.backend.alive() != before).await;
        stage.until("it takes calls", |s| s.dispatch.function("f").unwrap().snapshot().len() == 2).await;
    });
}

#[test]
fn what_cannot_be_removed_while_the_engine_is_away_goes_when_it_is_back() {
    let stage = Stage::new("left");
    stage.run(async {
        stage.deploy("f", "one", 2).await.unwrap();
        *lock(&stage.backend.away) = true;
        stage.deployer.delete(&Name::parse("f").unwrap()).await.unwrap();
        assert_eq!((stage.backend.alive().len(), lock(&stage.backend.forgotten).len()), (2, 0));
        *lock(&stage.backend.away) = false;
        stage.until("the handlers are gone", |s| s.backend.alive().is_empty()).await;
        stage.until("the version is forgotten", |s| lock(&s.backend.forgotten).len() == 1).await;
    });
}

#[test]
fn what_was_deployed_again_meanwhile_is_not_removed_when_the_engine_is_back() {
    let stage = Stage::new("again");
    stage.run(async {
        stage.deploy("f", "one", 1).await.unwrap();
        *lock(&stage.backend.away) = true;
        stage.deployer.delete(&Name::parse("f").unwrap()).await.unwrap();
        stage.deploy("f", "one", 1).await.unwrap();
        *lock(&stage.backend.away) = false;
        stage.until("the first handler is gone", |s| s.backend.alive() == ["h1"]).await;
        stage.deployer.delete(&Name::parse("f").unwrap()).await.unwrap();
        stage.until("the last handler is gone", |s| s.backend.alive().is_empty()).await;
        assert_eq!(lock(&stage.backend.forgotten).len(), 1, "only for the last deletion");
    });
}

#[test]
fn names_and_numbers_are_bounded() {
    let stage = Stage::new("bounds");
    stage.run(async {
        let (one, again) = future::zip(stage.deploy("f", "one", 1), stage.deploy("f", "two", 1)).await;
        assert_eq!((one, again.unwrap_err().status), (Ok(()), 409));
        stage.deploy("g", "one", 1).await.unwrap();
        assert_eq!(stage.deploy("h", "one", 1).await.unwrap_err().status, 409);
        stage.deploy("g", "two", 1).await.unwrap();
        assert_eq!(stage.deployer.delete(&Name::parse("h").unwrap()).await.unwrap_err().status, 404);
        stage.deployer.wipe().await.unwrap();
        assert!(stage.dispatch.is_empty() && stage.store.load().unwrap().is_empty());
        stage.until("all handlers are gone", |s| s.backend.alive().is_empty()).await;
    });
}

#[test]
fn stored_functions_come_back_and_handlers_that_still_run_are_taken_over() {
    let stage = Stage::new("restore");
    stage.run(stage.deploy("f", "one", 2)).unwrap();
    let name = Name::parse("f").unwrap();
    let digest = stage.digest("f");
    let found = |id: &str, digest: &str| Found {
        started: Started { id: id.into(), addresses: vec![Address::Unix(stage.backend.dir.join(id))] },
        name: name.clone(),
        digest: digest.into(),
    };
    let alive = stage.backend.alive();
    let after = Played { next: AtomicUsize::new(10), ..Played::default() };
    *lock(&after.found) = vec![found(&alive[0], &digest), found(&alive[1], "another version")];
    lock(&after.alive).extend(alive.clone());
    let before = stage;
    let stage = before.again(after);
    stage.run(async {
        stage.restore().await;
        assert_eq!(stage.call("f").await, digest);
        stage.until("a second handler runs", |s| s.dispatch.function("f").unwrap().snapshot().len() == 2).await;
        assert_eq!(stage.backend.alive(), [alive[0].clone(), "h10".into()]);
    });
}

#[test]
fn what_is_deployed_while_the_engine_is_away_is_not_overwritten_by_what_was_stored() {
    let stage = Stage::new("away");
    stage.run(async {
        stage.deploy("f", "one", 1).await.unwrap();
        stage.deploy("g", "one", 1).await.unwrap();
    });
    let after = Played { next: AtomicUsize::new(10), ..Played::default() };
    *lock(&after.away) = true;
    let before = stage;
    let stage = before.again(after);
    stage.run(async {
        let stored = stage.deployer.load().await.unwrap();
        assert_eq!(stage.dispatch.len(), 2, "both are known at once");
        let names = || lock(&stage.deployer.active).keys().map(ToString::to_string).collect::<Vec<_>>();
        let waiting = async {
            stage.deployer.delete(&Name::parse("g").unwrap()).await.unwrap();
            *lock(&stage.backend.away) = false;
        };
        let deploy = async { stage.deploy("f", "two", 1).await.unwrap() };
        future::zip(stage.deployer.restore(stored), future::zip(deploy, waiting)).await;
        assert_eq!(names(), ["f"]);
        assert_eq!(stage.call("f").await, stage.digest("f"));
        assert_eq!(stage.store.load().unwrap()[0].digest, stage.digest("f"));
        stage.until("only the new version runs", |s| s.backend.alive().len() == 1).await;
    });
}

/// Short, so that a test sees many of them.
const IDLE: Duration = Duration::from_millis(5);

#[test]
fn what_is_on_disk_is_what_runs_also_where_the_disk_cannot_say_that_it_lasts() {
    let stage = Stage::new("unsure");
    stage.run(async {
        stage.deploy("f", "one", 1).await.unwrap();
        let old = stage.digest("f");
        *BROKEN.lock().unwrap() = Some(stage.dir.join("functions"));
        let error = stage.deploy("f", "two", 1).await.unwrap_err();
        assert_eq!(error.status, 500);
        assert!(
            error.text.starts_with("f is deployed, but the version before it may come back after a power cut"),
            "{error}"
        );
        let new = stage.call("f").await;
        assert_ne!(new, old);
        assert_eq!((stage.digest("f"), &stage.store.load().unwrap()[0].digest), (new.clone(), &new));
        let error = stage.deployer.delete(&Name::parse("f").unwrap()).await.unwrap_err();
        assert!(error.text.starts_with("f is deleted, but may come back after a power cut"), "{error}");
        *BROKEN.lock().unwrap() = None;
        assert_eq!(stage.try_call("f").await.unwrap_err().kind, crate::call::FailureKind::UnknownFunction);
        assert!(stage.store.load().unwrap().is_empty());
        stage.until("its handlers are gone", |s| s.backend.alive().is_empty()).await;
    });
}
