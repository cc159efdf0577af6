//! tinyFaaS: functions as a service for constrained edge boards.
//!
//! # Layout
//! Each layer uses only those below it; `ARCHITECTURE.md` has the picture.
//!
//! - [`cli`]: the commands; [`config`]: serve's flags and variables; [`config_file`]: what is written in a file
//! - [`serve`]: puts the server together and runs it
//! - [`front`]: the front doors translate a protocol into a [`call::Call`] and its outcome back
//! - [`call_id`]: what a call is known by; [`logging`]: the log's lines
//! - [`dispatch`]: the function table; picks a handler, bounds what runs and what waits, applies deadlines
//! - [`backend`]: starts, watches and removes handlers
//! - [`limits`]: a function's limits as people write them
//! - [`provision`]: deploys what is in a folder; [`reload`]: what can change while the server runs
//! - [`upload_request`]: what the JSON of the management API asks for
//! - [`fetch`]: downloads an archive
//! - [`handler`]: what runs inside a handler of a `binary` function; [`runtimes`]: what is known of each runtime
//! - [`pack`]: a folder as an archive; [`unpack`]: an archive's files below a new folder
//! - [`service_manager`]: what systemd is told; [`inherited`]: sockets that it opened for us
//! - [`reactor`]: waits for sockets and for the time; [`signals`]: signals as events
//! - [`tls`]: TLS over a socket, for the doors and for our own clients
//! - [`worker`]: blocking work, each piece on a short-lived thread
//! - [`wire`]: formats, as pure functions from bytes to values
//!
//! `main.rs` is a sentence; everything else is here, so that tests, fuzz targets and benches reach it.

#![forbid(unsafe_code)]

pub mod backend;
pub mod budget;
pub mod buffers;
pub mod call;
pub mod call_id;
pub mod cli;
pub mod client;
pub mod config;
pub mod config_file;
pub mod deploy;
pub mod dispatch;
pub mod fetch;
pub mod front;
pub mod function;
pub mod h2_socket;
pub mod handler;
pub mod http_server;
pub mod inherited;
pub mod limits;
pub mod logging;
pub mod management;
pub mod net;
pub mod pack;
pub mod provision;
pub mod quantity;
pub mod reactor;
pub mod reload;
pub mod runtimes;
pub mod seats;
pub mod serve;
pub mod service_manager;
pub mod shutdown;
pub mod signals;
pub mod socket_owner;
pub mod store;
pub mod text_file;
#[cfg_attr(not(feature = "tls"), path = "tls/absent.rs")]
pub mod tls;
pub mod tokens;
pub mod unpack;
pub mod upload_request;
pub mod wire;
pub mod worker;
