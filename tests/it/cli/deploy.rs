//! `tinyfaas deploy`: what is sent, and what is said.

use super::*;

/// Reads an archive with Python and compares it with a folder: names, contents, modes, links.
const SAME_FOLDER: &str = r#"
import os, stat, sys, zipfile
archive, folder = zipfile.ZipFile(sys.argv[1]), sys.argv[2]
assert archive.testzip() is None
seen = set()
for info in archive.infolist():
    mode, path = info.external_attr >> 16, os.path.join(folder, info.filename)
    real = os.lstat(path.rstrip('/'))
    assert stat.S_IFMT(mode) == stat.S_IFMT(real.st_mode) and info.is_dir() == stat.S_ISDIR(mode), path
    if stat.S_ISLNK(mode):
        assert archive.read(info).decode() == os.readlink(path), path
    else:
        assert stat.S_IMODE(mode) == stat.S_IMODE(real.st_mode), (path, oct(mode))
    if stat.S_ISREG(mode):
        assert archive.read(info) == open(path, 'rb').read(), path
    seen.add(info.filename.rstrip('/'))
want = {os.path.relpath(os.path.join(at, name), folder) for at, dirs, files in os.walk(folder) for name in dirs + files}
assert seen == {name for name in want if name.split('/')[0] != '.git'}, (seen, want)
"#;

fn assert_same_folder(zip: &[u8], folder: &Path) {
    let path = folder.with_extension("zip");
    fs::write(&path, zip).unwrap();
    let output = Command::new("python3").args(["-c", SAME_FOLDER]).args([&path, folder]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn uploaded(request: &[u8]) -> (serde_json::Value, Vec<u8>) {
    use base64::Engine;
    let mut json: serde_json::Value = serde_json::from_slice(&body_of(request)).unwrap();
    let zip = json.as_object_mut().unwrap().remove("zip").unwrap();
    (json, base64::engine::general_purpose::STANDARD.decode(zip.as_str().unwrap()).unwrap())
}

#[test]
fn deploy_sends_the_folder_as_it_is_and_prints_the_urls() {
    let noise: Vec<u8> = (0..300_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let folder = Folder::new(
        "deploy",
        &[("fn.py", b"def fn(i): return i\n"), ("lib/data.bin", &noise), ("empty", b""), (".git/HEAD", b"x")],
    );
    fs::set_permissions(folder.function().join("fn.py"), fs::Permissions::from_mode(0o751)).unwrap();
    std::os::unix::fs::symlink("fn.py", folder.function().join("link.py")).unwrap();
    fs::create_dir(folder.function().join("none")).unwrap();
    fs::write(folder.function().join("na\u{ef}ve \"x\".txt"), "x").unwrap();

    let server = Scripted::answers("HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\nhttp://127.0.0.1:8000/hello");
    let output = manage(
        &server,
        &[
            "deploy",
            &folder.arg(),
            "--threads",
            "3",
            "--env-var",
            "A=b\"c=d",
            "--env-var=E=",
            "--memory",
            "65536Ki",
            "--cpu=500m",
            "--pids=9",
            "--timeout=90s",
            "--concurrency=3",
            "--queue=0",
            "--idle=300s",
        ],
    );
    assert_output(&output, DONE, "http://127.0.0.1:8000/hello", "");
    let request = server.bytes();
    let head = String::from_utf8(request[..head_end(&request).unwrap()].to_vec()).unwrap();
    assert!(head.starts_with("POST /upload HTTP/1.1\r\n"), "{head}");
    let (json, zip) = uploaded(&request);
    let expected = serde_json::json!({
        "name": "hello", "env": "python3", "threads": 3, "envs": ["A=b\"c=d", "E="], "limits": {
            "memory": "64Mi", "cpu": "500m", "pids": 9, "timeout": "90s", "concurrency": 3, "queue": 0,
        },
        "idle": "5m",
    });
    assert_eq!(json, expected);
    assert_same_folder(&zip, &folder.function());
}

#[test]
fn deploy_takes_a_zip_file_as_it_is() {
    let folder = Folder::new("zip", &[]);
    let zip = folder.0.join("fromzip.zip");
    fs::write(&zip, b"PK\x05\x06 and so on").unwrap();
    let server = Scripted::answers(EMPTY_OK);
    let output = manage(&server, &["deploy", zip.to_str().unwrap(), "--env", "nodejs"]);
    assert_output(&output, DONE, "", "");
    let (json, sent) = uploaded(&server.bytes());
    assert_eq!(json, serde_json::json!({"name": "fromzip", "env": "nodejs", "threads": 1}));
    assert_eq!(sent, b"PK\x05\x06 and so on");
}

#[test]
fn deploy_from_a_url_names_the_folder_in_it() {
    let server = Scripted::answers(EMPTY_OK);
    let args = [
        "deploy",
        "--url",
        "https://x.example/a.zip",
        "--subfolder",
        "fns/hello/",
        "--env",
        "binary",
        "--threads",
        "2",
    ];
    assert_output(&manage(&server, &args), DONE, "", "");
    let request = server.bytes();
    assert!(request.starts_with(b"POST /uploadURL HTTP/1.1\r\n"));
    let expected = serde_json::json!({
        "name": "hello", "env": "binary", "threads": 2, "url": "https://x.example/a.zip", "subfolder_path": "fns/hello/",
    });
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&body_of(&request)).unwrap(), expected);
}

#[test]
fn deploy_shows_why_it_was_refused_before_the_upload_s_end() {
    let noise: Vec<u8> = (0..8_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let folder = Folder::new("refused", &[("fn.sh", &noise)]);
    let server = Scripted::with(|stream| {
        let mut some = [0; 1000];
        stream.read_exact(&mut some).unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 8\r\n\r\ntoo much").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        std::io::copy(stream, &mut std::io::sink()).unwrap();
        Vec::new()
    });
    assert_output(&manage(&server, &["deploy", &folder.arg()]), FAILED, "", "tinyfaas: HTTP 413: too much\n");
}

#[test]
fn deploy_names_a_file_that_cannot_be_packed() {
    let folder = Folder::new("socket", &[("fn.sh", b"cat")]);
    let path = folder.function().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = Scripted::with(|stream| {
        let _ = std::io::copy(stream, &mut std::io::sink());
        Vec::new()
    });
    let output = manage(&server, &["deploy", &folder.arg()]);
    let expected = format!("tinyfaas: cannot pack {}: it is neither a file nor a folder nor a link\n", path.display());
    assert_output(&output, USAGE, "", &expected);
}
