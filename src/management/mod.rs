//! The management API on its own port: deploy, delete, list, logs. HTTP/1.1 with JSON in and plain text out; what is
//! deployed and how it is comes as JSON.

mod access;
mod call;
mod errors;
mod functions;
mod logs;
mod metrics;
#[cfg(feature = "page")]
mod page;
mod receive;
mod routes;

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use access::{Denial, Failures};
use async_lock::Semaphore;
pub use metrics::Facts;
use routes::{NO_SUCH_PATH, Route};

use crate::deploy::{Active, DeployError, Deployer};
use crate::fetch;
use crate::function::Name;
use crate::http_server::{Head, RequestBody, Responder, Service};
use crate::pack;
use crate::store::Store;
use crate::tokens::Tokens;
use crate::upload_request::{self, Defaults};
use crate::wire::grpc::gzip;
use crate::wire::headers::Headers;
use crate::worker::Workers;

/// What management needs to know beside the functions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Largest archive in bytes.
    pub max_upload: u64,
    /// Largest body of a call in bytes.
    pub max_body: u64,
    /// What holds for a function that asks for nothing else.
    pub defaults: Defaults,
    /// The enabled front doors as scheme and port: each is a line of the answer to a deployment.
    pub front_doors: Vec<(&'static str, u16)>,
    /// The host in these lines; the one that the client called where `None`.
    pub public_host: Option<String>,
    /// How archives are fetched.
    pub fetch: fetch::Config,
    /// Who may ask; whoever reaches the port where `None`.
    pub tokens: Option<Arc<Tokens>>,
}

/// Answers management requests.
pub struct Management {
    deployer: Arc<Deployer>,
    store: Arc<Store>,
    workers: Workers,
    settings: Mutex<Arc<Settings>>,
    failures: Failures,
    facts: Facts,
    /// Free places of streams of logs.
    log_streams: Semaphore,
}

/// What answers are but for those about functions.
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// This API as OpenAPI 3.1 describes one, as gzip, and the most that it may be unpacked.
const OPEN_API: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz"));
const OPEN_API_MAX: usize = 64 * 1024;
/// The field that gives `PUT /functions/NAME` an environment variable.
const ENV_FIELD: &str = "x-tinyfaas-env";

/// An answer whose body is text.
type Answer = Result<String, DeployError>;

impl Management {
    /// Management of what `deployer` deploys.
    pub fn new(deployer: Arc<Deployer>, store: Arc<Store>, workers: Workers, settings: Settings, facts: Facts) -> Self {
        let settings = Mutex::new(Arc::new(settings));
        let log_streams = Semaphore::new(logs::STREAMS);
        Self { deployer, store, workers, settings, failures: Failures::default(), facts, log_streams }
    }

    /// Changes what holds for requests from now on.
    pub fn set(&self, settings: Settings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn upload(&self, head: &Head, body: &mut RequestBody<'_>) -> Answer {
        let settings = self.settings();
        let received = receive::upload(body, &self.store, &self.workers, settings.max_upload).await?;
        let request = upload_request::upload(&received.rest, received.zip, &settings.defaults).map_err(bad)?;
        let name = request.name.clone();
        self.deployer.deploy(request, received.spool).await?;
        Ok(self.urls(head, &name))
    }

    async fn upload_url(&self, head: &Head, body: &mut RequestBody<'_>) -> Answer {
        let settings = self.settings();
        let received = receive::upload(body, &self.store, &self.workers, 0).await?;
        let (request, url) = upload_request::upload_url(&received.rest, &settings.defaults).map_err(bad)?;
        let download = fetch::open(&url, &settings.fetch).await.map_err(|e| receive::fetch_error(&e))?;
        let spool = receive::download(download, &self.store, &self.workers).await?;
        let name = request.name.clone();
        self.deployer.deploy(request, spool).await?;
        Ok(self.urls(head, &name))
    }

    async fn delete(&self, body: &mut RequestBody<'_>) -> Answer {
        let received = receive::upload(body, &self.store, &self.workers, 0).await?;
        let name = upload_request::delete(&received.rest).map_err(bad)?;
        self.deployer.delete(&name).await?;
        Ok(String::new())
    }

    /// Deploys the archive that is the body, as the query and fields of the head ask for.
    async fn put(
        &self,
        name: &str,
        query: &str,
        head: &Head,
        body: &mut RequestBody<'_>,
        respond: Responder<'_>,
    ) -> io::Result<()> {
        match self.put_archive(name, query, head, body).await {
            Ok((status, urls)) => respond.whole(status, &content_type(TEXT), urls.as_bytes()).await,
            Err(e) => refuse(respond, &e).await,
        }
    }

    async fn put_archive(
        &self,
        name: &str,
        query: &str,
        head: &Head,
        body: &mut RequestBody<'_>,
    ) -> Result<(u16, String), DeployError> {
        let settings = self.settings();
        let fields = head.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(ENV_FIELD));
        let envs: Result<Vec<_>, _> = fields.map(|(_, value)| String::from_utf8(value.to_vec())).collect();
        let envs = envs.map_err(|_| bad(format!("{ENV_FIELD} is not UTF-8")))?;
        let put = upload_request::put(name, query, envs, &settings.defaults).map_err(bad)?;
        let spool = if put.is_image() {
            receive::nothing(body, &self.store, &self.workers).await?
        } else {
            receive::archive(body, &self.store, &self.workers, settings.max_upload).await?
        };
        let runtime = match put.runtime {
            Some(runtime) => runtime,
            None => {
                let (path, subfolder) = (spool.path().to_owned(), put.subfolder().to_owned());
                let detect = move || pack::detect_in_zip(&path, &subfolder, "the archive");
                let detected = self.workers.unblock(detect).await.map_err(|e| e.to_string()).and_then(|r| r);
                detected.map_err(|e| DeployError::new(422, e))?
            }
        };
        let request = put.deploy(runtime);
        let name = request.name.clone();
        let status = if self.deployer.get(&name).is_some() { 200 } else { 201 };
        self.deployer.deploy(request, spool).await?;
        Ok((status, self.urls(head, &name)))
    }

    async fn delete_function(&self, name: &str, respond: Responder<'_>) -> io::Result<()> {
        let deleted = match Name::parse(name).map_err(bad) {
            Ok(name) => self.deployer.delete(&name).await,
            Err(e) => Err(e),
        };
        match deleted {
            Ok(()) => respond.whole(204, &Headers::new(), &[]).await,
            Err(e) => refuse(respond, &e).await,
        }
    }

    /// Whether calls are taken and all that was stored is back.
    fn ready(&self) -> Answer {
        let stopping = self.facts.stopping.has_begun().then(|| "the server is stopping".to_owned());
        match stopping.or_else(|| self.deployer.coming_up()) {
            Some(why) => Err(DeployError::new(503, why)),
            None => Ok("ready\n".into()),
        }
    }

    /// The function that a client named.
    fn known(&self, name: &Name) -> Result<Arc<Active>, DeployError> {
        let unknown = || DeployError::new(404, format!("no function named {name}: GET /list shows those deployed"));
        self.deployer.get(name).ok_or_else(unknown)
    }

    fn list(&self) -> String {
        self.deployer.all().fold(String::new(), |mut text, active| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", active.deployment().name);
            text
        })
    }

    /// Streams what is deployed and how it is: a JSON array, one function a line.
    async fn functions(&self, respond: Responder<'_>) -> io::Result<()> {
        let mut pieces = respond.pieces(200, &content_type(JSON), None);
        let networked = self.settings().defaults.network;
        let mut before = "[\n";
        for active in self.deployer.all() {
            let mut piece = before.as_bytes().to_vec();
            piece.append(&mut functions::object(&active, networked));
            pieces.send(&piece).await?;
            before = ",\n";
        }
        let end = if before == "[\n" { "[]\n" } else { "\n]\n" };
        pieces.send(end.as_bytes()).await?;
        pieces.finish().await
    }

    /// The same of one function.
    async fn function(&self, name: &str, respond: Responder<'_>) -> io::Result<()> {
        match Name::parse(name).map_err(bad).and_then(|name| self.known(&name)) {
            Ok(active) => {
                let mut text = functions::object(&active, self.settings().defaults.network);
                text.push(b'\n');
                respond.whole(200, &content_type(JSON), &text).await
            }
            Err(e) => refuse(respond, &e).await,
        }
    }

    /// How far the deployment of that name is.
    async fn deployment(&self, name: &str, respond: Responder<'_>) -> io::Result<()> {
        let unknown = |name| DeployError::new(404, format!("{name} is not being deployed right now"));
        let seen = Name::parse(name).map_err(bad);
        match seen.and_then(|name| self.deployer.progress(&name).ok_or_else(|| unknown(name))) {
            Ok(seen) => respond.whole(200, &content_type(JSON), &functions::deployment(&seen)).await,
            Err(e) => refuse(respond, &e).await,
        }
    }

    /// One line an enabled front door.
    fn urls(&self, head: &Head, name: &Name) -> String {
        let called = head.headers.get_str("host").map_or("localhost", host_of);
        let settings = self.settings();
        let host = settings.public_host.as_deref().unwrap_or(called);
        settings.front_doors.iter().fold(String::new(), |mut text, (scheme, port)| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{scheme}://{host}:{port}/{name}");
            text
        })
    }
}

impl Service for Management {
    async fn serve<'c>(&'c self, head: Head, mut body: RequestBody<'c>, respond: Responder<'c>) -> io::Result<()> {
        let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
        let route = Route::of(path);
        if !route.is_some_and(Route::is_open) {
            let settings = self.settings();
            let (tokens, public_host) = (settings.tokens.as_deref(), settings.public_host.as_deref());
            let is_handler = || self.deployer.is_handler(head.peer);
            match access::admit(&head, tokens, public_host, &self.failures, is_handler) {
                Err(denial) => return deny(respond, &denial).await,
                // Who looks is of no interest, who changes something is.
                Ok(Some(name)) if head.method != "GET" => {
                    log::info!("{} {} by the token {name} from {}", head.method, shown(path), head.peer.ip());
                }
                Ok(_) => {}
            }
        }
        let Some(route) = route else { return respond.text(404, NO_SUCH_PATH).await };
        if !route.takes(&head.method) {
            let mut allow = Headers::new();
            let _ = allow.push("allow", route.allow().as_bytes());
            return respond.text_with(405, &allow, &format!("{} takes {}", shown(path), route.allow())).await;
        }
        let answer = match route {
            Route::Upload => self.upload(&head, &mut body).await,
            Route::UploadUrl => self.upload_url(&head, &mut body).await,
            Route::Delete => self.delete(&mut body).await,
            Route::Wipe => self.deployer.wipe().await.map(|()| String::new()),
            Route::List => Ok(self.list()),
            Route::Logs => return self.logs(query, respond).await,
            Route::Health => Ok("alive\n".into()),
            Route::Ready => self.ready(),
            Route::Metrics => return self.metrics(respond).await,
            Route::OpenApi => return open_api(&head, respond).await,
            Route::Functions => return self.functions(respond).await,
            Route::Errors => {
                let errors = errors::array(&self.deployer.dispatch().errors().newest_first());
                return respond.whole(200, &content_type(JSON), &errors).await;
            }
            #[cfg(feature = "page")]
            Route::Page => return page::send(&head, respond).await,
            Route::Deployment(name) => return self.deployment(name, respond).await,
            Route::Call(name, path) => return self.call((name, path, query), &head, &mut body, respond).await,
            Route::Function(name) => match &*head.method {
                "PUT" => return self.put(name, query, &head, &mut body, respond).await,
                "DELETE" => return self.delete_function(name, respond).await,
                _ => return self.function(name, respond).await,
            },
        };
        match answer {
            Ok(text) => respond.whole(200, &content_type(TEXT), text.as_bytes()).await,
            Err(e) => refuse(respond, &e).await,
        }
    }
}

/// Whether a client takes what is packed (RFC 9110 §12.5.3).
fn takes_gzip(head: &Head) -> bool {
    let takes =
        |coding: &str| coding.split(';').next().is_some_and(|name| name.trim() == "gzip") && !coding.ends_with("q=0");
    head.headers.get_str("accept-encoding").is_some_and(|codings| codings.split(',').any(takes))
}

/// Hands the description of this API out, packed to who takes that.
async fn open_api(head: &Head, respond: Responder<'_>) -> io::Result<()> {
    let mut headers = content_type(JSON);
    if takes_gzip(head) {
        let _ = headers.push("content-encoding", b"gzip");
        return respond.whole(200, &headers, OPEN_API).await;
    }
    let text = gzip::unpack(OPEN_API, OPEN_API_MAX, &mut |_| true).map_err(io::Error::other)?;
    respond.whole(200, &headers, &text).await
}

async fn deny(mut respond: Responder<'_>, denial: &Denial) -> io::Result<()> {
    // Its body is not read.
    respond.close_after();
    let mut headers = Headers::new();
    if let Some((name, value)) = denial.field {
        // Two constants: they cannot be refused.
        let _ = headers.push(name, value.as_bytes());
    }
    respond.text_with(denial.status, &headers, denial.text).await
}

/// The start of what a client asked for, as a line of the log may hold it.
fn shown(target: &str) -> String {
    target.chars().take(80).filter(|c| !c.is_control()).collect()
}

async fn refuse(mut respond: Responder<'_>, e: &DeployError) -> io::Result<()> {
    if matches!(e.status, 400 | 408 | 413) {
        // The rest of the body may still come.
        respond.close_after();
    }
    respond.text(e.status, &e.text).await
}

fn bad(text: String) -> DeployError {
    DeployError::new(400, text)
}

fn content_type(value: &'static str) -> Headers {
    let mut headers = Headers::new();
    // Two constants: they cannot be refused.
    let _ = headers.push("content-type", value.as_bytes());
    headers
}

/// The host of a `Host` field, without its port (RFC 9110 §7.2); brackets of an IPv6 address stay.
fn host_of(field: &str) -> &str {
    let end = match field.rfind(']') {
        Some(bracket) => bracket + 1,
        None => field.find(':').unwrap_or(field.len()),
    };
    let host = field.get(..end).unwrap_or(field);
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b)) {
        return "localhost";
    }
    host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_the_client_called() {
        for (field, host) in [
            ("board:8080", "board"),
            ("10.0.0.7", "10.0.0.7"),
            ("[fe80::1]:8080", "[fe80::1]"),
            ("", "localhost"),
            ("a b", "localhost"),
            ("<script>", "localhost"),
        ] {
            assert_eq!(host_of(field), host);
        }
    }
}
