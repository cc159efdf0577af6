//! What the environment's variables say.

use std::ffi::OsString;
use std::path::PathBuf;

use super::values::parse_backend;
use crate::logging;

/// The value of an environment variable.
pub type Var<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What the environment says in place of serve's flags that are not among `args`, as arguments: a flag wins.
///
/// # Errors
/// One line that names the variable whose value is wrong.
pub fn from_environment(args: &[String], var: Var<'_>) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut set = |flag: &str, value: Option<Result<String, String>>| {
        match value {
            Some(value) if !args.iter().any(|a| a == flag) => out.extend([flag.to_string(), value?]),
            _ => {}
        }
        Ok::<(), String>(())
    };
    for (name, flag) in [("HTTP_PORT", "--http"), ("COAP_PORT", "--coap"), ("GRPC_PORT", "--grpc")] {
        set(flag, text(name, var)?.map(|v| port_variable(name, &v)))?;
    }
    let backend = text("TF_BACKEND", var)?;
    set("--backend", backend.map(|v| parse_backend(&v).map(|_| v).map_err(|e| format!("TF_BACKEND: {e}"))))?;
    set("--docker-host", text("DOCKER_HOST", var)?.filter(|v| !v.is_empty()).map(Ok))?;
    // Only a plain level: the filters that other programs take (`crate=debug`) are not ours to refuse.
    let level = var("RUST_LOG").and_then(|v| v.into_string().ok()).filter(|v| logging::level(v).is_ok());
    set("--log", level.map(Ok))?;
    Ok(out)
}

fn text(name: &str, var: Var<'_>) -> Result<Option<String>, String> {
    var(name).map(|v| v.into_string().map_err(|v| format!("{name}: {v:?} is not UTF-8"))).transpose()
}

/// The value of `HTTP_PORT` and its like as a flag's value.
fn port_variable(name: &str, value: &str) -> Result<String, String> {
    match value.parse::<i64>() {
        Ok(-1) => Ok("off".into()),
        Ok(port @ 0..=65_535) => Ok(port.to_string()),
        _ => Err(format!("{name}: {value:?} is no port: use a whole number up to 65535, or -1 to turn it off")),
    }
}

pub(super) fn default_state_dir() -> PathBuf {
    state_dir(rustix::process::geteuid().is_root(), &|name| std::env::var_os(name))
}

/// Where state lives when nobody says; empty where that cannot be told.
pub(super) fn state_dir(root: bool, var: Var<'_>) -> PathBuf {
    // The XDG specification says that a relative path in its variables is to be ignored.
    let folder = |name: &str| var(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if root {
        return "/var/lib/tinyfaas".into();
    }
    folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
        .map(|p| p.join("tinyfaas"))
        .unwrap_or_default()
}
