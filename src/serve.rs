//! Puts the server together and runs it until it is told to stop.

use crate::config::Config;

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// One line that says why it could not start.
pub fn run(_config: Config) -> Result<(), String> {
    Err("serve is not built yet".into())
}
