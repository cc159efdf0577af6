//! Containers: how they are made, reached and limited, and what is known of them when they end.

use super::*;

#[test]
fn an_image_that_knows_only_tcp_8000_is_reached_there_and_leaves_nothing() {
    let Some(bench) = Bench::new("foreign image") else { return };
    let backend = bench.foreign(HTTPD);
    let deployment = bench.deployment("foreign", Runtime::BINARY, &[("fn.sh", "echo $GREETING")]);
    run(async {
        backend.prepare(&deployment, &Progress::default()).await.unwrap();
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
    let deployment = bench.deployment("hello", Runtime::BINARY, &[("fn.sh", "cat; echo $GREETING; id -u")]);
    run(async {
        soon("prepare", backend.prepare(&deployment, &Progress::default())).await.unwrap();
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
fn containers_are_hardened_limited_and_labelled() {
    let Some(bench) = Bench::new("hardened") else { return };
    let backend = bench.foreign(HTTPD);
    let deployment = bench.deployment("Hard", Runtime::BINARY, &[("fn.sh", "")]);
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
    let deployment = bench.deployment("exits", Runtime::BINARY, &[("fn.sh", "")]);
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
    let deployment = bench.deployment("many", Runtime::BINARY, &[("fn.sh", "")]);
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
    let deployment = bench.deployment("eats", Runtime::BINARY, &[("fn.sh", "")]);
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
    let deployment = bench.deployment("talks", Runtime::BINARY, &[("fn.sh", "")]);
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
        backend.logs(&started.id, Lines::default(), sender).await.unwrap();
    });
}

#[test]
fn a_container_that_cannot_be_started_is_an_error_and_leaves_nothing() {
    let Some(bench) = Bench::new("failed start") else { return };
    let mut config = bench.with_image(BUSYBOX);
    config.network = Network::Named("no-such-network".into());
    let backend = bench.backend(config);
    let deployment = bench.deployment("broken", Runtime::BINARY, &[("fn.sh", "")]);
    let error = run(async { soon("start", backend.start(&deployment)).await.unwrap_err() });
    assert_eq!(error.kind, BackendErrorKind::Engine);
    assert!(error.text.starts_with("the engine did not start a container for broken: "), "{error}");
    assert!(error.text.contains("no-such-network"), "{error}");
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn a_start_that_is_given_up_leaves_nothing() {
    let Some(bench) = Bench::new("given up") else { return };
    let backend = bench.foreign(HTTPD);
    let deployment = bench.deployment("dropped", Runtime::BINARY, &[("fn.sh", "")]);
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
fn two_stops_at_once_and_a_removal_by_hand_are_no_error() {
    let Some(bench) = Bench::new("races") else { return };
    let backend = bench.foreign(HTTPD);
    let deployment = bench.deployment("raced", Runtime::BINARY, &[("fn.sh", "")]);
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
fn sixty_handlers_fit_on_one_engine() {
    const HANDLERS: usize = 60;
    const AT_ONCE: usize = 6;
    let Some(bench) = Bench::new("sixty") else { return };
    let backend = bench.foreign(HTTPD);
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|task| {
            let backend = backend.clone();
            let deployment = bench.deployment(&format!("f{task}"), Runtime::BINARY, &[("fn.sh", "")]);
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
