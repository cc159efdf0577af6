//! Programs of other makes that tests call.

use std::process::Command;

/// Whether `program` of the Debian package `package` is here. A missing one fails in CI and is told loudly elsewhere.
pub fn has(program: &str, package: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", program]).status().unwrap().success();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing: install the Debian package {package}");
        eprintln!("\n*** SKIPPED: {program} is missing: install the Debian package {package} ***\n");
    }
    found
}
