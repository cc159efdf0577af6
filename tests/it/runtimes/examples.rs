//! The functions in `examples/` answer what their readers are told.

use super::*;

/// A handler of one of `examples/`, and what it answers to the `input.txt` beside it.
fn example(runtime: Runtime, name: &str) -> (Handler, Reply) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let mut handler = Handler::spawn(runtime, &[], &[("TINYFAAS_FUNCTION_DIR", folder.to_str().unwrap())]);
    handler.wait_for("the example listens", |h| UnixStream::connect(h.folder.0.join("s")).is_ok());
    let reply = handler.call(&std::fs::read(folder.join("input.txt")).unwrap());
    assert_eq!(reply.status, 200, "{reply:?}");
    (handler, reply)
}

#[test]
fn the_sensor_example_raises_its_alarms() {
    let (handler, reply) = example(Runtime::PYTHON3, "sensor");
    assert!(reply.text().contains(r#""alarm": "high""#), "{reply:?}");
    for n in 0..20 {
        let reply = handler.call(format!(r#"{{"sensor": "a", "value": {}}}"#, 20 + n % 2).as_bytes());
        assert!(reply.text().contains(r#""alarm": null"#), "{reply:?}");
    }
    assert!(handler.call(b"sensor=a value=90").text().contains(r#""alarm": "jump""#));
    assert!(handler.call(b"sensor=a value=1 low=5").text().contains(r#""alarm": "low""#));
    assert_eq!((handler.call(b"").status, handler.call(b"value=x").status), (400, 400));
}

#[test]
fn the_lines_example_reads_the_line_protocol() {
    let (handler, reply) = example(Runtime::NODEJS, "lines");
    let roof =
        r#"{"measurement":"weather","tags":{"site":"roof"},"fields":{"temp":21.5,"wet":false},"time":"1700000000"}"#;
    let cellar = r#"{"measurement":"weather","tags":{"site":"cellar"},"fields":{"temp":12}}"#;
    assert_eq!(reply.text(), format!("[{roof},{cellar}]\n"));
    let wrong = handler.call(b"a b=1\nnonsense");
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().starts_with("line 2: "), "{wrong:?}");
}

#[test]
fn the_summary_example_counts() {
    let (handler, reply) = example(Runtime::BINARY, "summary");
    assert!(reply.text().starts_with("count 7\nmin 21.4\nmax 25.1\nmean 22.1714\n"), "{reply:?}");
    let none = handler.call(b"words\n");
    assert_eq!((none.status, none.text().as_str()), (500, "no numbers: send one a line"));
}
