//! The Docker engine dies, restarts, or comes up late: an engine of the test's own, so that no other test notices.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::board::{Backend, Board, TempDir};
use crate::logs::Lines;
use crate::status::status_of;
use crate::watch::{eventually, is_alive, signal};

/// A Docker engine with folders and a socket of its own, without a network; gone with the test.
struct Engine {
    dir: TempDir,
    daemon: Option<Child>,
    driver: String,
}

impl Engine {
    /// An engine that runs and has the image for `binary`. `None`, said loudly, where none can be started.
    fn start() -> Option<Self> {
        if !Backend::available().contains(&Backend::Docker) {
            return None;
        }
        let root = rustix::process::geteuid().is_root();
        if !root || Command::new("dockerd").arg("--version").output().is_err() {
            eprintln!("\n*** SKIPPED: no Docker engine can be started here (root and dockerd are needed) ***\n");
            return None;
        }
        // What works for the machine's own engine works for another one.
        let info = Command::new("docker").args(["info", "--format", "{{.Driver}}"]).output().unwrap();
        let driver = String::from_utf8(info.stdout).unwrap().trim().to_owned();
        let mut engine = Self { dir: TempDir::new(), daemon: None, driver };
        engine.run();
        let image = engine.path("image.tar");
        for (host, args) in
            [(None, ["save", "-o", &image, "tinyfaas-test/binary"]), (Some(&engine), ["load", "-q", "-i", &image])]
        {
            let mut command = host.map_or_else(|| Command::new("docker"), Self::docker);
            let done = command.args(args).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        Some(engine)
    }

    fn path(&self, name: &str) -> String {
        self.dir.0.join(name).to_str().unwrap().to_owned()
    }

    fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock"))
    }

    /// The client, for this engine.
    fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &self.host()]);
        command
    }

    /// Starts the daemon and waits until it answers.
    fn run(&mut self) {
        fs::write(self.path("daemon.json"), "{}").unwrap();
        let log = fs::OpenOptions::new().append(true).create(true).open(self.path("log")).unwrap();
        let mut command = Command::new("dockerd");
        for (flag, value) in [
            ("--config-file", self.path("daemon.json")),
            ("--data-root", self.path("data")),
            ("--exec-root", self.path("exec")),
            ("--pidfile", self.path("pid")),
            ("--host", self.host()),
            ("--storage-driver", self.driver.clone()),
        ] {
            command.args([flag, &value]);
        }
        command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut daemon = command.spawn().unwrap();
        eventually("the engine", || {
            if let Some(status) = daemon.try_wait().unwrap() {
                panic!("dockerd ended ({status}):\n{}", fs::read_to_string(self.path("log")).unwrap());
            }
            self.docker().arg("version").output().unwrap().status.success().then_some(())
        });
        self.daemon = Some(daemon);
    }

    /// Ends the daemon by a signal.
    fn end(&mut self, name: &str) {
        if let Some(mut daemon) = self.daemon.take() {
            signal(i32::try_from(daemon.id()).unwrap(), name);
            daemon.wait().unwrap();
            // The next one would take the id of a process that is just ending for a containerd that runs.
            let containerd = self.path("exec/containerd/containerd.pid");
            if let Ok(pid) = fs::read_to_string(&containerd) {
                eventually("the end of containerd", || (!is_alive(pid.trim().parse().unwrap())).then_some(()));
                fs::remove_file(&containerd).unwrap();
            }
        }
    }

    fn containers(&self) -> Vec<String> {
        let out = self.docker().args(["ps", "-a", "--format", "{{.Names}}"]).output().unwrap();
        String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// A server on this engine.
    fn board(&self) -> Board {
        let flags = ["--docker-host", &self.host(), "--network", "none"];
        Board::start(Backend::Docker, &flags)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.daemon.is_none() && !thread::panicking() {
            self.run();
        }
        // It stops its containers.
        self.end("TERM");
        // What a daemon that was killed had mounted.
        let _ = Command::new("umount").args(["-R", &self.path("data")]).output();
    }
}

fn ids(board: &Board, name: &str) -> Vec<String> {
    let status = status_of(board, name);
    let handlers = status["handlers"].as_array().unwrap();
    handlers.iter().filter_map(|h| Some(h["id"].as_str()?.to_owned())).collect()
}

const CAT: &[(&str, &str)] = &[("fn.sh", "cat\n")];

#[test]
fn when_the_engine_is_killed_or_restarted_all_functions_are_back() {
    let Some(mut engine) = Engine::start() else { return };
    let mut board = engine.board();
    board.deploy("f", "binary", 2, CAT);
    board.deploy("g", "binary", 1, CAT);
    board.deploy("says", "binary", 1, &[("fn.sh", "cat >&2\n")]);
    let follower = Lines::command(&board, &["-f", "says"]);
    for how in ["KILL", "TERM"] {
        assert_eq!(board.call("says", format!("before {how}\n").as_bytes()).status, 200);
        assert_eq!(follower.next(), format!("before {how}"));
        let before = [ids(&board, "f"), ids(&board, "g"), ids(&board, "says")].concat();
        assert_eq!(before.len(), 4);
        engine.end(how);
        board.wait_for("the loss to be noticed", |b| {
            b.log().contains("events of the Docker engine are lost").then_some(())
        });
        if how == "KILL" {
            // Containers outlive an engine that dies, and are reached without it.
            assert_eq!(board.call("f", b"still").text(), "still");
        }
        engine.run();
        for name in ["f", "g", "says"] {
            board.wait_for("new handlers", |b| {
                let now = ids(b, name);
                let replaced = !now.is_empty() && now.iter().all(|id| !before.contains(id));
                (replaced && status_of(b, name)["state"] == "healthy").then_some(())
            });
            let answer = board.call(name, b"again\n");
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, if name == "says" { "" } else { "again\n" }),
                "{how}"
            );
        }
        // Whoever follows a log goes on, and is told nothing twice.
        assert_eq!(follower.next(), "again");
        assert!(board.log().matches("cannot read the log of handler ").count() <= 2, "{}", board.log());
        board.wait_for("the events", |b| b.log().contains("are followed again").then_some(()));
        board.wait_for("what is left over to go", |_| (engine.containers().len() == 4).then_some(()));
        board.deploy("new", "binary", 1, CAT);
        assert_eq!(board.delete("new").status, 200);
    }
    // A handler that ends is noticed over the new connection.
    let before = ids(&board, "g");
    assert!(engine.docker().args(["kill", &before[0]]).output().unwrap().status.success());
    board.wait_for("another handler", |b| {
        (status_of(b, "g")["state"] == "healthy" && ids(b, "g") != before).then_some(())
    });
    assert!(status_of(&board, "g")["handlers"][0]["reason"].as_str().unwrap().contains("signal 9"));
}

#[test]
fn an_engine_that_comes_up_after_us_is_waited_for_and_that_is_said_once() {
    let Some(mut engine) = Engine::start() else { return };
    let mut board = engine.board();
    board.deploy("f", "binary", 1, CAT);
    assert!(board.stop());
    engine.end("TERM");
    let board = board.upgrade(env!("CARGO_BIN_EXE_tinyfaas"));
    assert_eq!(board.manage("GET", "/list", b"").text(), "f\n");
    assert_eq!(status_of(&board, "f")["state"], "starting");
    thread::scope(|scope| {
        let call = scope.spawn(|| board.call("f", b"early"));
        eventually("the call to wait", || (status_of(&board, "f")["waiting"] == 1).then_some(()));
        engine.run();
        let answer = call.join().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "early"), "{}", board.log());
    });
    assert_eq!(board.log().matches("waiting for the engine").count(), 1, "{}", board.log());
    assert_eq!(status_of(&board, "f")["state"], "healthy");
}
