//! An authority and what it issues, made by the `openssl` program.

use std::fs;
use std::process::Command;

use crate::board::TempDir;

/// A folder with `ca.pem` and `ca.key`, and `server.pem` and `server.key` for localhost and 127.0.0.1.
pub struct Certificates(TempDir);

impl Certificates {
    pub fn new() -> Self {
        let new = Self(TempDir::new());
        let name = format!("/CN=authority of {}", new.path("").replace('/', "."));
        new.openssl(&["req", "-x509", "-days", "2", "-subj", &name, "-keyout", "ca.key", "-out", "ca.pem"], true);
        new.issue("server", "subjectAltName=DNS:localhost,IP:127.0.0.1", "2");
        new
    }

    /// Issues `NAME.pem` with its key `NAME.key`, with the extension, for so many days.
    pub fn issue(&self, name: &str, extension: &str, days: &str) {
        let (key, request, cert) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        self.openssl(&["req", "-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &request], true);
        self.write("extension", extension.as_bytes());
        let sign = ["x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extension"];
        self.openssl(&[&sign[..], &["-days", days, "-in", &request, "-out", &cert]].concat(), false);
    }

    pub fn path(&self, name: &str) -> String {
        self.0.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn openssl(&self, args: &[&str], new_key: bool) {
        let key: &[&str] =
            if new_key { &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"] } else { &[] };
        let out = Command::new("openssl").args(args).args(key).current_dir(&self.0.0).output().unwrap();
        assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
}
