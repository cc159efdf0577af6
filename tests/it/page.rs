//! The status page, and what the management API has for it: calls in its name, and the last errors.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::access::new_token;
use crate::board::{Answer, Backend, Board, TempDir, request, zip_of};

const GZIP: &str = "Accept-Encoding: gzip, deflate\r\n";

fn unpacked(bytes: &[u8]) -> String {
    let mut gzip = Command::new("gzip").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(gzip.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn the_page_is_given_to_every_browser_and_runs_only_what_is_in_it() {
    let dir = TempDir::new();
    let tokens = dir.0.join("tokens");
    new_token("ann", &tokens);
    let board = Board::start(Backend::Process, &["--token-file", tokens.to_str().unwrap()]);
    let answer = request(board.management, "GET", "/", GZIP, b"");
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("content-encoding", "gzip"),
        ("vary", "accept-encoding"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(answer.body.len() < 16 * 1024, "{}", answer.body.len());

    // What runs is told by its hash, and nothing else does.
    let page = unpacked(&answer.body);
    let policy = answer.header("content-security-policy").unwrap();
    for (element, directive) in [("script", "script-src"), ("style", "style-src")] {
        let content =
            page.split(&format!("<{element}>")).nth(1).unwrap().split(&format!("</{element}>")).next().unwrap();
        let hash = STANDARD.encode(Sha256::digest(content.as_bytes()));
        assert!(policy.contains(&format!("{directive} 'sha256-{hash}';")), "{element}: {policy}");
        assert_eq!(page.matches(&format!("<{element}")).count(), 1);
    }
    for part in
        ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    // A board has no internet, and texts of functions become no elements.
    for part in [" src=", "@import", "url(", " style=", " onclick=", "innerHTML", "insertAdjacentHTML", "eval("] {
        assert!(!page.contains(part), "{part}");
    }

    for fields in ["", "Accept-Encoding: br\r\n", "Accept-Encoding: gzip;q=0\r\n"] {
        let answer = request(board.management, "GET", "/", fields, b"");
        assert_eq!((answer.status, answer.text().contains("curl --compressed")), (406, true), "{fields}");
    }
    let head = request(board.management, "HEAD", "/", GZIP, b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(request(board.management, "GET", "/functions", GZIP, b"").status, 401, "only the page is open");
    assert_eq!(request(board.management, "POST", "/", GZIP, b"").status, 405);
}

/// Status, head and body of what a function said.
fn inner(answer: &Answer) -> (u16, String, String) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("message/http"));
    let text = answer.text();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), format!("{head}\r\n"), body.to_owned())
}

fn call(board: &Board, target: &str, fields: &str, body: &[u8]) -> Answer {
    request(board.management, "POST", &format!("/functions/{target}"), fields, body)
}

#[test]
fn what_a_function_answers_means_nothing_to_the_browser_that_manages() {
    for backend in Backend::available() {
        let board = Board::start(backend, &["--max-body", "1Ki"]);
        let evil = "module.exports = (req, res) => res.status(307).set('Location', '/wipe').set('Set-Cookie', 'a=b')\n\
                    .set('Content-Type', 'text/html').set('Clear-Site-Data', '\"*\"').send('<script>alert(1)</script>');\n";
        board.deploy("evil", "nodejs", 1, &[("fn.js", evil)]);
        let tells = "import json\ndef fn(input, headers):\n    return json.dumps([input, {k.lower(): v for k, v in headers.items()}])\n";
        board.deploy("tells", "python3", 1, &[("fn.py", tells)]);

        let answer = call(&board, "evil/call", "", b"");
        let (status, head, body) = inner(&answer);
        assert_eq!((status, body.as_str()), (307, "<script>alert(1)</script>"));
        assert!(head.to_lowercase().contains("location: /wipe"), "{head}");
        for name in ["location", "set-cookie", "clear-site-data"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("content-security-policy"), Some("sandbox; default-src 'none'"));
        // A browser that is led there sends no POST of its own, and a form of another site is refused.
        assert_eq!(board.manage("GET", "/functions/evil/call", b"").status, 405);
        assert_eq!(call(&board, "evil/call", "Origin: http://evil.example\r\n", b"").status, 403);

        let fields = "Authorization: Bearer ours\r\nCookie: a=b\r\nX-Tinyfaas-Method: PUT\r\nX-Own: 1\r\n";
        let (status, _, body) = inner(&call(&board, "tells/call/deeper?a=1", fields, b"hello"));
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &told[0]), (200, &"hello".into()));
        for (name, value) in
            [("x-tinyfaas-method", "PUT"), ("x-tinyfaas-path", "/deeper"), ("x-tinyfaas-query", "a=1"), ("x-own", "1")]
        {
            assert_eq!(told[1][name], value, "{told}");
        }
        assert!(!body.contains("ours") && told[1]["cookie"].is_null(), "{body}");

        let (status, _, body) = inner(&call(&board, "tells/call", "", &[b'x'; 2000]));
        assert_eq!((status, body.contains("too large")), (413, true), "{body}");
        assert_eq!(call(&board, "nobody/call", "", b"").status, 404);
        assert_eq!(call(&board, "no-name/call", "", b"").status, 400);
        let answer = call(&board, "tells/call", "X-Tinyfaas-Method: BREW\r\n", b"");
        assert_eq!((answer.status, answer.text().contains("GET, POST")), (400, true));
    }
}

#[test]
fn who_manages_calls_a_function_that_wants_a_token_with_the_functions_own() {
    let dir = TempDir::new();
    let (tokens, callers) = (dir.0.join("tokens"), dir.0.join("callers"));
    let (ann, sensor) = (new_token("ann", &tokens), new_token("sensor", &callers));
    let digest = fs::read_to_string(&callers).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let board = Board::start(Backend::Process, &["--token-file", tokens.to_str().unwrap()]);
    let manages = format!("Authorization: Bearer {ann}\r\n");
    let zip = zip_of(&[("fn.sh", "cat\n")]);
    let put = request(board.management, "PUT", &format!("/functions/f?auth={digest}"), &manages, &zip);
    assert_eq!(put.status, 201, "{}", put.text());
    assert_eq!(call(&board, "f/call", "", b"x").status, 401);
    let (status, head, body) = inner(&call(&board, "f/call", &manages, b"x"));
    assert_eq!((status, body.contains("wants a token")), (401, true), "{head}{body}");
    let both = format!("{manages}X-Tinyfaas-Authorization: Bearer {sensor}\r\n");
    let (status, _, body) = inner(&call(&board, "f/call", &both, b"x"));
    assert_eq!((status, body.as_str()), (200, "x"));
}

#[test]
fn the_last_errors_are_told_with_what_the_caller_was_told() {
    let board = Board::start(Backend::Process, &[]);
    let errors = || -> Vec<Value> {
        let answer = board.manage("GET", "/errors", b"");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        serde_json::from_slice(&answer.body).unwrap()
    };
    assert!(errors().is_empty());
    board.deploy("f", "python3", 1, &[("fn.py", "def fn(input):\n    raise ValueError('<b>' + (input or ''))\n")]);
    board.deploy("kind", "binary", 1, &[("fn.sh", "cat\n")]);
    let zip = zip_of(&[("fn.sh", "sleep 60\n")]);
    assert_eq!(board.manage("PUT", "/functions/slow?timeout=100ms", &zip).status, 201);
    assert_eq!(board.call("kind", b"").status, 200);
    assert_eq!(board.call("nobody", b"").status, 404);
    assert_eq!(board.call("slow", b"").status, 504);
    assert_eq!(board.call("f", b"").status, 500);
    let last = board.call("f", b"");
    assert_eq!(last.status, 500);
    let all = errors();
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!((&all[0]["function"], &all[0]["status"], &all[0]["times"]), (&"f".into(), &500.into(), &2.into()));
    assert!(all[0]["text"].as_str().unwrap().contains("<b>"), "{all:?}");
    assert_eq!(all[0]["call"], last.header("x-call-id").unwrap());
    assert_eq!(
        (&all[1]["function"], &all[1]["status"], &all[1]["protocol"]),
        (&"slow".into(), &504.into(), &"http".into())
    );
    assert!(all[1]["text"].as_str().unwrap().contains("did not answer in time"), "{all:?}");
    for n in 0..40 {
        assert_eq!(board.call("f", format!("{n}").as_bytes()).status, 500);
    }
    assert_eq!(errors().len(), 16);
    board.delete("f");
    assert!(errors().is_empty());
}

/// Whether there is a browser; gets one where there is none. A missing one fails in CI and is told loudly elsewhere.
fn browser_is_ready() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        let set_up = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/setup")).output().unwrap();
        if !set_up.status.success() {
            let why = String::from_utf8_lossy(&set_up.stderr);
            assert!(std::env::var_os("CI").is_none(), "CI has to have a browser: no test may be skipped there\n{why}");
            eprintln!("\n*** SKIPPED: there is no Chromium, so the status page is not tested in a browser ***\n{why}");
        }
        set_up.status.success()
    })
}

/// Has a browser use the page of `board`; what it did.
fn browse(board: &Board, token: &[&str]) -> String {
    let cache = std::env::var_os("TINYFAAS_CACHE")
        .map_or_else(|| Path::new(&std::env::var_os("HOME").expect("HOME")).join(".cache/tinyfaas"), Into::into);
    let dir = TempDir::new();
    let out = Command::new(cache.join("venv-page/bin/python"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/browser.py"))
        .args([board.management.to_string(), board.http.unwrap().to_string()])
        .arg(&dir.0)
        .args(token)
        .output()
        .unwrap();
    let (said, why) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}\n{why}");
    said.into_owned()
}

#[test]
fn a_browser_deploys_calls_and_deletes_by_the_page_and_texts_of_functions_stay_texts() {
    if !browser_is_ready() {
        return;
    }
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        let stages = [
            "none is deployed",
            "a folder is dropped and deployed",
            "an archive is chosen and deployed; what is wrong is told",
            "it is called, and its answer, its log and its error are text",
            "of a long answer the start is shown",
            "numbers live",
            "a page that is not seen asks nothing",
            "it is deleted by keys alone, after a question",
            "a function that wants a token gets its own",
            "what would be lost is asked about, the rest is kept",
            "the longest name has room",
            "the browser has nothing to complain of",
            "the policy holds",
            "all well",
        ];
        assert_eq!(browse(&board, &[]).lines().collect::<Vec<_>>(), stages);
    }
}

#[test]
fn a_browser_is_asked_for_a_token_and_keeps_it_for_its_tab() {
    if !browser_is_ready() {
        return;
    }
    let dir = TempDir::new();
    let tokens = dir.0.join("tokens");
    let token = new_token("ann", &tokens);
    let board = Board::start(Backend::Process, &["--token-file", tokens.to_str().unwrap()]);
    let stages = [
        "it asks for a token",
        "the tab keeps it, and it alone",
        "what it does it does with the token, and a function never sees it",
        "it forgets the token",
        "all well",
    ];
    assert_eq!(browse(&board, &[&token]).lines().collect::<Vec<_>>(), stages);
}
