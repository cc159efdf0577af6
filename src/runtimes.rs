//! stub
#![allow(missing_docs)]
use crate::function::Runtime;
pub struct Spec {
    pub runtime: Runtime,
    pub dockerfile: &'static str,
    pub files: &'static [File],
    pub command: &'static [&'static str],
    pub base: &'static str,
    pub host: Host,
    pub dependencies: Option<Dependencies>,
}
pub struct File {
    pub name: &'static str,
    pub mode: u32,
    pub content: Content,
}
pub enum Content {
    Bytes(&'static [u8]),
    OwnExecutable,
}
pub struct Host {
    pub interpreter: &'static str,
    pub command: &'static [&'static str],
}
pub struct Dependencies {
    pub file: &'static str,
    pub in_container: &'static [&'static str],
    pub on_host: &'static [&'static str],
}
const PY: &[u8] = b"import os,sys,socket,socketserver,http.server,importlib.util as u
d=os.environ['TINYFAAS_FUNCTION_DIR'];s=u.spec_from_file_location('fn',d+'/fn.py');m=u.module_from_spec(s);s.loader.exec_module(m)
class H(http.server.BaseHTTPRequestHandler):
    protocol_version='HTTP/1.1'
    def address_string(self): return ''
    def log_message(self,*a): pass
    def r(self,b):
        self.send_response(200);self.send_header('content-length',str(len(b)));self.end_headers();self.wfile.write(b)
    def do_GET(self): self.r(b'ok')
    def do_POST(self): self.r((m.fn(self.rfile.read(int(self.headers.get('content-length',0))).decode()) or '').encode())
class S(socketserver.ThreadingUnixStreamServer): pass
S(os.environ['TINYFAAS_SOCKET'],H).serve_forever()
";
static P: Spec = Spec {
    runtime: Runtime::Python3,
    dockerfile: "ARG BASE\nFROM ${BASE}\nCOPY handler.py /tinyfaas/\nCMD [\"python3\",\"/tinyfaas/handler.py\"]\n",
    files: &[File { name: "handler.py", mode: 0o644, content: Content::Bytes(PY) }],
    command: &["python3", "/tinyfaas/handler.py"],
    base: "python:3.13-alpine",
    host: Host { interpreter: "python3", command: &["{interpreter}", "-B", "{program}/handler.py"] },
    dependencies: Some(Dependencies {
        file: "requirements.txt",
        in_container: &[],
        on_host: &["python3", "-m", "pip", "install", "--target", "{dir}/.deps", "-r", "{dir}/requirements.txt"],
    }),
};
pub fn spec(_r: Runtime) -> &'static Spec {
    &P
}
pub fn needs_install(_r: Runtime, f: &[u8]) -> bool {
    !f.is_empty()
}
