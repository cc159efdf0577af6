//! Images: those of runtimes, those with a function's dependencies, and how they go again.

use super::*;

#[test]
fn dependencies_are_installed_once_and_go_with_the_version() {
    let Some(bench) = Bench::new("dependencies") else { return };
    let backend = bench.on_base();
    let code = "import six\ndef fn(input):\n    return six.__version__ + (input or '')\n";
    let deployment =
        bench.deployment("Deps", Runtime::PYTHON3, &[("fn.py", code), ("requirements.txt", "# one\nsix==1.16.0\n")]);
    run(async {
        soon("prepare", backend.prepare(&deployment, &Progress::default())).await.unwrap();
        let installed = bench.functions_images();
        assert_eq!(installed.len(), 1);
        soon("prepare", backend.prepare(&deployment, &Progress::default())).await.unwrap();
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
fn what_a_function_without_network_depends_on_is_installed_all_the_same() {
    let Some(bench) = Bench::new("dependencies without a network") else { return };
    let backend = bench.on_base();
    let code =
        "import os, six\ndef fn(input):\n    return six.__version__ + ' ' + ' '.join(os.listdir('/sys/class/net'))\n";
    let mut deployment =
        bench.deployment("lone", Runtime::PYTHON3, &[("fn.py", code), ("requirements.txt", "six==1.16.0\n")]);
    deployment.network = false;
    run(async {
        soon("prepare", backend.prepare(&deployment, &Progress::default())).await.unwrap();
        let started = soon("start", backend.start(&deployment)).await.unwrap();
        assert_eq!(inspect(&started.id, "{{.HostConfig.NetworkMode}}"), "none");
        assert_eq!(ask(&healthy(&started), &post("")).unwrap(), (200, "1.16.0 lo".into()));
    });
}

#[test]
fn node_modules_are_installed_from_package_json() {
    let Some(bench) = Bench::new("node modules") else { return };
    let backend = bench.on_base();
    let package = r#"{"name":"fn","version":"1.0.0","main":"fn.js","dependencies":{"dep":"file:./dep"}}"#;
    let deployment = bench.deployment(
        "modules",
        Runtime::NODEJS,
        &[
            ("package.json", package),
            ("fn.js", "const dep = require('dep'); module.exports = (req, res) => res.send(dep + req.body);"),
            ("dep/package.json", r#"{"name":"dep","version":"1.0.0","main":"dep.js"}"#),
            ("dep/dep.js", "module.exports = 'dep:';"),
        ],
    );
    run(async {
        soon("prepare", backend.prepare(&deployment, &Progress::default())).await.unwrap();
        let started = soon("start", backend.start(&deployment)).await.unwrap();
        assert_eq!(ask(&healthy(&started), &post("x")).unwrap(), (200, "dep:x".into()));
    });
}

#[test]
fn an_installation_that_fails_returns_its_log_and_leaves_nothing() {
    let Some(bench) = Bench::new("failed installation") else { return };
    let backend = bench.on_base();
    let files = [("fn.py", "def fn(input): pass\n"), ("requirements.txt", "./no-such-folder\n")];
    let deployment = bench.deployment("nodeps", Runtime::PYTHON3, &files);
    let error = run(async { soon("prepare", backend.prepare(&deployment, &Progress::default())).await.unwrap_err() });
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
    let deployment = bench.deployment("slow", Runtime::PYTHON3, &files);
    let error = run(async { soon("prepare", backend.prepare(&deployment, &Progress::default())).await.unwrap_err() });
    assert_eq!(error.kind, BackendErrorKind::Function);
    assert!(error.text.starts_with("the installation of dependencies took longer than 1ms"), "{error}");
    assert_eq!(bench.containers(), [""; 0]);
}

#[test]
fn a_base_image_that_is_not_there_is_named_with_what_to_do() {
    let Some(bench) = Bench::new("missing base") else { return };
    let mut config = bench.config();
    config.bases.push((Runtime::BINARY, "localhost:1/no-such-base:1".into()));
    let backend = bench.backend(config);
    let deployment = bench.deployment("lost", Runtime::BINARY, &[("fn.sh", "")]);
    let error = run(async { soon("prepare", backend.prepare(&deployment, &Progress::default())).await.unwrap_err() });
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
    config.bases.push((Runtime::BINARY, BUSYBOX.into()));
    config.executable = "/bin/sh".into();
    let backend = bench.backend(config);
    let deployment = bench.deployment("dynamic", Runtime::BINARY, &[("fn.sh", "")]);
    let error = run(async { soon("prepare", backend.prepare(&deployment, &Progress::default())).await.unwrap_err() });
    assert!(error.text.contains("/bin/sh is not a static executable"), "{error}");
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let Some(bench) = Bench::new("missing image") else { return };
    let backend = bench.backend(bench.with_image("tinyfaas-no-such-image:1"));
    let deployment = bench.deployment("lost", Runtime::BINARY, &[("fn.sh", "")]);
    run(async {
        for error in [
            backend.prepare(&deployment, &Progress::default()).await.unwrap_err(),
            backend.start(&deployment).await.unwrap_err(),
        ] {
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
fn sweep_keeps_what_is_deployed_and_running_and_removes_the_rest() {
    let Some(bench) = Bench::new("sweep") else { return };
    let backend = bench.foreign(HTTPD);
    let kept = bench.deployment("kept", Runtime::BINARY, &[("fn.sh", "1")]);
    let gone = bench.deployment("gone", Runtime::BINARY, &[("fn.sh", "2")]);
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
fn what_an_engine_still_made_for_a_server_that_was_killed_goes_and_what_was_taken_over_stays() {
    let Some(bench) = Bench::new("late") else { return };
    let deployment = bench.deployment("late", Runtime::BINARY, &[("fn.sh", "1")]);
    run(async {
        let earlier = bench.foreign(HTTPD);
        let taken = soon("start", earlier.start(&deployment)).await.unwrap();
        // As another process after a restart.
        let backend = bench.foreign(HTTPD);
        backend.sweep(std::slice::from_ref(&deployment)).await.unwrap();
        let own = soon("start", backend.start(&deployment)).await.unwrap();
        // The same version, so only the run that asked for it tells it from ours.
        let late = soon("start", earlier.start(&deployment)).await.unwrap();
        backend.sweep_late(std::slice::from_ref(&taken.id)).await.unwrap();
        let mut left: Vec<_> = backend.running().await.unwrap().into_iter().map(|f| f.started.id).collect();
        left.sort();
        let mut expected = vec![taken.id, own.id];
        expected.sort();
        assert_eq!(left, expected, "{} is gone", late.id);
        backend.sweep(&[]).await.unwrap();
    });
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn clean_removes_one_instance_and_says_what_it_was() {
    let Some(bench) = Bench::new("clean") else { return };
    let Some(other) = Bench::new("clean") else { return };
    let deployment = bench.deployment("cleaned", Runtime::BINARY, &[("fn.sh", "")]);
    let stays = other.deployment("stays", Runtime::BINARY, &[("fn.sh", "")]);
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
        config.bases.push((Runtime::BINARY, base.clone()));
        bench.backend(config)
    };
    let mine = bench.deployment("mine", Runtime::BINARY, &[("fn.sh", "cat")]);
    let theirs = other.deployment("theirs", Runtime::BINARY, &[("fn.sh", "cat")]);
    let clean = |instance: &str| {
        let engine = EngineAddress::parse(EngineAddress::DEFAULT).unwrap();
        let instance = instance.to_owned();
        async move { docker::clean(engine, &EXECUTOR, Workers::new(), Some(&instance)).await.unwrap() }
    };
    run(async {
        soon("prepare", on_base(&bench).prepare(&mine, &Progress::default())).await.unwrap();
        let backend = on_base(&other);
        soon("prepare", backend.prepare(&theirs, &Progress::default())).await.unwrap();
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
    old.bases.push((Runtime::BINARY, base.clone()));
    let old = bench.backend(old);
    let function = bench.deployment("f", Runtime::BINARY, &[("fn.sh", "cat")]);
    let images = || {
        let label = format!("label=tinyFaaS={}", bench.instance);
        let out = Command::new("docker").args(["images", "-q", "--filter", &label]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).lines().count()
    };
    run(async {
        soon("prepare", old.prepare(&function, &Progress::default())).await.unwrap();
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

/// Makes an image with `labels` that has no tag, as one that lost its own to a build of the same, and returns its id.
fn untagged(labels: &[String]) -> String {
    let docker = |args: &[&str]| {
        let out = Command::new("docker").args(args).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    let container = docker(&["create", BUSYBOX, "true"]);
    let changes = labels.iter().flat_map(|label| ["-c".to_owned(), format!("LABEL {label}")]).collect::<Vec<_>>();
    let changes = changes.iter().map(String::as_str);
    let image = docker(&[&["commit"], &*changes.collect::<Vec<_>>(), &[&container]].concat());
    docker(&["rm", &container]);
    image
}

fn is_on_engine(image: &str) -> bool {
    Command::new("docker").args(["image", "inspect", image]).output().unwrap().status.success()
}

#[test]
fn a_runtime_s_image_that_lost_its_tag_goes_with_a_sweep_and_with_clean() {
    let Some(bench) = Bench::new("untagged") else { return };
    let labels = [format!("tinyFaaS={}", bench.instance), "tinyfaas-runtime=binary".into()];
    let engine = EngineAddress::parse(EngineAddress::DEFAULT).unwrap();
    run(async {
        let image = untagged(&labels);
        bench.on_base().sweep(&[]).await.unwrap();
        assert!(!is_on_engine(&image), "after a sweep");

        let image = untagged(&labels);
        let removed = docker::clean(engine, &EXECUTOR, Workers::new(), Some(&bench.instance)).await.unwrap();
        assert_eq!(removed, [format!("image {image}")]);
        assert!(!is_on_engine(&image), "after clean");
    });
}
