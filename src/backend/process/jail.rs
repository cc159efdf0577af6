//! `tinyfaas jail`: what a handler's process does to itself before it becomes the handler.
//!
//! A program of its own instead of code between fork and exec: it needs no `unsafe`, and its parent starts it the cheap
//! way. User and group were changed by the parent; here come the limits that the handler inherits.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// Open files of a handler.
const FILES: u64 = 1024;
/// Largest file that a handler may write, in bytes: a function that runs wild does not fill the flash.
const FILE_SIZE: u64 = 256 * 1024 * 1024;

/// What the jail is told: `jail PARENT PIDS MEMORY HARDENED -- COMMAND…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jail {
    /// Process id of the runtime: a handler does not outlive it.
    pub parent: u32,
    /// Most processes of the handler's user; 0 where the user is not the handler's own.
    pub pids: u64,
    /// Most bytes of private memory; 0 for no limit.
    pub memory: u64,
    /// Whether the limits are applied at all; the tie to the runtime always is.
    pub hardened: bool,
}

impl Jail {
    /// The arguments that [`run`] understands, without the command.
    pub fn args(&self) -> [String; 6] {
        let hardened = if self.hardened { "1" } else { "0" };
        let [parent, pids, memory] = [u64::from(self.parent), self.pids, self.memory].map(|n| n.to_string());
        ["jail".into(), parent, pids, memory, hardened.into(), "--".into()]
    }

    fn parse(args: &[String]) -> Option<(Self, &[String])> {
        let [parent, pids, memory, hardened, dashes, command @ ..] = args else { return None };
        let jail = Self {
            parent: parent.parse().ok()?,
            pids: pids.parse().ok()?,
            memory: memory.parse().ok()?,
            hardened: hardened == "1",
        };
        (dashes == "--" && !command.is_empty()).then_some((jail, command))
    }

    fn apply(&self) -> std::io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The runtime may have died before the line above.
        if rustix::process::getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs()) != Some(self.parent)
        {
            return Err(std::io::Error::other("the runtime is gone"));
        }
        if !self.hardened {
            return Ok(());
        }
        rustix::thread::set_no_new_privs(true)?;
        limit(Resource::Core, 0)?;
        limit(Resource::Nofile, FILES)?;
        limit(Resource::Fsize, FILE_SIZE)?;
        if self.pids > 0 {
            limit(Resource::Nproc, self.pids)?;
        }
        if self.memory > 0 {
            limit(Resource::Data, self.memory)?;
        }
        Ok(())
    }
}

fn limit(resource: Resource, most: u64) -> std::io::Result<()> {
    // Never above what we were given: only root could, and a handler is not.
    let hard = rustix::process::getrlimit(resource).maximum;
    let most = hard.map_or(most, |hard| most.min(hard));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// Waits until the parent closes our standard input: it put us where we belong then.
fn told() -> std::io::Result<()> {
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).map(drop)
}

/// Becomes the command that `args` name, limited. Returns only when it cannot.
pub fn run(args: &[String]) -> ExitCode {
    let Some((jail, command)) = Jail::parse(args) else {
        eprintln!("tinyfaas jail: not a command for people");
        return ExitCode::from(2);
    };
    let why = match (jail.apply().and_then(|()| told()), command) {
        (Ok(()), [program, args @ ..]) => Command::new(program).args(args).stdin(Stdio::null()).exec(),
        (Err(e), _) => e,
        (Ok(()), []) => std::io::ErrorKind::InvalidInput.into(),
    };
    eprintln!("tinyfaas jail: cannot start {}: {why}", command.first().map_or("", String::as_str));
    ExitCode::from(127)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_come_back_with_the_command_after_them() {
        let jail = Jail { parent: 7, pids: 32, memory: 1 << 26, hardened: true };
        let mut args: Vec<String> = jail.args().into();
        args.extend(["sh".into(), "--".into()]);
        assert_eq!(Jail::parse(&args[1..]), Some((jail, &args[6..])));
        for cut in 0..args.len() - 2 {
            assert_eq!(Jail::parse(&args[1..][..cut]), None, "{cut}");
        }
    }
}
