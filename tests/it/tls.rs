//! Doors over TLS, met by clients of other makes: curl, openssl, h2load, grpcio; and by our own.

mod certificates;
mod clients;
mod strangers;

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use crate::board::{Backend, Board, TempDir};
use crate::logs::Lines;
use crate::watch::{eventually, signal};
use certificates::Certificates;

const CAT: &[(&str, &str)] = &[("fn.sh", "cat\n")];

/// A server whose HTTP and gRPC speak TLS, with the function `cat`. Its management, on loopback, does not.
fn board(certificates: &Certificates, more: &[&str]) -> Board {
    let (cert, key) = (certificates.path("server.pem"), certificates.path("server.key"));
    let board = Board::start(Backend::Process, &[&["--tls-cert", &cert, "--tls-key", &key], more].concat());
    if !more.contains(&"--management-client-ca") {
        board.deploy("cat", "binary", 1, CAT);
    }
    board
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs our own command without anything from the one who runs the tests.
fn tinyfaas(args: &[&str], vars: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfaas"));
    for name in ["HOST", "TOKEN", "TOKEN_FILE", "CA", "CLIENT_CERT", "CLIENT_KEY"] {
        command.env_remove(format!("TINYFAAS_{name}"));
    }
    command.args(args).stdin(Stdio::null()).env("XDG_CONFIG_HOME", "/nonexistent").envs(vars.iter().copied());
    command.output().unwrap()
}

/// What curl gets from `path`, and what it complains of.
fn curl(certificates: &Certificates, addr: SocketAddr, path: &str, args: &[&str]) -> (String, String) {
    let url = format!("https://{addr}{path}");
    let out =
        Command::new("curl").args(["-sS", "--cacert", &certificates.path("ca.pem"), &url]).args(args).output().unwrap();
    (text(&out.stdout), text(&out.stderr))
}

/// What openssl's client says of a connection to `addr`, whose standard input is `input`.
fn s_client(addr: SocketAddr, args: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &addr.to_string(), "-servername", "localhost"]).args(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A server that refuses may be gone already.
    let _ = stdin.write_all(input);
    drop(stdin);
    let out = child.wait_with_output().unwrap();
    format!("{}{}", text(&out.stdout), text(&out.stderr))
}

#[test]
fn http_and_grpc_speak_tls_as_curl_and_openssl_know_it() {
    let certificates = Certificates::new();
    let board = board(&certificates, &[]);
    let (http, grpc) = (board.http.unwrap(), board.grpc.unwrap());
    // Who deploys is told where to call.
    let urls = board.upload("cat", "binary", 1, &crate::board::zip_of(CAT)).text();
    let lines = [format!("https://board:{}/cat", http.port()), format!("grpcs://board:{}/cat", grpc.port())];
    assert!(lines.iter().all(|line| urls.contains(line)) && urls.contains("coap://board:"), "{urls}");

    let body = crate::board::noise(300_000);
    let file = certificates.write("body", body.as_bytes());
    for version in ["1.2", "1.3"] {
        let args = ["--tls-max", version, "--data-binary", &format!("@{file}")];
        let (out, err) = curl(&certificates, http, "/cat", &args);
        assert!(out == body, "TLS {version}: {} bytes came back: {err}", out.len());
    }
    // Two requests on one connection, the second after the first has its answer.
    let url = format!("https://{http}/cat");
    let (out, err) = curl(&certificates, http, "/cat", &["-v", "--data", "a", &url]);
    assert_eq!(out, "aa", "{err}");
    assert!(err.contains("Re-using existing connection"), "{err}");
    assert_eq!(err.matches("SSL connection using").count(), 1, "{err}");

    let said = |args: &[&str]| s_client(http, args, b"");
    assert!(said(&["-tls1_2"]).contains("Protocol  : TLSv1.2"), "{}", said(&["-tls1_2"]));
    assert!(said(&["-tls1_3"]).contains("New, TLSv1.3"), "{}", said(&["-tls1_3"]));
    let old = said(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(old.contains("SSL alert number") && old.contains("Cipher is (NONE)"), "{old}");
    for (addr, right, wrong) in [(http, "http/1.1", "h2"), (grpc, "h2", "http/1.1")] {
        let chosen = s_client(addr, &["-alpn", right], b"");
        assert!(chosen.contains(&format!("ALPN protocol: {right}")), "{chosen}");
        let refused = s_client(addr, &["-alpn", wrong], b"");
        assert!(refused.contains("no application protocol"), "{refused}");
    }
}

#[test]
fn the_end_of_a_connection_is_told_and_an_answer_is_one_record() {
    let certificates = Certificates::new();
    let board = board(&certificates, &["--idle-timeout", "1s"]);
    let request = b"POST /cat HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    // Its messages, each with its direction and what it is; the server closes the connection that is idle.
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &board.http.unwrap().to_string(), "-msg", "-quiet", "-ign_eof"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(request).unwrap();
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    child.wait().unwrap();
    let out = text(&out);
    let (before, after) = out.split_once("HTTP/1.1 200 OK").expect(&out);
    assert!(after.contains("hello") && after.contains("close_notify"), "{out}");
    let records = |text: &str| {
        text.matches("<<< TLS 1.3, RecordHeader").count() + text.matches("<<< TLS 1.2, RecordHeader").count()
    };
    assert_eq!(records(after.split_once("hello").unwrap().0), 0, "{out}");
    assert!(records(before) > 0, "{out}");
}

#[test]
fn a_session_is_taken_up_again_without_memory_of_it() {
    let certificates = Certificates::new();
    let board = board(&certificates, &[]);
    let file = certificates.path("session");
    for version in ["-tls1_2", "-tls1_3"] {
        // The ticket of TLS 1.3 comes behind the handshake: an answer is waited for.
        let request = b"GET /cat HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let args = [version, "-sess_out", &file, "-ign_eof"];
        let first = s_client(board.http.unwrap(), &args, request);
        assert!(first.contains("\nNew, TLSv1"), "{first}");
        let again = s_client(board.http.unwrap(), &[version, "-sess_in", &file, "-ign_eof"], request);
        assert!(again.contains("Reused, TLSv1"), "{again}");
    }
}

#[test]
fn renegotiation_is_refused_and_the_connection_goes_on() {
    let certificates = Certificates::new();
    let board = board(&certificates, &[]);
    // R is s_client's command to ask for it.
    let out = s_client(board.http.unwrap(), &["-tls1_2"], b"R\n");
    assert!(out.contains("RENEGOTIATING") && out.contains("no renegotiation"), "{out}");
}

#[test]
fn sighup_takes_new_certificates_and_keeps_the_old_where_the_new_are_wrong() {
    let certificates = Certificates::new();
    let mut board = board(&certificates, &[]);
    let subject = |b: &Board| {
        let out = s_client(b.http.unwrap(), &[], b"");
        out.lines().find_map(|line| line.strip_prefix("subject=")).unwrap_or_default().replace(' ', "")
    };
    assert_eq!(subject(&board), "CN=server");
    let before = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &board.http.unwrap().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut before = before.unwrap();

    certificates.issue("next", "subjectAltName=DNS:localhost,IP:127.0.0.1", "2");
    fs::copy(certificates.path("next.pem"), certificates.path("server.pem")).unwrap();
    signal(board.pid().cast_signed(), "HUP");
    // The key is still the old one's.
    board.wait_for("the refusal", |b| b.log().contains("the certificates stay as they were").then_some(()));
    assert!(board.log().contains("server.key: this is not the key of the certificate in"), "{}", board.log());
    assert_eq!(subject(&board), "CN=server");

    fs::copy(certificates.path("next.key"), certificates.path("server.key")).unwrap();
    signal(board.pid().cast_signed(), "HUP");
    board.wait_for("the new certificate", |b| b.log().contains("certificates were read again").then_some(()));
    assert_eq!(subject(&board), "CN=next");
    assert_eq!(curl(&certificates, board.http.unwrap(), "/cat", &["--data", "x"]).0, "x");
    // A connection that was there goes on.
    let request = b"POST /cat HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nConnection: close\r\n\r\nold";
    before.stdin.as_mut().unwrap().write_all(request).unwrap();
    let mut out = String::new();
    before.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(out.ends_with("old"), "{out}");
    before.wait().unwrap();
}

#[test]
fn who_has_no_certificate_of_the_authority_does_not_reach_management() {
    let certificates = Certificates::new();
    certificates.issue("ann", "extendedKeyUsage=clientAuth", "2");
    let stranger = Certificates::new();
    stranger.issue("eve", "extendedKeyUsage=clientAuth", "2");
    let ca = certificates.path("ca.pem");
    // Beyond this machine, where without one tokens would be needed.
    let board = board(&certificates, &["--management", "0.0.0.0:0", "--management-client-ca", &ca]);
    let management = SocketAddr::from(([127, 0, 0, 1], board.management.port()));
    let ask = |who: &Certificates, name: &str| {
        curl(
            &certificates,
            management,
            "/list",
            &["--cert", &who.path(&format!("{name}.pem")), "--key", &who.path(&format!("{name}.key"))],
        )
    };
    assert_eq!(ask(&certificates, "ann"), (String::new(), String::new()));
    for version in ["1.2", "1.3"] {
        let (out, err) = curl(&certificates, management, "/list", &["--tls-max", version]);
        assert!(out.is_empty() && err.contains("alert"), "TLS {version}: {out}{err}");
    }
    let (out, err) = ask(&stranger, "eve");
    assert!(out.is_empty() && err.contains("alert unknown ca"), "{out}{err}");
    // The other doors are everybody's.
    assert_eq!(
        curl(&certificates, board.http.unwrap(), "/nothing", &["-w", "%{http_code}", "-o", "/dev/null"]).0,
        "404"
    );

    let host = format!("https://localhost:{}", management.port());
    let function = certificates.path("hello");
    fs::create_dir(&function).unwrap();
    fs::write(format!("{function}/fn.sh"), "cat\n").unwrap();
    let deploy = ["deploy", &function, "--host", &host, "--ca", &ca];
    let refused = tinyfaas(&deploy, &[]);
    let told = text(&refused.stderr);
    assert!(refused.status.code() == Some(3) && told.contains("CertificateRequired"), "{told}");
    assert!(told.contains("TINYFAAS_CLIENT_CERT"), "{told}");
    let (cert, key) = (certificates.path("ann.pem"), certificates.path("ann.key"));
    let done = tinyfaas(&deploy, &[("TINYFAAS_CLIENT_CERT", &cert), ("TINYFAAS_CLIENT_KEY", &key)]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    // Both in one file.
    let both = certificates.write("both.pem", [fs::read(&cert).unwrap(), fs::read(&key).unwrap()].concat().as_slice());
    let vars = [("TINYFAAS_HOST", &*host), ("TINYFAAS_CA", &ca), ("TINYFAAS_CLIENT_CERT", &both)];
    assert_eq!(text(&tinyfaas(&["list"], &vars).stdout), "hello\n");
    assert!(tinyfaas(&["logs", "hello"], &vars).status.success());
    assert!(tinyfaas(&["delete", "hello"], &vars).status.success());
}

#[test]
fn a_certificate_and_a_token_may_both_be_wanted() {
    let certificates = Certificates::new();
    certificates.issue("ann", "extendedKeyUsage=clientAuth", "2");
    let tokens = certificates.path("tokens");
    let made = tinyfaas(&["token", "new", "ann", "--file", &tokens], &[]);
    let token = text(&made.stdout);
    let ca = certificates.path("ca.pem");
    let board = board(&certificates, &["--management-client-ca", &ca, "--token-file", &tokens]);
    let (cert, key) = (certificates.path("ann.pem"), certificates.path("ann.key"));
    let ask = |more: &[&str]| {
        let args = [&["--cert", &cert, "--key", &key, "-w", "%{http_code}", "-o", "/dev/null"], more].concat();
        curl(&certificates, board.management, "/list", &args).0
    };
    assert_eq!(ask(&[]), "401");
    assert_eq!(ask(&["--oauth2-bearer", token.trim()]), "200");
}

#[test]
fn what_is_wrong_with_the_flags_or_the_files_is_one_line_and_the_server_does_not_start() {
    let certificates = Certificates::new();
    let dir = TempDir::new();
    let state = dir.0.join("state");
    let serve = |more: &[&str]| {
        let args = ["serve", "--backend", "process", "--management", "127.0.0.1:0", "--http", "off", "--coap", "off"];
        let out =
            tinyfaas(&[&args[..], &["--grpc", "off", "--state-dir", state.to_str().unwrap()], more].concat(), &[]);
        assert!(!out.status.success(), "{more:?}");
        let said = text(&out.stderr);
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("tinyfaas: ")).collect();
        assert_eq!(errors.len(), 1, "{said}");
        errors[0].to_owned()
    };
    let (cert, key, ca) =
        (certificates.path("server.pem"), certificates.path("server.key"), certificates.path("ca.pem"));
    let (ca_key, junk) = (certificates.path("ca.key"), certificates.write("junk", b"not PEM\n"));
    for (flags, said) in [
        (&["--tls-cert", &*cert][..], "name it with --tls-key"),
        (&["--tls-key", &key], "name it with --tls-cert and --tls-key"),
        (&["--management-client-ca", &ca], "name it with --tls-cert and --tls-key"),
        (&["--tls-doors", "http,coap", "--tls-cert", &cert, "--tls-key", &key], "\"coap\" is no door with TLS"),
        (
            &["--tls-doors", "http", "--tls-cert", &cert, "--tls-key", &key, "--management-client-ca", &ca],
            "add management to --tls-doors",
        ),
        (&["--tls-cert", "/nothing", "--tls-key", &key], "cannot read /nothing"),
        (&["--tls-cert", &cert, "--tls-key", "/nothing"], "cannot read /nothing"),
        (&["--tls-cert", &junk, "--tls-key", &key], "junk: there is no certificate in it"),
        (&["--tls-cert", &cert, "--tls-key", &junk], "junk: there is no private key in it"),
        (&["--tls-cert", &cert, "--tls-key", &ca_key], "ca.key: this is not the key of the certificate in"),
        (&["--tls-cert", &cert, "--tls-key", &key, "--management-client-ca", &junk], "--management-client-ca: "),
    ] {
        let error = serve(flags);
        assert!(error.contains(said), "{flags:?}: {error}");
    }
}

#[test]
fn what_clients_will_refuse_and_who_may_read_the_key_is_told() {
    let certificates = Certificates::new();
    certificates.issue("old", "subjectAltName=DNS:localhost", "-1");
    fs::set_permissions(certificates.path("server.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let start = |cert: &str, key: &str| {
        let flags = ["--tls-cert", &certificates.path(cert), "--tls-key", &certificates.path(key)];
        Board::start(Backend::Process, &flags).log()
    };
    let log = start("server.pem", "server.key");
    assert!(log.contains("WARN --tls-key: others than its owner may read"), "{log}");
    assert!(!log.contains("clients will refuse"), "{log}");
    let log = start("old.pem", "old.key");
    assert!(log.contains("WARN --tls-cert: clients will refuse what is in") && log.contains("it has expired"), "{log}");
    assert!(!log.contains("--tls-key"), "{log}");
    let log = start("ca.pem", "ca.key");
    assert!(log.contains("basicConstraints=critical,CA:FALSE"), "{log}");
}

#[test]
fn doors_are_chosen_and_the_file_of_settings_may_say_so() {
    let certificates = Certificates::new();
    let (cert, key) = (certificates.path("server.pem"), certificates.path("server.key"));
    let settings = serde_json::json!({"tls-cert": cert, "tls-key": key, "tls-doors": "grpc,management"});
    let file = certificates.write("tinyfaas.json", settings.to_string().as_bytes());
    let board = Board::start(Backend::Process, &["--config", &file]);
    assert_eq!(board.call("nobody", b"").status, 404, "HTTP is in the clear");
    assert_eq!(curl(&certificates, board.management, "/list", &[]), (String::new(), String::new()));
    assert!(s_client(board.grpc.unwrap(), &["-alpn", "h2"], b"").contains("ALPN protocol: h2"));
    // Who asks in the clear is told.
    let answer = board.manage("GET", "/list", b"");
    assert_eq!((answer.status, &*answer.text()), (400, "this port speaks TLS: use https://\n"));
}

#[test]
fn logs_are_followed_over_tls_and_the_end_of_their_reader_is_seen() {
    let certificates = Certificates::new();
    let board = board(&certificates, &[]);
    board.deploy("says", "binary", 1, &[("fn.sh", "cat >&2\n")]);
    let board = board.restart_with(&["--tls-doors", "http,grpc,management"]);
    let (ca, host) = (certificates.path("ca.pem"), format!("https://localhost:{}", board.management.port()));
    let mut followers: Vec<Lines> = (0..8).map(|_| Lines::at(&host, &["-f", "says", "--ca", &ca])).collect();
    for word in ["one\n", "two\n"] {
        assert_eq!(curl(&certificates, board.http.unwrap(), "/says", &["--data-binary", word]), Default::default());
        assert!(followers.iter().all(|follower| follower.next() == word.trim_end()));
    }
    let place = || curl(&certificates, board.management, "/logs?tail=1&name=says", &[]).0;
    assert!(place().starts_with("8 streams of logs are open already"), "{}", place());
    // Killed in the middle of nothing.
    drop(followers.pop());
    eventually("a place", || place().ends_with(" two\n").then_some(()));
}
