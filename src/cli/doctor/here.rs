//! This machine: ports, the state directory, the user, the clock, limits.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, geteuid, getrlimit};

use super::Check;
use crate::config::{BackendChoice, Config};
use crate::quantity::show_bytes;
use crate::runtimes::folder;

/// Free space of the state directory in bytes: below the first nothing of use fits, below the second not much.
const TOO_LITTLE: u64 = 16 << 20;
const LITTLE: u64 = 128 << 20;
/// Seconds from 1970 to the start of 2026: no clock that is right shows less.
const EARLIEST: u64 = 1_767_225_600;
/// Open files besides those of the doors' connections: handlers, logs, the engine.
const OTHER_FILES: u64 = 256;

/// Those that the operator added; nothing where there are none.
pub(super) fn runtimes(config: &Config) -> Vec<Check> {
    let name = "runtimes";
    let Some(dir) = &config.runtimes else { return Vec::new() };
    let faults = match folder::load(dir) {
        Ok(faults) => faults,
        Err(e) => return vec![Check::problem(name, e, "give this user the folder, or name another")],
    };
    let mend = "mend it (docs/runtimes.md) and start the server again";
    let mut checks: Vec<_> = faults.into_iter().map(|fault| Check::problem(name, fault.text, mend)).collect();
    if let Err(e) = config.check_runtimes() {
        checks.push(Check::problem(name, e, "change that setting"));
    }
    if checks.is_empty() {
        checks.push(Check::ok(name, format!("those in {} can be used", dir.display())));
    }
    checks
}

/// The ports of all doors; `runs` is whether our server answers at management.
pub(super) fn ports(config: &Config, runs: bool) -> Vec<Check> {
    let doors = [
        ("management", Some(config.management)),
        ("http", config.http.addr()),
        ("coap", config.coap.addr()),
        ("grpc", config.grpc.addr()),
    ];
    doors.into_iter().filter_map(|(door, addr)| addr.map(|addr| port(door, addr, bind(door, addr), runs))).collect()
}

fn bind(door: &str, addr: SocketAddr) -> io::Result<()> {
    if door == "coap" { UdpSocket::bind(addr).map(drop) } else { TcpListener::bind(addr).map(drop) }
}

fn port(door: &str, addr: SocketAddr, bound: io::Result<()>, runs: bool) -> Check {
    let name = format!("port of {door}");
    let other = format!("choose another with --{door}");
    match bound {
        Ok(()) => Check::ok(&name, format!("{addr} is free")),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse && runs => {
            Check::ok(&name, format!("{addr} is in use while our server runs"))
        }
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            let how = if door == "coap" { "ss -lunp" } else { "ss -ltnp" };
            Check::problem(
                &name,
                format!("{addr} is in use by another program"),
                format!("{how} tells by which; stop it, or {other}"),
            )
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Check::problem(
            &name,
            format!("no permission to listen on {addr}"),
            format!("have systemd open it (docs/services.md), or {other}, above 1023"),
        ),
        // A machine without IPv6 gets the wildcard of IPv4.
        Err(_) if addr.ip().is_unspecified() && addr.is_ipv6() => {
            let v4 = SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, addr.port()));
            port(door, v4, bind(door, v4), runs)
        }
        Err(e) => Check::problem(&name, format!("cannot listen on {addr}: {e}"), other),
    }
}

/// Whether it can be written, and what fits.
pub(super) fn state_dir(config: &Config) -> Vec<Check> {
    let (name, dir) = ("state directory", &config.state_dir);
    // It is made at the start, with all above it.
    let Some(there) = dir.ancestors().find(|path| path.exists()) else {
        return vec![Check::problem(
            name,
            format!("{} cannot be made", dir.display()),
            "name another with --state-dir",
        )];
    };
    let at = format!("{} (for {})", there.display(), dir.display());
    let at = if there == dir.as_path() { dir.display().to_string() } else { at };
    if !there.is_dir() {
        return vec![Check::problem(name, format!("{at} is no folder"), "remove it, or name another with --state-dir")];
    }
    let mut checks = vec![match access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Check::ok(name, format!("{at} can be written")),
        Err(e) => {
            let advice =
                "run this as the user that serves (sudo?), give him the folder, or name another with --state-dir";
            Check::problem(name, format!("{at} cannot be written: {}", io::Error::from(e)), advice)
        }
    }];
    checks.push(space(there));
    checks
}

fn space(dir: &Path) -> Check {
    let name = "free space";
    let stat = match statvfs(dir) {
        Ok(stat) => stat,
        Err(e) => return Check::warning(name, format!("unknown: {}", io::Error::from(e)), "look with df"),
    };
    // What root keeps for himself does not count.
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let found = format!("{}Mi in {}", free >> 20, dir.display());
    let least = format!("free some, or name a --state-dir with more ({} at least)", show_bytes(LITTLE));
    match free {
        ..TOO_LITTLE => Check::problem(name, found, least),
        TOO_LITTLE..LITTLE => Check::warning(name, found, least),
        _ => Check::ok(name, found),
    }
}

/// The user, the clock, the files that may be open.
pub(super) fn machine(config: &Config) -> Vec<Check> {
    vec![user(config), clock(), files(config)]
}

fn user(config: &Config) -> Check {
    let uid = geteuid();
    if uid.is_root() {
        return Check::ok("user", "root: functions that are processes get users of their own");
    }
    let found = format!("id {}", uid.as_raw());
    if config.backend != BackendChoice::Process {
        return Check::ok("user", found);
    }
    let advice = "serve as root to give each a user of its own (docs/security.md)";
    Check::warning("user", format!("{found}: functions run as that user as well"), advice)
}

#[expect(clippy::disallowed_methods, reason = "the wall clock is what is looked at")]
fn clock() -> Check {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let shown = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since);
    if since.as_secs() < EARLIEST {
        let advice = "set it (timedatectl set-ntp true), else TLS and installations fail";
        return Check::problem("clock", format!("it shows {shown}, which is past"), advice);
    }
    Check::ok("clock", format!("{shown}"))
}

fn files(config: &Config) -> Check {
    // None is no limit.
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let doors = 1 + [config.http, config.grpc].iter().filter(|door| door.addr().is_some()).count() as u64;
    let wanted = (config.max_connections as u64).saturating_mul(doors).saturating_add(OTHER_FILES);
    if most < wanted {
        let found = format!("{most} may be open, and --max-connections may need {wanted}");
        return Check::warning(
            "open files",
            found,
            "raise it (ulimit -Hn, LimitNOFILE= of the unit), or lower --max-connections",
        );
    }
    Check::ok("open files", if most == u64::MAX { "no limit".into() } else { format!("{most} may be open") })
}
