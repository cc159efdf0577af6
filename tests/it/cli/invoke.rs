//! `tinyfaas invoke` over HTTP.

use super::*;

/// Runs `invoke` against the HTTP front door of `server`.
fn invoke(server: &Scripted, args: &[&str]) -> Command {
    let mut command = tinyfaas(&["invoke", "hello", "--http-port", &server.addr.port().to_string()]);
    command.args(args);
    command
}

#[test]
fn invoke_gets_and_with_data_it_posts() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhi\n";
    let server = Scripted::answers(answer);
    assert_output(&invoke(&server, &[]).output().unwrap(), DONE, "hi\n", "");
    assert_eq!(server.request(), request_line_and_fields("GET /hello", ""));

    let server = Scripted::answers(answer);
    let args = ["--data", "w\u{f6}", "--header", "X-A:  b ", "--path", "a b/c?", "--query", "q=1 2", "--async"];
    assert_output(&invoke(&server, &args).output().unwrap(), DONE, "hi\n", "");
    let fields = "X-A: b\r\nX-tinyFaaS-Async: true\r\nContent-Length: 3\r\n";
    assert_eq!(server.request(), request_line_and_fields("POST /hello/a%20b/c%3F?q=1%202", fields) + "w\u{f6}");
}

#[test]
fn invoke_takes_a_url_and_a_method() {
    let server = Scripted::answers("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    let url = format!("http://{}/x/y?z", server.addr);
    let output = tinyfaas(&["invoke", &url, "--method", "head", "--query", "q"]).output().unwrap();
    assert_output(&output, DONE, "", "");
    assert_eq!(server.request(), request_line_and_fields("HEAD /x/y?z&q", ""));
}

#[test]
fn invoke_sends_a_file_with_its_length_and_standard_input_in_chunks() {
    let folder = Folder::new("file", &[("in", b"12345")]);
    let file = folder.function().join("in");
    let server = Scripted::answers(EMPTY_OK);
    let output = invoke(&server, &["--file", file.to_str().unwrap()]).output().unwrap();
    assert_output(&output, DONE, "", "");
    assert_eq!(server.request(), request_line_and_fields("POST /hello", "Content-Length: 5\r\n") + "12345");

    let server = Scripted::answers(EMPTY_OK);
    let mut child = spawn_with_stdin(&mut invoke(&server, &["-"]));
    child.stdin.take().unwrap().write_all(b"12345").unwrap();
    assert_output(&child.wait_with_output().unwrap(), DONE, "", "");
    let fields = "Transfer-Encoding: chunked\r\n";
    let expected = request_line_and_fields("POST /hello", fields) + "0005\r\n12345\r\n0\r\n\r\n";
    assert_eq!(server.request(), expected);
}

#[test]
fn invoke_reads_the_answer_while_it_sends() {
    const SIZE: usize = 20 << 20;
    let folder = Folder::new("echo", &[("in", &vec![b'e'; SIZE])]);
    let file = folder.function().join("in");
    // An echo that holds nothing: whoever writes all before it reads would wait for ever.
    let server = Scripted::with(|stream| {
        let mut buf = vec![0; 4096];
        let n = stream.read(&mut buf).unwrap();
        let start = head_end(&buf[..n]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        stream.write_all(&buf[start..n]).unwrap();
        let mut left = SIZE - (n - start);
        while left > 0 {
            let n = stream.read(&mut buf).unwrap();
            stream.write_all(&buf[..n]).unwrap();
            left -= n;
        }
        Vec::new()
    });
    let output = invoke(&server, &["--file", file.to_str().unwrap()]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(DONE), SIZE), "{}", text(&output.stderr));
}

#[test]
fn invoke_ends_with_the_answer_even_while_standard_input_is_open() {
    let server = Scripted::with(|stream| {
        let mut some = [0; 10];
        stream.read_exact(&mut some).unwrap();
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno").unwrap();
        Vec::new()
    });
    let mut child = spawn_with_stdin(&mut invoke(&server, &["-"]));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a reading").unwrap();
    let output = child.wait_with_output().unwrap();
    // Only now the input ends.
    drop(stdin);
    assert_eq!(output.status.code(), Some(NOT_FOUND), "{}", text(&output.stderr));
}

#[test]
fn interim_answers_are_passed_over() {
    let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhi";
    let server = Scripted::answers(answer);
    assert_output(&invoke(&server, &[]).output().unwrap(), DONE, "hi", "");
}
