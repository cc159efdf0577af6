//! What is Node's own: express's conventions, every kind of module, memory.

use super::*;

#[test]
fn node_gives_what_express_gives() {
    let text = r"module.exports = (req, res) => res.status(201).set('X-A', 'b').json({
        body: req.body, method: req.method, query: req.query, path: req.path, header: req.get('X-One'), raw: req.rawBody.length });";
    let handler = Handler::start(Runtime::NODEJS, &[("index.js", text)]);
    let headers =
        "X-One: 1\r\nX-Tinyfaas-Method: GET\r\nX-Tinyfaas-Query: a=1&b=x%20y\r\nX-Tinyfaas-Path: /deep/er\r\n";
    let reply = handler.connect().call(headers, "ü".as_bytes());
    let expected = r#"{"body":"ü","method":"GET","query":{"a":"1","b":"x y"},"path":"/deep/er","header":"1","raw":2}"#;
    assert_eq!((reply.status, reply.text().as_str()), (201, expected));
    assert!(reply.head.contains("x-a: b\n"), "{reply:?}");
    assert!(reply.head.contains("content-type: application/json; charset=utf-8\n"), "{reply:?}");
}

#[test]
fn node_sends_strings_buffers_objects_and_streams() {
    let text = r"module.exports = (req, res) => {
        switch (req.body) {
            case 'string': return res.send('text');
            case 'buffer': return res.send(Buffer.from([255, 0]));
            case 'object': return res.send({ a: [1] });
            case 'nothing': return res.status(204).send();
            case 'type': return res.type('text/csv').send('a,b');
            case 'stream': res.write('one '); return setImmediate(() => res.end('two'));
            case 'stray': setImmediate(() => { throw new Error('astray'); }); return res.send('sent');
            case 'reject': return Promise.reject(new Error('rejected'));
            case 'throw': throw 'thrown text';
            case 'late': res.send('sent'); throw new Error('too late');
            case 'unhandled': Promise.reject(new Error('nobody')); return res.send('sent');
        }
    };";
    let handler = Handler::start(
        Runtime::NODEJS,
        &[("package.json", r#"{"name": "fn", "main": "lib/main.js"}"#), ("lib/main.js", text)],
    );
    let mut client = handler.connect();
    let mut call = |body: &str| client.call("", body.as_bytes());
    assert_eq!(call("string").text(), "text");
    assert_eq!(call("buffer").body, [255, 0]);
    assert_eq!(call("object").text(), r#"{"a":[1]}"#);
    assert_eq!(call("nothing").status, 204);
    assert!(call("type").head.contains("content-type: text/csv"));
    assert_eq!(call("stream").text(), "one two");
    assert_eq!(call("stray").text(), "sent");
    assert_eq!((call("reject").status, call("reject").text()), (500, "rejected".into()));
    assert_eq!((call("throw").status, call("throw").text()), (500, "thrown text".into()));
    assert_eq!(call("unhandled").text(), "sent");
    assert_eq!(call("late").text(), "sent");
    assert_eq!(call("string").text(), "text");
    assert!(handler.log().contains("astray") && handler.log().contains("nobody"), "{}", handler.log());
    assert!(handler.log().contains("too late"), "{}", handler.log());
}

#[test]
fn node_gives_memory_back_after_long_bodies() {
    // 20 MiB as bytes, as text and as bytes again, three times: without help node keeps over 200 MB.
    let text = "if (globalThis.gc) throw new Error('gc shows');\nmodule.exports = (req, res) => res.send(req.body);\n";
    let mut handler = Handler::start(Runtime::NODEJS, &[("index.js", text)]);
    let body = vec![b'x'; 20 * 1024 * 1024];
    for _ in 0..3 {
        assert_eq!(handler.call(&body).body.len(), body.len());
    }
    handler.wait_for("the memory is given back", |h| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", h.child.id())).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap() < 110_000
    });
}

#[test]
fn node_finds_every_kind_of_module() {
    let es = "export default async (req, res) => { res.send('es ' + req.body); };\n";
    let common = "exports.default = (req, res) => res.send('es ' + req.body);\n";
    for files in [
        &[("fn.js", common)][..],
        &[("fn.mjs", es)],
        &[("package.json", r#"{"type": "module", "main": "a.js"}"#), ("a.js", es)],
        &[("package.json", r#"{"main": "a.mjs"}"#), ("a.mjs", es)],
    ] {
        assert_eq!(Handler::start(Runtime::NODEJS, files).call(b"x").text(), "es x", "{files:?}");
    }
}
