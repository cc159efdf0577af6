//! Servers under test, each a process of its own so that its memory and processor time can be told; shared by the
//! benchmarks.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// A server under test; ended with it.
pub struct Server {
    pub child: Child,
    pub addr: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// This program in another role, on loopback; it tells its port first.
    pub fn role(args: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, addr: SocketAddr::from(([127, 0, 0, 1], line.trim().parse().unwrap())) }
    }

    /// Resident and anonymous memory in kB. The kernel counts pages here; the numbers of `status` may be some off.
    pub fn memory(&self) -> (u64, u64) {
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap();
        let field = |name: &str| {
            let line = smaps.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (field("Rss:"), field("Anonymous:"))
    }

    /// Seconds of processor time used so far, at 100 ticks a second.
    pub fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

/// Says what else the machine does: a measurement beside that is worth little.
pub fn warn_if_busy() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split_ascii_whitespace().next().unwrap().parse().unwrap();
    if load > 0.5 {
        println!("**This machine is busy (load {load}): the figures are worth little.**\n");
    }
}
