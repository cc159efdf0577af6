//! Where a Docker engine listens, as `DOCKER_HOST` says it.

use std::fmt;
use std::path::PathBuf;

/// The engine's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineAddress {
    /// A unix socket of this machine.
    Unix(PathBuf),
    /// Cleartext HTTP over TCP, most often on another machine.
    Tcp {
        /// Name or IP address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
}

impl EngineAddress {
    /// The socket that an engine has unless it was told otherwise.
    pub const DEFAULT: &str = "unix:///var/run/docker.sock";
    /// The port of an engine without TLS.
    const PORT: u16 = 2375;

    /// Takes an address in the form of `DOCKER_HOST`.
    ///
    /// # Errors
    /// One line that names what is supported.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("engine address {text:?}: {why}; use unix:///path or tcp://host:port");
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(bad("the socket's path must be absolute"));
            }
            return Ok(Self::Unix(path.into()));
        }
        let Some(rest) = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")) else {
            return Err(bad("only unix:// and tcp:// are supported (reach ssh:// and TLS through a tunnel)"));
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || host.bytes().any(|b| b <= b' ' || b"/?#@[]".contains(&b)) {
            return Err(bad("there is no host in it"));
        }
        let port = match port {
            None => Self::PORT,
            Some(port) => {
                port.parse().ok().filter(|&p| p != 0).ok_or_else(|| bad("the port is no number up to 65535"))?
            }
        };
        Ok(Self::Tcp { host: host.into(), port })
    }

    /// Whether a folder of this machine can be mounted into the engine's containers.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_host_is_understood_in_all_its_forms() {
        let tcp = |host: &str, port| EngineAddress::Tcp { host: host.into(), port };
        for (text, address) in [
            ("unix:///var/run/docker.sock", EngineAddress::Unix("/var/run/docker.sock".into())),
            ("tcp://10.0.0.7:2376", tcp("10.0.0.7", 2376)),
            ("tcp://board", tcp("board", 2375)),
            ("http://board:1/", tcp("board", 1)),
            ("tcp://[::1]:2375", tcp("::1", 2375)),
            ("tcp://[fe80::1]", tcp("fe80::1", 2375)),
        ] {
            assert_eq!(EngineAddress::parse(text), Ok(address), "{text}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for text in [
            "",
            "ssh://me@board",
            "https://board:2376",
            "unix://docker.sock",
            "tcp://",
            "tcp://:1",
            "tcp://a:0",
            "tcp://a:65536",
            "tcp://a b:1",
            "tcp://[::1",
            "npipe:////./pipe/docker_engine",
        ] {
            let error = EngineAddress::parse(text).unwrap_err();
            assert!(error.contains("use unix:///path or tcp://host:port"), "{error}");
        }
    }
}
