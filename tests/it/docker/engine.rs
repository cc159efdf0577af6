//! The engine: far away, not there, or gone for a while.

use super::*;

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
    config.images.push((Runtime::BINARY, bench.image(HTTPD)));
    let backend = bench.backend(config);
    let deployment = bench.deployment("remote", Runtime::BINARY, &[("fn.sh", "")]);
    run(async {
        backend.prepare(&deployment, &Progress::default()).await.unwrap();
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
    config.images.push((Runtime::BINARY, bench.image(HTTPD)));
    let backend = bench.backend(config);
    let deployment = bench.deployment("away", Runtime::BINARY, &[("fn.sh", "")]);
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
fn tcp_is_the_only_address_where_the_operator_wants_no_socket() {
    let Some(bench) = Bench::new("reach tcp") else { return };
    let mut config = bench.config();
    config.reach = Reach::Tcp;
    config.images.push((Runtime::BINARY, bench.image(HTTPD)));
    let backend = bench.backend(config);
    let deployment = bench.deployment("bridge", Runtime::BINARY, &[("fn.sh", "")]);
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
