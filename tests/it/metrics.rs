//! `GET /metrics`: what is counted, and that a real Prometheus takes it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::board::{Backend, Board, PATIENCE, TempDir, request};
use crate::tools::has;
use crate::watch::{Client, eventually, handlers, signal};

/// Samples by name and labels.
type Samples = BTreeMap<String, f64>;

fn scrape(board: &Board) -> (String, Samples) {
    let answer = board.manage("GET", "/metrics", b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    };
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(sample).collect();
    let count = samples.len();
    let samples: Samples = samples.into_iter().collect();
    assert_eq!(samples.len(), count, "a series is there twice:\n{text}");
    (text, samples)
}

fn invoke(url: &str, data: &str) {
    let out = Command::new(env!("CARGO_BIN_EXE_tinyfaas")).args(["invoke", url, "--data", data]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim_end(), data, "{}", String::from_utf8_lossy(&out.stderr));
}

/// `promtool check metrics`, which finds what is against the format or the customs.
fn check(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = promtool.wait_with_output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    assert!(out.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
}

#[test]
fn every_family_that_is_declared_is_set_by_some_call() {
    for backend in Backend::available() {
        let board = Board::start(backend, &["--concurrency", "1", "--grace", "1s"]);
        let (empty, _) = scrape(&board);
        board.deploy("f", "python3", 2, &[("fn.py", "def fn(input):\n    return input\n")]);
        assert_eq!(board.call("f", b"hello").status, 200);
        assert_eq!(board.call("nobody", b"").status, 404);
        invoke(&format!("coap://{}/f", board.coap.unwrap()), "hi");
        invoke(&format!("grpc://{}/f", board.grpc.unwrap()), "hey");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(board.coap.unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..3 {
            // Confirmable, POST, message id 7, without a token; Uri-Path f.
            socket.send(b"\x40\x02\x00\x07\xb1f").unwrap();
            socket.recv(&mut [0; 64]).unwrap();
        }
        board.deploy("slow", "python3", 1, &[("fn.py", "import time\ndef fn(input):\n    time.sleep(1000)\n")]);
        signal(handlers(&board, "slow")[0], "KILL");
        let is_back = |samples: &Samples| {
            samples[r#"tinyfaas_handler_restarts_total{function="slow"}"#] == 1.0
                && samples[r#"tinyfaas_handlers{function="slow",state="healthy"}"#] == 1.0
        };
        eventually("another handler", || is_back(&scrape(&board).1).then_some(()));
        let open: Vec<_> = (0..3).map(|_| Client::begin(board.http.unwrap(), "slow")).collect();
        let waits = r#"tinyfaas_waiting_requests{function="slow"}"#;
        let all = || Some(scrape(&board)).filter(|(_, samples)| samples[waits] == 2.0);
        let (text, samples) = eventually("two calls to wait", all);

        let families: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(families.len(), 15);
        for family in families {
            assert!(empty.contains(&format!("# TYPE {family} ")), "{family} is told before there is a function");
            let is_set = samples.iter().any(|(series, n)| series.starts_with(family) && *n > 0.0);
            assert!(is_set, "{family} is never set:\n{text}");
        }
        for (series, expected) in [
            (r#"http_requests_total{function="f",protocol="http",code="2xx"}"#, 1.0),
            (r#"http_requests_total{function="f",protocol="coap",code="2xx"}"#, 2.0),
            (r#"http_requests_total{function="f",protocol="grpc",code="2xx"}"#, 1.0),
            (r#"http_request_duration_seconds_count{function="f",protocol="coap"}"#, 2.0),
            (r#"http_request_duration_seconds_bucket{function="f",protocol="coap",le="+Inf"}"#, 2.0),
            (r#"http_requests_in_flight{function="slow",protocol="http"}"#, 3.0),
            (r#"tinyfaas_request_bytes_total{function="f",protocol="http"}"#, 5.0),
            (r#"tinyfaas_response_bytes_total{function="f",protocol="grpc"}"#, 3.0),
            (r#"tinyfaas_unknown_function_requests_total{protocol="http"}"#, 1.0),
            ("tinyfaas_coap_duplicates_total", 2.0),
            ("tinyfaas_functions", 2.0),
            (r#"tinyfaas_handlers{function="f",state="healthy"}"#, 2.0),
        ] {
            assert_eq!(samples.get(series), Some(&expected), "{series}\n{text}");
        }
        assert!(!text.contains("nobody"), "a stranger makes no series:\n{text}");
        // A Python in each handler, as large as its processes really are.
        let memory =
            |n| samples.get(&format!(r#"tinyfaas_handler_memory_bytes{{function="f",handler="{n}"}}"#)).copied();
        for bytes in [memory(1), memory(2)] {
            assert!(bytes.is_some_and(|n| (4e6..64e6).contains(&n)), "{backend:?} {bytes:?}\n{text}");
        }
        let seen = board.memory("VmRSS") as f64 * 1024.0;
        let told = samples["process_resident_memory_bytes"];
        assert!((seen / 2.0..seen * 2.0).contains(&told), "{told} of {seen}");
        if has("promtool", "prometheus") {
            check(&empty);
            check(&text);
        }
        drop(open);
    }
}

#[test]
fn counts_go_on_in_the_next_version_and_go_with_the_function() {
    let board = Board::start(Backend::Process, &[]);
    for _ in 0..2 {
        board.deploy("f", "binary", 1, &[("fn.sh", "cat\n")]);
        assert_eq!(board.call("f", b"x").status, 200);
    }
    board.deploy("fails", "binary", 1, &[("fn.sh", "exit 3\n")]);
    assert_eq!(board.call("fails", b"x").status, 500);
    let (text, samples) = scrape(&board);
    assert_eq!(samples[r#"http_requests_total{function="f",protocol="http",code="2xx"}"#], 2.0, "{text}");
    assert_eq!(samples[r#"http_requests_total{function="fails",protocol="http",code="5xx"}"#], 1.0, "{text}");
    assert_eq!(board.delete("f").status, 200);
    assert!(!scrape(&board).0.contains("function=\"f\""));
}

#[test]
fn a_caller_that_goes_away_is_counted_and_not_in_flight_any_more() {
    let board = Board::start(Backend::Process, &[]);
    board.deploy("slow", "python3", 1, &[("fn.py", "import time\ndef fn(input):\n    time.sleep(2)\n")]);
    drop(Client::begin(board.http.unwrap(), "slow"));
    let gone = || {
        let (_, samples) = scrape(&board);
        let is = |series: &str, n: f64| samples.get(series) == Some(&n);
        let ended = is(r#"http_requests_total{function="slow",protocol="http",code="4xx"}"#, 1.0)
            || is(r#"http_requests_total{function="slow",protocol="http",code="2xx"}"#, 1.0);
        (ended && is(r#"http_requests_in_flight{function="slow",protocol="http"}"#, 0.0)).then_some(())
    };
    eventually("the call to end", gone);
}

/// Ends with the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Prometheus that scrapes `target` with a token, and where it answers queries.
fn prometheus(dir: &TempDir, target: SocketAddr, token: &str) -> (Prometheus, SocketAddr) {
    let (config, secret) = (dir.0.join("prometheus.yml"), dir.0.join("secret"));
    fs::write(&secret, token).unwrap();
    let text = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\n\
         scrape_configs:\n- job_name: board\n  authorization: {{credentials_file: {}}}\n  static_configs: [{{targets: ['{target}']}}]\n",
        secret.display()
    );
    fs::write(&config, text).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // A file, not a pipe: whoever writes to a pipe that nobody reads is ended by it.
    let log = dir.0.join("prometheus.log");
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.0.join("data").display()))
        .arg(format!("--web.listen-address={port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut prometheus = Prometheus(child);
    eventually("Prometheus to start", || {
        let told = fs::read_to_string(&log).unwrap();
        assert!(prometheus.0.try_wait().unwrap().is_none(), "{told}");
        told.contains("ready to receive web requests").then_some(())
    });
    (prometheus, port)
}

#[test]
fn prometheus_scrapes_with_a_token() {
    if !has("prometheus", "prometheus") {
        return;
    }
    let dir = TempDir::new();
    let tokens = dir.0.join("tokens");
    let out = Command::new(env!("CARGO_BIN_EXE_tinyfaas"))
        .args(["token", "new", "prometheus", "--file", tokens.to_str().unwrap()])
        .output()
        .unwrap();
    let token = String::from_utf8(out.stdout).unwrap().trim().to_owned();
    let board = Board::start(Backend::Process, &["--token-file", tokens.to_str().unwrap()]);
    assert_eq!(board.manage("GET", "/metrics", b"").status, 401);
    let (_prometheus, at) = prometheus(&dir, board.management, &token);
    let query = |what: &str| -> Option<Value> {
        let answer = request(at, "GET", &format!("/api/v1/query?query={what}"), "", b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut json: Value = serde_json::from_slice(&answer.body).unwrap();
        json["data"]["result"].as_array_mut()?.pop()
    };
    let build = eventually("a scrape", || query("tinyfaas_build_info"));
    assert_eq!(build["metric"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(build["metric"]["backend"], "process");
    assert_eq!(query("up").unwrap()["value"][1], "1");
    assert_eq!(board.call("nobody", b"").status, 404);
    let counted = || {
        let unknown = query("tinyfaas_unknown_function_requests_total%7Bprotocol=%22http%22%7D")?;
        (unknown["value"][1] == "1").then_some(())
    };
    eventually("the call to be scraped", counted);
}
