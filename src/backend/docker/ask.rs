//! Questions to the engine. An answer holds only what is used of it.
//!
//! bollard's models hold every field that an engine may send, and reading those for six questions was a twelfth of the
//! program's code, all of it touched at the start. What creates or streams goes through bollard; questions take its
//! transport and its errors, and are read here.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::errors::Error;
use bollard::{BollardRequest, body_full};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;

use super::transport::Transport;

/// Most bytes of an answer. The longest one is the list of containers, with 2 KiB for each.
const MAX_ANSWER: usize = 8 << 20;
/// Longest line of what an engine tells of its work, in bytes.
const MAX_LINE: usize = 16 * 1024;

/// What the engine says of itself.
#[derive(Deserialize)]
pub struct Version {
    /// The newest API that it speaks.
    #[serde(rename = "ApiVersion", default)]
    pub api: String,
}

/// A container in a list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// The engine's own id of it.
    pub id: Option<String>,
    names: Option<Vec<String>>,
    labels: Option<HashMap<String, String>>,
    mounts: Option<Vec<Mounted>>,
    ports: Option<Vec<Port>>,
    network_settings: Option<Networks>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mounted {
    destination: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    private_port: u16,
    public_port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Networks {
    networks: Option<HashMap<String, Attached>>,
}

#[derive(Deserialize)]
struct Attached {
    #[serde(rename = "IPAddress")]
    ip: Option<String>,
}

impl Container {
    /// The name that we gave it.
    pub fn name(&self) -> Option<&str> {
        // Links of other containers are names with a second slash.
        self.names.iter().flatten().filter_map(|name| name.strip_prefix('/')).find(|name| !name.contains('/'))
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether something is mounted at `path` in it.
    pub fn mounts(&self, path: &str) -> bool {
        self.mounts.iter().flatten().any(|mounted| mounted.destination.as_deref() == Some(path))
    }

    /// The port of the engine's machine at which the container's own `port` is published.
    pub fn published(&self, port: u16) -> Option<u16> {
        self.ports.iter().flatten().find(|found| found.private_port == port)?.public_port
    }

    /// Its addresses, one for each network.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let networks = self.network_settings.iter().flat_map(|settings| settings.networks.iter().flatten());
        networks.filter_map(|(_, attached)| attached.ip.as_deref())
    }
}

/// A container as it is looked at by itself.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    /// How it is.
    #[serde(default)]
    pub state: State,
}

/// How a container is.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// It runs.
    pub running: bool,
    /// It is between two runs.
    pub restarting: bool,
    /// When it was started; in year 1 where it never was.
    pub started_at: Option<String>,
    /// Its status, once it ended.
    pub exit_code: Option<i64>,
    /// The kernel killed for memory in it.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
}

/// An image in a list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    /// Its id.
    pub id: String,
    labels: Option<HashMap<String, String>>,
    repo_tags: Option<Vec<String>>,
}

impl Image {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// What it is removed by: its tags, or its id where it has none, as one that lost its tag to a build of the same.
    pub fn names(&self) -> Vec<&str> {
        let tags = self.repo_tags.iter().flatten().map(String::as_str);
        // Engines before 25 write it for an image without a tag, and understand it nowhere.
        let tags = tags.filter(|tag| *tag != "<none>:<none>").collect::<Vec<_>>();
        if tags.is_empty() { vec![&self.id] } else { tags }
    }
}

/// An image as it is looked at by itself.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectedImage {
    /// What its containers start with.
    pub config: Option<Start>,
}

/// What containers of an image start with, in the engine's words.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Start {
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub env: Option<Vec<String>>,
}

/// A network in a list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A network as it is looked at by itself.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectedNetwork {
    driver: Option<String>,
    #[serde(rename = "IPAM")]
    ipam: Option<Ipam>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    config: Option<Vec<Subnet>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Subnet {
    gateway: Option<IpAddr>,
}

impl InspectedNetwork {
    /// The address of the engine's machine in it, by IPv4 where there is one. Other networks than bridges have gateways elsewhere.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.ipam.as_ref().filter(|_| self.driver.as_deref() == Some("bridge")).and_then(|ipam| {
            let all = || ipam.config.iter().flatten().filter_map(|subnet| subnet.gateway);
            all().find(IpAddr::is_ipv4).or_else(|| all().next())
        })
    }
}

/// The engine's words for a refusal.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// `path` with a query for what `filters` let through.
pub fn filtered(path: &str, filters: &HashMap<String, Vec<String>>) -> String {
    // A map of strings can be written.
    let filters = serde_json::to_vec(filters).unwrap_or_default();
    let between = if path.contains('?') { '&' } else { '?' };
    let escaped = form_urlencoded::byte_serialize(&filters).collect::<String>();
    format!("{path}{between}filters={escaped}")
}

/// The body of the engine's answer to `GET path`.
///
/// # Errors
/// As bollard's: the engine refused, or could not be reached.
pub async fn get(transport: Transport, path: String) -> Result<Bytes, Error> {
    whole(send(transport, Method::GET, path).await?).await
}

async fn send(transport: Transport, method: Method, path: String) -> Result<Response<Incoming>, Error> {
    let request: BollardRequest = Request::builder().method(method).uri(path).body(body_full(Bytes::new()))?;
    let answer = transport.request(request).await?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = whole(answer).await?;
    let message = match serde_json::from_slice(&body) {
        Ok(Refusal { message }) => message,
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    // A proxy in between may say nothing.
    let message = if message.trim().is_empty() {
        format!("it answered HTTP {} without a word", status.as_u16())
    } else {
        message
    };
    Err(Error::DockerResponseServerError { status_code: status.as_u16(), message })
}

async fn whole(answer: Response<Incoming>) -> Result<Bytes, Error> {
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    Ok(body.map_err(|e| Error::IOError { err: std::io::Error::other(e) })?.to_bytes())
}

/// What the engine tells while it works on a `POST`: a JSON object a line. Only its errors are of interest, which arrive in the
/// middle of a 200.
pub struct Progress {
    answer: Incoming,
    /// What came of the line that has no end yet.
    line: Vec<u8>,
}

/// The engine's words for an error there.
#[derive(Deserialize)]
struct Told {
    error: Option<String>,
}

impl Progress {
    /// Asks for the work.
    ///
    /// # Errors
    /// As [`get`].
    pub async fn begin(transport: Transport, path: String) -> Result<Self, Error> {
        Ok(Self { answer: send(transport, Method::POST, path).await?.into_body(), line: Vec::new() })
    }

    /// Waits for the next piece; whether there was one.
    ///
    /// # Errors
    /// What the engine could not do, or as [`get`].
    pub async fn more(&mut self) -> Result<bool, Error> {
        let frame = self.answer.frame().await.transpose();
        let frame = frame.map_err(|e| Error::IOError { err: std::io::Error::other(e) })?;
        let is_end = frame.is_none();
        // The last line may have no end of its own.
        let data = frame.map_or_else(|| Bytes::from_static(b"\n"), |frame| frame.into_data().unwrap_or_default());
        match read_errors(&mut self.line, &data) {
            Some(error) => Err(Error::DockerStreamError { error }),
            None => Ok(!is_end),
        }
    }
}

/// Adds a piece to a line of which the beginning is known; the first error that one of the lines in it tells.
fn read_errors(line: &mut Vec<u8>, piece: &[u8]) -> Option<String> {
    for part in piece.split_inclusive(|&b| b == b'\n') {
        // One that is longer is no error's, and not kept.
        if line.len() + part.len() <= MAX_LINE {
            line.extend_from_slice(part);
        }
        if part.ends_with(b"\n") {
            let told = serde_json::from_slice(line);
            line.clear();
            if let Ok(Told { error: Some(error) }) = told {
                return Some(error);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whatever_else_is_in_it_and_whatever_is_null() {
        let listed = r#"[{"Id":"0a","Names":["/other/link","/f-1"],"Image":"i","Labels":{"tinyFaaS":"x"},"State":"running",
            "Ports":[{"PrivatePort":8000,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":8001,"PublicPort":49153,"Type":"tcp"}],
            "HostConfig":{"NetworkMode":"n"},"NetworkSettings":{"Networks":{"n":{"IPAMConfig":null,"IPAddress":"172.18.0.2"},
            "none":{"IPAddress":""}}},"Mounts":[{"Type":"bind","Source":"/s","Destination":"/run/tinyfaas","RW":true}]},
            {"Names":null,"Labels":null,"Ports":null,"Mounts":null,"NetworkSettings":{"Networks":null}},{}]"#;
        let [full, null, empty]: [Container; 3] = serde_json::from_str(listed).unwrap();
        assert_eq!(full.name(), Some("f-1"));
        assert_eq!((full.label("tinyFaaS"), full.label("tinyfaas")), (Some("x"), None));
        assert_eq!((full.published(8000), full.published(8001), full.published(1)), (None, Some(49153), None));
        assert!(full.mounts("/run/tinyfaas") && !full.mounts("/run"));
        let mut addresses: Vec<_> = full.addresses().collect();
        addresses.sort_unstable();
        assert_eq!(addresses, ["", "172.18.0.2"]);
        for none in [null, empty] {
            assert_eq!((none.name(), none.label("x"), none.published(1)), (None, None, None));
            assert!(!none.mounts("") && none.addresses().next().is_none());
        }
    }

    #[test]
    fn an_error_is_found_wherever_the_pieces_are_cut() {
        let told = b"{\"status\":\"Pulling\",\"progressDetail\":{}}\r\n{\"errorDetail\":{\"message\":\"no\"},\"error\":\"no room\"}\r\n{}\r\n";
        for cut in 0..told.len() {
            let (one, two) = told.split_at(cut);
            let mut line = Vec::new();
            let found = read_errors(&mut line, one).or_else(|| read_errors(&mut line, two));
            assert_eq!(found.as_deref(), Some("no room"), "{cut}");
        }
        let mut line = Vec::new();
        assert_eq!(read_errors(&mut line, &vec![b'x'; 3 * MAX_LINE]), None);
        assert!(line.len() <= MAX_LINE);
        assert_eq!(read_errors(&mut line, b"\n{\"error\":\"late\"}\n").as_deref(), Some("late"));
    }

    #[test]
    fn only_a_bridge_has_us_for_a_gateway() {
        let gateway = |text: &str| serde_json::from_str::<InspectedNetwork>(text).unwrap().gateway();
        let bridge = r#"{"Name":"n","Driver":"bridge","IPAM":{"Driver":"default","Config":[{"Subnet":"fd00::/64",
            "Gateway":"fd00::1"},{"Subnet":"172.18.0.0/16","Gateway":"172.18.0.1"}]},"Containers":{}}"#;
        assert_eq!(gateway(bridge), "172.18.0.1".parse().ok());
        assert_eq!(gateway(&bridge.replace("\"bridge\"", "\"macvlan\"")), None);
        for none in [r#"{"Driver":"bridge"}"#, r#"{"Driver":"bridge","IPAM":{"Config":null}}"#, "{}"] {
            assert_eq!(gateway(none), None);
        }
    }

    #[test]
    fn a_filter_is_json_in_a_query() {
        let filters = HashMap::from([("label".to_string(), vec!["tinyFaaS=a b".to_string()])]);
        assert_eq!(
            filtered("/images/json", &filters),
            "/images/json?filters=%7B%22label%22%3A%5B%22tinyFaaS%3Da+b%22%5D%7D"
        );
        assert!(filtered("/containers/json?all=true", &filters).starts_with("/containers/json?all=true&filters=%7B"));
    }
}
