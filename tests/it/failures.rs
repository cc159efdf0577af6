//! What fails: handlers that break in every way, a full disk, a runtime that is killed, and who notices and who does not.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::board::{Backend, Board, TempDir, left_on_engine, noise, zip_of};
use crate::watch::{Client, containers, eventually, handlers, is_alive, signal};

const ECHO: &[(&str, &str)] = &[("fn.py", "def fn(input):\n    return input\n")];

/// Says that it began, then takes a while.
const SLOW: &[(&str, &str)] = &[(
    "fn.py",
    "import time\ndef fn(input):\n    print('begun', flush=True)\n    time.sleep(1.5)\n    return 'done ' + input\n",
)];

fn log_of(board: &Board, name: &str) -> String {
    board.manage("GET", &format!("/logs?name={name}"), b"").text()
}

#[test]
fn a_handler_that_crashes_at_start_is_refused_with_its_log_and_the_old_version_stays() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        board.deploy("f", "python3", 1, ECHO);
        let before = handlers(&board, "f");
        for (env, files, shows) in [
            ("python3", ("fn.py", "import sys\nprint('no sensor here')\nsys.exit(3)\n"), "no sensor here"),
            ("nodejs", ("index.js", "throw new Error('no sensor there')\n"), "no sensor there"),
        ] {
            for name in ["f", "g"] {
                let answer = board.upload(name, env, 2, &zip_of(&[files]));
                let text = answer.text();
                assert_eq!(answer.status, 422, "{backend:?} {text}");
                assert!(text.contains("ended before it was ready") && text.contains(shows), "{backend:?} {text}");
            }
        }
        assert_eq!(board.manage("GET", "/list", b"").text(), "f\n");
        assert_eq!(handlers(&board, "f"), before, "{backend:?}");
        assert!(handlers(&board, "g").is_empty(), "{backend:?}");
        assert_eq!(board.call("f", b"still").text(), "still");
        assert_eq!(board.call("g", b"").status, 404);
    }
}

#[test]
fn a_handler_that_hangs_at_import_is_given_up_at_the_health_timeout() {
    for backend in Backend::available() {
        let board = Board::start(backend, &["--health-timeout", "2s"]);
        board.deploy("f", "python3", 1, ECHO);
        let hangs = "import time\nprint('waits for ever', flush=True)\ntime.sleep(1000)\n";
        for name in ["f", "g"] {
            let answer = board.upload(name, "python3", 1, &zip_of(&[("fn.py", hangs)]));
            let text = answer.text();
            assert_eq!(answer.status, 422, "{text}");
            assert!(text.contains("did not answer /health") && text.contains("waits for ever"), "{text}");
        }
        assert_eq!(handlers(&board, "f").len(), 1);
        assert!(handlers(&board, "g").is_empty());
        assert_eq!(board.call("f", b"still").text(), "still");
    }
}

#[test]
fn a_handler_that_prints_megabytes_costs_bounded_memory_and_leaves_a_bounded_log() {
    let prints =
        "def fn(input):\n    for n in range(200000):\n        print('%08d' % n, 'x' * 90)\n    return 'done'\n";
    for backend in Backend::available() {
        let mut board = Board::start(backend, &["--handler-log", "256Ki"]);
        board.deploy("f", "python3", 1, &[("fn.py", prints)]);
        assert_eq!(board.call("f", b"").text(), "done");
        // The answer may overtake what the engine still has to write into its log.
        let last = format!("00199999 {}", "x".repeat(90));
        board.wait_for("the last line to be logged", |b| log_of(b, "f").lines().last()?.ends_with(&last).then_some(()));
        let before = board.memory("VmHWM");
        for _ in 0..2 {
            assert_eq!(board.call("f", b"").text(), "done");
            let log = log_of(&board, "f");
            assert!(log.len() < 1024 * 1024, "{backend:?}: {} bytes", log.len());
        }
        // What it printed is 20 MB; a little of the difference is what allocators do.
        let more = board.memory("VmHWM") - before;
        assert!(more < 2048, "{backend:?}: {more} kB more");
    }
}

#[test]
fn a_handler_that_never_stops_printing_disturbs_nobody() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        let prints = "import os, threading\ndef run():\n    while True:\n        os.write(1, b'noise ' * 10000 + b'\\n')\n\
                      threading.Thread(target=run, daemon=True).start()\ndef fn(input):\n    return input\n";
        board.deploy("quiet", "python3", 1, ECHO);
        board.deploy("noisy", "python3", 1, &[("fn.py", prints)]);
        for n in 0..20 {
            let body = n.to_string();
            assert_eq!(board.call("quiet", body.as_bytes()).text(), body);
            assert_eq!(board.call("noisy", body.as_bytes()).text(), body);
        }
        assert_eq!(board.delete("noisy").status, 200);
        assert!(handlers(&board, "noisy").is_empty());
    }
}

#[test]
fn a_handler_that_exits_in_the_middle_of_a_call_is_one_502_and_is_replaced() {
    let python = "import os\ndef fn(input):\n    if input == 'die':\n        os._exit(7)\n    return input\n";
    let node = "module.exports = (req, res) => req.body === 'die' ? process.exit(7) : res.send(req.body);\n";
    let shell = "body=$(cat)\nif [ \"$body\" = die ]; then kill -9 $PPID; fi\nprintf %s \"$body\"\n";
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        for (env, files) in
            [("python3", ("fn.py", python)), ("nodejs", ("index.js", node)), ("binary", ("fn.sh", shell))]
        {
            board.deploy("f", env, 1, &[files]);
            for round in 0..2 {
                let answer = board.call("f", b"die");
                assert_eq!(answer.status, 502, "{backend:?} {env} {}", answer.text());
                assert_eq!(answer.text(), "the handler of f broke: it closed the connection before it answered\n");
                // It waits for the new handler.
                let answer = board.call("f", b"next");
                assert_eq!((answer.status, answer.text().as_str()), (200, "next"), "{backend:?} {env} {round}");
            }
            eventually("one handler", || (handlers(&board, "f").len() == 1).then_some(()));
        }
    }
}

#[test]
fn with_two_handlers_a_killed_one_fails_only_the_calls_it_had() {
    const CLIENTS: usize = 4;
    const KILLS: usize = 3;
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        board.deploy("f", "python3", 2, ECHO);
        let (failed, done, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let addr = board.http.unwrap();
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut client = Client::connect(addr);
                    while !stop.load(Ordering::Relaxed) {
                        let answer = client.call("f", b"x").unwrap();
                        match answer.status {
                            200 => assert_eq!(answer.text(), "x"),
                            502 => _ = failed.fetch_add(1, Ordering::Relaxed),
                            _ => panic!("{answer:?}"),
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..KILLS {
                let at = done.load(Ordering::Relaxed);
                eventually("calls", || (done.load(Ordering::Relaxed) > at + 200).then_some(()));
                let before = eventually("two handlers", || Some(handlers(&board, "f")).filter(|h| h.len() == 2));
                signal(before[0], "KILL");
                let replaced = |now: &Vec<i32>| now.len() == 2 && !now.contains(&before[0]);
                eventually("a new handler", || Some(handlers(&board, "f")).filter(replaced));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let failed = failed.into_inner();
        assert!(failed <= KILLS * CLIENTS, "{backend:?}: {failed} calls failed\n{}", board.log());
    }
}

#[test]
fn a_handler_that_crashes_again_and_again_is_started_ever_more_rarely_and_disturbs_nobody() {
    let crashes =
        "import os, threading\nthreading.Timer(0.3, lambda: os._exit(9)).start()\ndef fn(input):\n    return input\n";
    for backend in Backend::available() {
        let mut board = Board::start(backend, &[]);
        board.deploy("good", "python3", 1, ECHO);
        let good = handlers(&board, "good");
        board.deploy("bad", "python3", 1, &[("fn.py", crashes)]);
        board.wait_for("three crashes", |b| {
            assert_eq!(b.call("good", b"x").text(), "x");
            (b.log().matches("of bad ended: ").count() >= 3).then_some(())
        });
        assert!(board.log().contains("status 9"), "{}", board.log());
        assert_eq!(handlers(&board, "good"), good);
        assert_eq!(board.delete("bad").status, 200);
        assert!(handlers(&board, "bad").is_empty());
    }
}

#[test]
fn a_handler_that_answers_nothing_any_more_is_replaced_when_a_call_found_out() {
    // Such a pattern holds the interpreter for years.
    let stops = "import re\ndef fn(input):\n    if input == 'stop':\n        re.match('(a+)+$', 'a' * 64 + 'b')\n    return input\n";
    let loops = "module.exports = (req, res) => { while (req.body === 'stop'); res.send(req.body); };\n";
    for backend in Backend::available() {
        let mut board = Board::start(backend, &["--timeout", "1s"]);
        for (name, env, files) in [("py", "python3", ("fn.py", stops)), ("js", "nodejs", ("index.js", loops))] {
            board.deploy(name, env, 1, &[files]);
            let answer = board.call(name, b"stop");
            assert_eq!(answer.status, 504, "{backend:?} {}", answer.text());
            board.wait_for("the new handler", |b| {
                let answer = b.call(name, b"next");
                assert!(matches!(answer.status, 200 | 502 | 504), "{answer:?}");
                (answer.status == 200).then_some(())
            });
            assert!(
                board.log().contains(&format!("of {name} ended: it does not answer /health any more")),
                "{}",
                board.log()
            );
        }
    }
}

#[test]
fn beyond_concurrency_calls_wait_beyond_the_queue_they_are_refused_and_at_the_deadline_given_up() {
    for backend in Backend::available() {
        let board = Board::start(backend, &["--concurrency", "1", "--queue", "1", "--timeout", "3s"]);
        board.deploy("f", "python3", 1, &[("fn.py", "import time\ndef fn(input):\n    time.sleep(1000)\n")]);
        let answers: Vec<_> = thread::scope(|scope| {
            let calls: Vec<_> = (0..3).map(|_| scope.spawn(|| board.call("f", b""))).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        let mut texts: Vec<String> = answers.iter().map(|a| format!("{} {}", a.status, a.text())).collect();
        texts.sort();
        assert_eq!(
            texts[0], "503 all handlers of f are busy and 1 calls wait already: try again later\n",
            "{backend:?}"
        );
        assert_eq!(texts[1], "504 function f did not answer in time\n", "{backend:?}");
        // It may have got the first one's place for its last moment.
        let waited = ["504 no handler of f became free in time\n", texts[1].as_str()];
        assert!(waited.contains(&texts[2].as_str()), "{backend:?} {texts:?}");
        let refused = answers.iter().find(|a| a.status == 503).unwrap();
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
}

#[test]
fn a_runtime_that_is_killed_leaves_no_child_process() {
    let board = Board::start(Backend::Process, &[]);
    board.deploy("py", "python3", 2, ECHO);
    board.deploy("sh", "binary", 2, &[("fn.sh", "cat\n")]);
    let before: Vec<i32> = ["py", "sh"].iter().flat_map(|name| handlers(&board, name)).collect();
    assert_eq!(before.len(), 4);
    let board = board.power_cut();
    for pid in before {
        eventually("the end of a handler", || (!is_alive(pid)).then_some(()));
    }
    assert_eq!(board.call("py", b"again").text(), "again");
    assert_eq!(board.call("sh", b"again").text(), "again");
}

#[test]
fn containers_of_a_runtime_that_was_killed_are_taken_over() {
    if !Backend::available().contains(&Backend::Docker) {
        return;
    }
    let board = Board::start(Backend::Docker, &[]);
    board.deploy("f", "python3", 2, ECHO);
    let before = containers(&board.state_dir, "f");
    assert_eq!(before.len(), 2);
    let mut board = board.power_cut();
    board
        .wait_for("the restored function", |b| b.log().contains("restored f: 2 of 2 handlers still ran").then_some(()));
    assert_eq!(board.call("f", b"again").text(), "again");
    assert_eq!(containers(&board.state_dir, "f"), before);
}

#[test]
fn sigterm_lets_calls_in_flight_finish_and_leaves_no_handler() {
    for backend in Backend::available() {
        let mut board = Board::start(backend, &[]);
        board.deploy("f", "python3", 2, SLOW);
        let running = handlers(&board, "f");
        assert_eq!(running.len(), 2);
        let addr = board.http.unwrap();
        let calls: Vec<_> = (0..4)
            .map(|n| {
                thread::spawn(move || {
                    let mut client = Client::connect(addr);
                    client.call("f", format!("{n}").as_bytes()).unwrap()
                })
            })
            .collect();
        board.wait_for("the calls to begin", |b| (log_of(b, "f").matches("begun").count() == 4).then_some(()));
        assert!(board.stop(), "{}", board.log());
        for (n, call) in calls.into_iter().enumerate() {
            let answer = call.join().unwrap();
            assert_eq!((answer.status, answer.text()), (200, format!("done {n}")), "{backend:?}");
        }
        for pid in running {
            assert!(!is_alive(pid), "{backend:?}");
        }
        if backend == Backend::Docker {
            assert_eq!(containers(&board.state_dir, "f"), [""; 0]);
            let left = left_on_engine(&board.state_dir);
            assert!(!left.iter().any(|what| what.starts_with("container")), "{left:?}");
        }
    }
}

#[test]
fn a_second_server_on_the_same_state_directory_refuses_to_start() {
    let board = Board::start(Backend::Process, &[]);
    let out = Command::new(env!("CARGO_BIN_EXE_tinyfaas"))
        .args(["serve", "--backend", "process", "--management", "127.0.0.1:0", "--state-dir"])
        .arg(&board.state_dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("another tinyfaas uses the state directory"), "{text}");
    assert_eq!(board.manage("GET", "/list", b"").status, 200);
}

/// A file system of its own, in memory. Only root can have one.
struct Disk(TempDir);

impl Disk {
    fn new(size: &str) -> Option<Self> {
        let dir = TempDir::new();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "tmpfs"])
            .arg(&dir.0)
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            assert!(std::env::var_os("CI").is_none(), "CI has to be root: no test may be skipped there");
            eprintln!("\n*** SKIPPED: cannot mount a file system, so a full disk is not tested ***\n");
        }
        mounted.then_some(Self(dir))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let mut command = Command::new("mount");
        command.args(["-o", &options]).arg(&self.0.0);
        // What confined a handler refers to its folder for moments after it ended: the kernel gives that back in its own time.
        eventually("the disk to be remounted", || command.status().unwrap().success().then_some(()));
    }

    fn state_dir(&self) -> PathBuf {
        self.0.0.join("state")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0.0).status();
    }
}

#[test]
fn a_full_disk_is_an_error_of_that_deployment_only() {
    for backend in Backend::available() {
        let Some(disk) = Disk::new("4m") else { return };
        let board = Board::start_in(backend, &[], disk.state_dir());
        board.deploy("f", "binary", 1, &[("fn.sh", "cat\n")]);
        let large = noise(5 << 20);
        for name in ["f", "g"] {
            let answer = board.upload(name, "binary", 1, &zip_of(&[("fn.sh", "cat\n"), ("data", &large)]));
            assert_eq!(answer.status, 500, "{backend:?} {}", answer.text());
            assert!(answer.text().contains("No space left on device"), "{}", answer.text());
        }
        assert_eq!(board.call("f", b"still").text(), "still");
        assert_eq!(fs::read_dir(board.state_dir.join("spool")).unwrap().count(), 0);
        // What failed left the room that it took.
        board.deploy("g", "binary", 1, &[("fn.sh", "cat\n"), ("data", &large[..1 << 20])]);
        assert_eq!(board.call("g", b"fits").text(), "fits");
        let board = board.restart();
        assert_eq!(board.call("f", b"after").text(), "after");
        assert_eq!(board.call("g", b"after").text(), "after");
        drop(board);
    }
}

#[test]
fn a_state_directory_that_cannot_be_written_fails_deployments_and_the_start_but_no_call() {
    for backend in Backend::available() {
        let Some(disk) = Disk::new("4m") else { return };
        let board = Board::start_in(backend, &[], disk.state_dir());
        board.deploy("f", "binary", 1, &[("fn.sh", "cat\n")]);
        // Remounting needs that no file is open for writing: the lock's only was for its making.
        disk.remount("ro");
        let zip = zip_of(&[("fn.sh", "echo new\n")]);
        for answer in [board.upload("f", "binary", 1, &zip), board.upload("g", "binary", 1, &zip), board.delete("f")] {
            assert_eq!(answer.status, 500, "{backend:?} {}", answer.text());
            assert!(answer.text().contains("Read-only file system"), "{}", answer.text());
        }
        assert_eq!(board.call("f", b"still").text(), "still");
        assert_eq!(board.manage("GET", "/list", b"").text(), "f\n");
        let start = |state_dir: PathBuf| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfaas"));
            command.args(["serve", "--backend", "process", "--management", "127.0.0.1:0", "--state-dir"]);
            let out = command.arg(state_dir).output().unwrap();
            (out.status.code(), String::from_utf8(out.stderr).unwrap())
        };
        let (code, text) = start(disk.0.0.join("other"));
        assert_eq!((code, text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains("the state directory") && text.contains("Read-only file system"), "{text}");
        disk.remount("rw");
        assert_eq!(board.upload("f", "binary", 1, &zip).status, 200);
        assert_eq!(board.call("f", b"").text(), "new\n");
        // The start after that, with what is stored.
        let mut board = board;
        assert!(board.stop(), "{}", board.log());
        disk.remount("ro");
        let (code, text) = start(board.state_dir.clone());
        assert_eq!((code, text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains("the state directory") && text.contains("Read-only file system"), "{text}");
        disk.remount("rw");
        let board = board.restart();
        assert_eq!(board.call("f", b"").text(), "new\n");
        drop(board);
    }
}

#[test]
fn of_two_deployments_of_a_name_at_once_one_is_refused_and_other_names_go_on() {
    // The first one hangs until the test kills it.
    let hangs = zip_of(&[("fn.py", "import time\ntime.sleep(1000)\n")]);
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        thread::scope(|scope| {
            let first = scope.spawn(|| board.upload("f", "python3", 1, &hangs));
            let handler = eventually("the first handler", || handlers(&board, "f").first().copied());
            let second = board.upload("f", "python3", 1, &zip_of(ECHO));
            assert_eq!(second.status, 409, "{backend:?} {}", second.text());
            assert_eq!(
                second.text(),
                "f is being deployed, deleted or restored right now: try again when that is done\n"
            );
            assert_eq!(board.delete("f").status, 409);
            board.deploy("g", "python3", 1, ECHO);
            signal(handler, "KILL");
            assert_eq!(first.join().unwrap().status, 422);
        });
        board.deploy("f", "python3", 1, ECHO);
        let answers: Vec<u16> = thread::scope(|scope| {
            let deploy = |n: usize| {
                let board = &board;
                scope.spawn(move || board.upload(&format!("n{n}"), "python3", 1, &zip_of(ECHO)).status)
            };
            let all: Vec<_> = (0..4).map(deploy).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(answers, [200; 4]);
        assert_eq!(board.manage("GET", "/list", b"").text(), "f\ng\nn0\nn1\nn2\nn3\n");
    }
}

#[test]
fn calls_in_flight_finish_when_their_function_is_deleted() {
    for backend in Backend::available() {
        let mut board = Board::start(backend, &[]);
        board.deploy("f", "python3", 1, SLOW);
        let addr = board.http.unwrap();
        let call = thread::spawn(move || Client::connect(addr).call("f", b"x").unwrap());
        board.wait_for("the call to begin", |b| log_of(b, "f").contains("begun").then_some(()));
        assert_eq!(board.delete("f").status, 200);
        let answer = call.join().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "done x"), "{backend:?}");
        assert_eq!(board.call("f", b"").status, 404);
        assert!(handlers(&board, "f").is_empty());
    }
}
