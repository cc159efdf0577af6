//! Functions' logs as streams: by time, some of them, and on and on, over the management API and with `tinyfaas logs`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::board::{Backend, Board, PATIENCE};
use crate::watch::eventually;

const TINYFAAS: &str = env!("CARGO_BIN_EXE_tinyfaas");
/// Logs what it is sent.
const LOGS: &[(&str, &str)] = &[("fn.py", "def fn(input):\n    print(input, flush=True)\n    return 'done'\n")];
/// The same, told apart, and mortal.
const LOGS_AGAIN: &[(&str, &str)] = &[(
    "fn.py",
    "import os\ndef fn(input):\n    if input == 'die': os._exit(1)\n    print('again ' + input, flush=True)\n    return 'done'\n",
)];

/// Lines as they come, of a command or a connection.
pub struct Lines {
    lines: Receiver<String>,
    child: Option<Child>,
}

impl Lines {
    fn of(mut source: impl BufRead + Send + 'static, child: Option<Child>) -> Self {
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if tell.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { lines, child }
    }

    /// What `tinyfaas logs` prints.
    pub fn command(board: &Board, args: &[&str]) -> Self {
        Self::at(&board.management.to_string(), args)
    }

    /// The same of a server that is named otherwise.
    pub fn at(host: &str, args: &[&str]) -> Self {
        let mut command = Command::new(TINYFAAS);
        command.arg("logs").args(args).args(["--host", host]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.take().unwrap();
        Self::of(BufReader::new(out), Some(child))
    }

    /// The text of the next line, after function, handler and time.
    pub fn next(&self) -> String {
        text_of(&self.lines.recv_timeout(PATIENCE).expect("another line")).to_owned()
    }

    /// All that is left, up to the end.
    fn rest(mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            rest.push(line);
        }
        if let Some(child) = &mut self.child {
            assert!(child.wait().unwrap().success(), "{rest:?}");
        }
        rest
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn text_of(line: &str) -> &str {
    line.splitn(4, ' ').nth(3).unwrap_or_else(|| panic!("{line:?}"))
}

fn name_of(line: &str) -> &str {
    line.split(' ').next().and_then(|word| word.strip_prefix("function=")).unwrap_or_else(|| panic!("{line:?}"))
}

fn time_of(line: &str) -> &str {
    line.split(' ').nth(2).unwrap()
}

/// Calls a function, and waits until its line is in the log: engines take their time.
fn say(board: &Board, name: &str, word: &str) {
    assert_eq!(board.call(name, word.as_bytes()).status, 200, "{}", board.log());
    eventually("the line to be logged", || {
        let text = board.manage("GET", &format!("/logs?name={name}"), b"").text();
        text.lines().any(|line| line.ends_with(word)).then_some(())
    });
}

#[test]
fn a_follower_stays_through_redeployments_crashes_and_deletion() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        board.deploy("f", "python3", 1, LOGS);
        say(&board, "f", "one");
        say(&board, "f", "two");
        let follower = Lines::command(&board, &["-f", "f"]);
        let last = Lines::command(&board, &["--follow", "--tail", "1", "f"]);
        assert_eq!((follower.next(), follower.next(), last.next()), ("one".into(), "two".into(), "two".into()));
        say(&board, "f", "three");
        assert_eq!((follower.next(), last.next()), ("three".into(), "three".into()));

        board.deploy("f", "python3", 1, LOGS_AGAIN);
        say(&board, "f", "four");
        assert_eq!((follower.next(), last.next()), ("again four".into(), "again four".into()));

        assert_eq!(board.call("f", b"die").status, 502);
        eventually("the next handler", || (board.call("f", b"five").status == 200).then_some(()));
        assert_eq!((follower.next(), last.next()), ("again five".into(), "again five".into()));

        assert_eq!(board.delete("f").status, 200);
        board.deploy("f", "python3", 1, LOGS);
        say(&board, "f", "six");
        assert_eq!((follower.next(), last.next()), ("six".into(), "six".into()));
    }
}

#[test]
fn several_functions_are_told_in_the_order_of_time() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        for name in ["a", "b", "c"] {
            board.deploy(name, "python3", 1, LOGS);
        }
        for round in 0..3 {
            for name in ["b", "a", "c"] {
                say(&board, name, &format!("{name}{round}"));
            }
        }
        let all = Lines::command(&board, &["a", "b"]).rest();
        let texts: Vec<&str> = all.iter().map(|line| text_of(line)).collect();
        assert_eq!(texts, ["b0", "a0", "b1", "a1", "b2", "a2"], "{all:?}");
        assert!(all.iter().all(|line| text_of(line).starts_with(name_of(line))), "{all:?}");
        assert!(all.is_sorted_by_key(|line| time_of(line).to_owned()));
        let last = board.manage("GET", "/logs?tail=1", b"").text();
        assert_eq!(last.lines().map(text_of).collect::<Vec<_>>(), ["b2", "a2", "c2"]);
        // From the second of that line on.
        let since = humantime::parse_rfc3339(time_of(&all[5])).unwrap();
        let since = humantime::format_rfc3339_seconds(since).to_string();
        let late = Lines::command(&board, &["a", "--since", &since]).rest();
        assert_eq!(late.last(), all.last());
        assert!(late.len() < 3 || time_of(&late[0]) >= &since[..19], "{late:?}");
        assert_eq!(board.manage("GET", "/logs?since=2100-01-01T00:00:00Z", b"").text(), "");
        assert_eq!(Lines::command(&board, &["--since", "1h", "--tail", "2", "c"]).rest().len(), 2);

        // As they come, those that are new included.
        let follower = Lines::command(&board, &["-f", "--tail", "0"]);
        let before = || board.manage("GET", "/logs?name=a", b"").text().lines().count();
        // What is written before it is there is not for it: it is there once a line of it comes.
        let mut n = 0;
        let first = loop {
            say(&board, "a", &format!("x{n}"));
            match follower.lines.recv_timeout(std::time::Duration::from_millis(500)) {
                Ok(line) => break line,
                Err(_) => n += 1,
            }
        };
        assert!(text_of(&first).starts_with('x') && before() > 3, "{first}");
        while follower.lines.try_recv().is_ok() {}
        board.deploy("d", "python3", 1, LOGS);
        say(&board, "d", "d0");
        say(&board, "b", "b9");
        say(&board, "d", "d1");
        assert_eq!([follower.next(), follower.next(), follower.next()], ["d0", "b9", "d1"]);
    }
}

#[test]
fn what_is_asked_for_wrongly_is_told() {
    let board = Board::start(Backend::Process, &[]);
    board.deploy("f", "binary", 1, &[("fn.sh", "echo said >&2\n")]);
    for (query, status, text) in [
        ("name=f&name=nobody", 404, "no function named nobody"),
        ("follow=maybe", 400, "follow: \"maybe\" is neither 1 nor 0"),
        ("tail=few", 400, "tail: \"few\" is no count"),
        ("since=yesterday", 400, "since: \"yesterday\" is no time: say how long ago, such as 10m"),
    ] {
        let answer = board.manage("GET", &format!("/logs?{query}"), b"");
        assert_eq!(answer.status, status, "{query}");
        assert!(answer.text().contains(text) && answer.text().lines().count() == 1, "{}", answer.text());
    }
    let head = board.manage("HEAD", "/logs?follow=1", b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    for (args, code) in [(&["--since", "x"][..], 2), (&["--tail", "-1"], 2), (&["-f", "nobody"], 4)] {
        let out =
            Command::new(TINYFAAS).arg("logs").args(args).args(["--host", &board.management.to_string()]).output();
        assert_eq!(out.unwrap().status.code(), Some(code), "{args:?}");
    }
}

/// Opens a stream and reads the head of its answer.
fn open(board: &Board, query: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(board.management).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /logs?{query} HTTP/1.1\r\nHost: b\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

#[test]
fn streams_are_bounded_and_one_whose_reader_went_away_makes_room() {
    let board = Board::start(Backend::Process, &[]);
    board.deploy("f", "binary", 1, &[("fn.sh", "")]);
    let mut streams: Vec<TcpStream> = (0..8)
        .map(|_| {
            let (stream, head) = open(&board, "follow=1");
            assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("connection: close\r\n"), "{head}");
            stream
        })
        .collect();
    for query in ["follow=1", "tail=1"] {
        let refused = board.manage("GET", &format!("/logs?{query}"), b"");
        assert_eq!(refused.status, 503);
        assert!(refused.text().starts_with("8 streams of logs are open already"), "{}", refused.text());
    }
    // The original's call has no part in that.
    assert_eq!(board.manage("GET", "/logs?name=f", b"").status, 200);
    // Nothing is written, so nothing but its end tells that the reader went away.
    drop(streams.pop());
    eventually("a place", || (board.manage("GET", "/logs?tail=1", b"").status == 200).then_some(()));
}

#[test]
fn a_follower_ends_well_when_the_server_stops() {
    let mut board = Board::start(Backend::Process, &[]);
    board.deploy("f", "python3", 1, LOGS);
    say(&board, "f", "one");
    let follower = Lines::command(&board, &["-f"]);
    assert_eq!(follower.next(), "one");
    assert!(board.stop(), "{}", board.log());
    follower.rest();
}

#[test]
fn a_follower_that_never_reads_costs_bounded_memory_and_keeps_nobody_waiting() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        let flood = "def fn(input):\n    import sys\n    for n in range(20000):\n        sys.stdout.write('%06d ' % n + 'x' * 200 + '\\n')\n    print('end', flush=True)\n    return 'done'\n";
        board.deploy("f", "python3", 1, &[("fn.py", flood)]);
        board.deploy("quiet", "python3", 1, LOGS);
        let (stream, head) = open(&board, "follow=1&name=f");
        assert!(head.starts_with("HTTP/1.1 200 "));
        assert_eq!(board.call("f", b"").text(), "done");
        let before = board.memory("RssAnon");
        for _ in 0..5 {
            assert_eq!(board.call("f", b"").text(), "done");
        }
        let more = board.memory("RssAnon").saturating_sub(before);
        // 20 MB went by.
        assert!(more < 1024, "{backend:?}: {more} kB");
        // Another one reads meanwhile.
        let other = Lines::command(&board, &["-f", "quiet"]);
        say(&board, "quiet", "heard");
        assert_eq!(other.next(), "heard");
        if backend == Backend::Process {
            // What its bounded log lost meanwhile is told, with how much it was.
            let mut lines = BufReader::new(stream).lines();
            let lost =
                lines.find_map(|line| Some(line.unwrap()).filter(|line| line.contains(" lines were left out: ")));
            assert!(lost.unwrap().starts_with("function=f handler="));
        }
    }
}
