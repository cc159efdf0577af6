//! What is the `binary` runtime's own: processes, their input and output, and how they end.

use super::*;

#[test]
fn a_script_sees_its_call_in_the_environment() {
    let text = "echo \"$REQUEST_METHOD|$PATH_INFO|$QUERY_STRING|$CONTENT_TYPE|$CONTENT_LENGTH|$HTTP_X_ONE|$HTTP_PROXY|$TINYFAAS_SOCKET\"\n";
    let handler = Handler::start(Runtime::BINARY, &[("fn.sh", text)]);
    let headers = "X-One: 1 2\r\nProxy: evil\r\nContent-Type: text/csv\r\nX-Tinyfaas-Method: PUT\r\nX-Tinyfaas-Path: /p\r\nX-Tinyfaas-Query: a=b\r\n";
    assert_eq!(handler.connect().call(headers, b"abc").text(), "PUT|/p|a=b|text/csv|3|1 2||\n");
}

#[test]
fn a_script_that_ignores_its_input_answers_and_the_connection_lives_on() {
    let handler = Handler::start(Runtime::BINARY, &[("fn.sh", "echo ignored\n")]);
    let mut client = handler.connect();
    for _ in 0..3 {
        // Sent whole before anything is read: the handler has to read all of it.
        let reply = client.call("", &vec![b'x'; 4 * 1024 * 1024]);
        assert_eq!((reply.status, reply.text().as_str()), (200, "ignored\n"));
    }
}

#[test]
fn long_output_streams_while_the_script_runs() {
    let text = "head -c 100000 /dev/zero; cat >/dev/null; echo end\n";
    let handler = Handler::start(Runtime::BINARY, &[("fn.sh", text)]);
    let mut client = handler.connect();
    // The head comes although the body, and so the script, has not ended.
    client.send(b"POST /fn HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\na");
    assert!(client.head().contains("transfer-encoding: chunked"));
    client.send(b"b");
    let mut size = 0;
    loop {
        let chunk = usize::from_str_radix(&client.line(), 16).unwrap();
        size += chunk;
        client.take(chunk + 2);
        if chunk == 0 {
            break;
        }
    }
    assert_eq!(size, 100_004);
}

#[test]
fn a_script_that_fails_late_breaks_its_answer_off() {
    let handler = Handler::start(Runtime::BINARY, &[("fn.sh", "head -c 100000 /dev/zero; exit 1\n")]);
    let mut client = handler.connect();
    client.send(b"POST /fn HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(client.head().starts_with("http/1.1 200"));
    while client.fill() {}
    assert!(!client.rest.ends_with(b"0\r\n\r\n"));
}

#[test]
fn a_script_that_says_nothing_fails_with_its_exit_status() {
    let handler = Handler::start(Runtime::BINARY, &[("fn.sh", "exit 7\n")]);
    let reply = handler.call(b"");
    assert_eq!((reply.status, reply.text().as_str()), (500, "fn.sh ended with exit status 7"));
    let handler = Handler::start(Runtime::BINARY, &[("fn.sh", "echo partly; exit 7\n")]);
    assert_eq!(handler.call(b"").text(), "partly");
}

#[test]
fn what_a_script_leaves_running_neither_delays_its_answer_nor_stays() {
    let text = "sleep 1000 & echo $!\n";
    let handler = Handler::start(Runtime::BINARY, &[("fn.sh", text)]);
    let reply = handler.call(b"");
    assert_eq!(reply.status, 200);
    let left = PathBuf::from(format!("/proc/{}", reply.text().trim()));
    let start = Instant::now();
    // Nobody may be there to reap it: then its dead entry stays.
    let is_gone = || !std::fs::read_to_string(left.join("stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while !is_gone() {
        assert!(start.elapsed() < PATIENCE, "it still runs");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_caller_that_goes_away_takes_its_process_along() {
    let mut handler = Handler::start(Runtime::BINARY, &[("fn.sh", "echo \"pid $$\" >&2; sleep 1000; echo late\n")]);
    let mut client = handler.connect();
    client.send(b"POST /fn HTTP/1.1\r\nhost: h\r\n\r\n");
    handler.wait_for("the script runs", |h| h.log().contains("pid "));
    let pid = handler.log().trim().trim_start_matches("pid ").to_owned();
    drop(client);
    handler.wait_for("the script is gone", |_| !Path::new("/proc").join(&pid).exists());
}

#[test]
fn an_executable_script_runs_by_what_its_first_line_names() {
    use std::os::unix::fs::PermissionsExt;
    let handler = Handler::start(Runtime::BINARY, &[("fn.sh", "echo sh\n")]);
    assert_eq!(handler.call(b"").text(), "sh\n");
    drop(handler);
    let mut handler =
        Handler::spawn(Runtime::BINARY, &[("fn.sh", "exit 1")], &[("TINYFAAS_FUNCTION_DIR", "/nonexistent")]);
    assert!(!handler.exit().success());
    let script = handler.folder.0.join("fn/fn.sh");
    std::fs::write(&script, "#!/usr/bin/env python3\nprint('python')\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = command(Runtime::BINARY, &handler.folder.0);
    command.env("TINYFAAS_SOCKET", handler.folder.0.join("s"));
    command.env("TINYFAAS_FUNCTION_DIR", handler.folder.0.join("fn"));
    handler.child = command.spawn().unwrap();
    handler.wait_for("it listens", |h| UnixStream::connect(h.folder.0.join("s")).is_ok());
    assert_eq!(handler.call(b"").text(), "python\n");
}
