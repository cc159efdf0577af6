//! `tinyfaas jail`: what a handler's process does to itself before it becomes the handler.
//!
//! A program of its own instead of code between fork and exec: it needs no `unsafe`, and its parent starts it the cheap
//! way. User and group were changed by the parent; here come the limits that the handler inherits, and what it may reach:
//! `files` and `calls`.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::calls;
use super::files::{self, Paths};

/// Open files of a handler.
const FILES: u64 = 1024;
/// Largest file that a handler may write, in bytes: a function that runs wild does not fill the flash.
const FILE_SIZE: u64 = 256 * 1024 * 1024;

/// A limit that only handlers have, by which the management API knows them where they have no users of their own: POSIX message
/// queues are of no use to them.
pub(super) const MARK: Resource = Resource::Msgqueue;

/// What the jail is told: `jail PARENT PIDS MEMORY HARDENED NETWORK READ… - WRITE… -- COMMAND…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jail {
    /// Process id of the runtime: a handler does not outlive it.
    pub parent: u32,
    /// Most processes of the handler's user; 0 where the user is not the handler's own.
    pub pids: u64,
    /// Most bytes of private memory; 0 for no limit.
    pub memory: u64,
    /// Whether the limits are applied at all; the tie to the runtime always is, and what `network` says.
    pub hardened: bool,
    /// Whether the handler has a network.
    pub network: bool,
    /// Files that it may use besides what is everybody's, where it is hardened: absolute paths.
    pub paths: Paths,
}

impl Jail {
    /// The arguments that [`run`] understands, without the command.
    pub fn args(&self) -> Vec<String> {
        let numbers = [u64::from(self.parent), self.pids, self.memory, self.hardened.into(), self.network.into()];
        let mut args = vec!["jail".to_owned()];
        args.extend(numbers.map(|n| n.to_string()));
        args.extend_from_slice(&self.paths.read);
        args.push("-".into());
        args.extend_from_slice(&self.paths.write);
        args.push("--".into());
        args
    }

    fn parse(args: &[String]) -> Option<(Self, &[String])> {
        let [parent, pids, memory, hardened, network, rest @ ..] = args else { return None };
        let mut parts = rest.splitn(2, |arg| arg == "--");
        let (paths, command) = (parts.next()?, parts.next()?);
        let mut paths = paths.splitn(2, |arg| arg == "-");
        let (read, write) = (paths.next()?, paths.next()?);
        let jail = Self {
            parent: parent.parse().ok()?,
            pids: pids.parse().ok()?,
            memory: memory.parse().ok()?,
            hardened: hardened == "1",
            network: network == "1",
            paths: Paths { read: read.to_vec(), write: write.to_vec() },
        };
        (!command.is_empty()).then_some((jail, command))
    }

    fn apply(&self) -> std::io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The runtime may have died before the line above.
        if rustix::process::getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs()) != Some(self.parent)
        {
            return Err(std::io::Error::other("the runtime is gone"));
        }
        if !self.hardened {
            return if self.network { Ok(()) } else { self.filter() };
        }
        rustix::thread::set_no_new_privs(true)?;
        limit(Resource::Core, 0)?;
        limit(Resource::Nofile, FILES)?;
        limit(MARK, 0)?;
        limit(Resource::Fsize, FILE_SIZE)?;
        if self.pids > 0 {
            limit(Resource::Nproc, self.pids)?;
        }
        if self.memory > 0 {
            limit(Resource::Data, self.memory)?;
        }
        files::confine(&self.paths, self.network).map_err(std::io::Error::other)?;
        self.filter()
    }

    /// Filters system calls. Where the kernel cannot, that is no reason not to run but for who shall reach no network.
    fn filter(&self) -> std::io::Result<()> {
        match calls::filter(self.hardened, self.network) {
            Err(why) if !self.network => Err(std::io::Error::other(format!("it shall have no network: {why}"))),
            _ => Ok(()),
        }
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
        let paths = Paths { read: vec!["/fn".into(), "/more".into()], write: vec!["/tmp/f".into()] };
        let jail = Jail { parent: 7, pids: 32, memory: 1 << 26, hardened: true, network: false, paths };
        let mut args = jail.args();
        args.extend(["sh".into(), "--".into(), "-".into()]);
        assert_eq!(Jail::parse(&args[1..]), Some((jail, &args[args.len() - 3..])));
        for cut in 0..args.len() - 3 {
            assert_eq!(Jail::parse(&args[1..][..cut]), None, "{cut}");
        }
    }
}
