//! A cgroup for each handler (cgroup v2 of the kernel's documentation): limits that hold for all its processes together,
//! and an end that none of them escapes.
//!
//! They are made below the cgroup that we were started in, in a folder of the instance. Where that is not ours to write,
//! or a controller is not there, the limits that are not enforced are named once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::function::Limits;
use crate::reactor::Timer;

/// The controllers that limits need.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// The cgroup that we move to where ours has to be free of processes before controllers can be given on.
const OWN: &str = "tinyfaas";
/// Length of a period of processor time in microseconds, the kernel's default, and the least that a handler gets of it.
const PERIOD: u64 = 100_000;
const MIN_QUOTA: u64 = 1000;
/// How often and after which pause a cgroup is removed again whose last processes are just being ended.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// Where the cgroups of an instance's handlers are.
#[derive(Debug)]
pub(super) struct Cgroups {
    dir: PathBuf,
    enforced: Vec<&'static str>,
}

/// The cgroup of one handler; removed when dropped, if nothing runs in it.
#[derive(Debug)]
pub(super) struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

impl Cgroups {
    /// Makes the folder of `instance` below our own cgroup, and ends what an earlier run left in it. `None` where that
    /// cannot be. What is not enforced is logged.
    pub(super) fn open(instance: &str) -> Option<Self> {
        let cgroups = own_cgroup().and_then(|base| Self::below(&base, instance));
        let rest =
            "memory and processes are limited by rlimits alone, and what leaves its process group outlives its handler";
        match &cgroups {
            Err(why) => log::warn!("no cgroups ({why}): a handler's --cpu is not enforced, {rest}"),
            Ok(cgroups) => {
                let missing: Vec<_> = CONTROLLERS.into_iter().filter(|c| !cgroups.enforced.contains(c)).collect();
                if !missing.is_empty() {
                    let dir = cgroups.dir.display();
                    log::warn!(
                        "cgroups in {dir} cannot limit {}: rlimits alone limit handlers there",
                        missing.join(", ")
                    );
                }
            }
        }
        cgroups.ok()
    }

    /// The same below any cgroup.
    fn below(base: &Path, instance: &str) -> Result<Self, String> {
        let failed = |path: &Path, e: io::Error| format!("{}: {e}", path.display());
        let dir = base.join(format!("tinyfaas-{instance}"));
        match fs::create_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&dir, e)),
            _ => {}
        }
        let there = base.join("cgroup.controllers");
        let there = fs::read_to_string(&there).map_err(|e| failed(&there, e))?;
        let wanted = CONTROLLERS.into_iter().filter(|c| there.split_whitespace().any(|t| t == *c));
        let enforced = wanted.filter(|c| give_on(base, &dir, c)).collect();
        let cgroups = Self { dir, enforced };
        cgroups.clear();
        Ok(cgroups)
    }

    /// Ends all that is in here. Blocking, for as long as the kernel needs to end it.
    fn clear(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                let cgroup = Cgroup(entry.path());
                let removed = (0..TRIES).any(|_| {
                    cgroup.try_remove() || {
                        std::thread::sleep(PAUSE);
                        false
                    }
                });
                if !removed {
                    log::warn!("{} is left behind: its processes do not end", cgroup.0.display());
                }
            }
        }
    }

    /// Makes the cgroup of the handler `id`.
    ///
    /// # Errors
    /// A limit cannot be set: nothing is left then.
    pub(super) fn make(&self, id: &str, limits: &Limits) -> io::Result<Cgroup> {
        let dir = self.dir.join(id);
        fs::create_dir(&dir)?;
        let cgroup = Cgroup(dir);
        self.limit(&cgroup, limits)?;
        Ok(cgroup)
    }

    fn limit(&self, cgroup: &Cgroup, limits: &Limits) -> io::Result<()> {
        let enforces = |controller| self.enforced.contains(&controller);
        if enforces("memory") && limits.memory > 0 {
            cgroup.set("memory.max", &limits.memory.to_string())?;
            // Absent where the kernel has no swap: then there is none to forbid.
            let _ = cgroup.set("memory.swap.max", "0");
            // Half a handler is of no use: all of it ends, and another one is started.
            cgroup.set("memory.oom.group", "1")?;
        }
        if enforces("cpu") && limits.cpu_millis > 0 {
            let quota = (u64::from(limits.cpu_millis) * PERIOD / 1000).max(MIN_QUOTA);
            cgroup.set("cpu.max", &format!("{quota} {PERIOD}"))?;
        }
        if enforces("pids") && limits.pids > 0 {
            cgroup.set("pids.max", &limits.pids.to_string())?;
        }
        Ok(())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.clear();
        // Ours to remove alone; what is in it by now was put there by somebody else.
        let _ = fs::remove_dir(&self.dir);
    }
}

impl Cgroup {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts a process into it.
    ///
    /// # Errors
    /// As the kernel's.
    pub(super) fn take(&self, pid: Pid) -> io::Result<()> {
        self.set("cgroup.procs", &pid.as_raw_nonzero().to_string())
    }

    /// Whether the kernel killed for memory in it.
    pub(super) fn is_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap_or_default();
        events.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
    }

    /// Kills all processes in it, wherever they went.
    pub(super) fn kill(&self) {
        // Not created: the kernel has the file, or is older than 5.14.
        let kill = fs::OpenOptions::new().write(true).open(self.0.join("cgroup.kill"));
        if kill.and_then(|mut file| io::Write::write_all(&mut file, b"1")).is_ok() {
            return;
        }
        let processes = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }

    /// Removes it once its last process ended; what was started meanwhile is killed as well.
    pub(super) async fn remove(&self) {
        for _ in 0..TRIES {
            if self.try_remove() {
                return;
            }
            Timer::after(PAUSE).await;
        }
        log::warn!("{} is left behind: its processes do not end", self.0.display());
    }

    /// Kills what is in it and removes it; `false` where that has to be tried again.
    fn try_remove(&self) -> bool {
        match fs::remove_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                self.kill();
                return false;
            }
            Err(e) if e.kind() != io::ErrorKind::NotFound => log::warn!("cannot remove {}: {e}", self.0.display()),
            _ => {}
        }
        true
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.0.join(file), value)
    }
}

/// Lets the cgroups in `dir`, which is in `base`, use a controller.
fn give_on(base: &Path, dir: &Path, controller: &str) -> bool {
    let enable = |dir: &Path| fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    let enabled = enable(base).or_else(|e| {
        // A cgroup that gives controllers on may hold no processes, but for the root.
        if move_from(base) { enable(base) } else { Err(e) }
    });
    enabled.and_then(|()| enable(dir)).is_ok()
}

/// Moves us to a cgroup of our own in `base` where we are the only process there.
fn move_from(base: &Path) -> bool {
    let us = std::process::id().to_string();
    if fs::read_to_string(base.join("cgroup.procs")).unwrap_or_default().trim() != us {
        return false;
    }
    let own = base.join(OWN);
    let _ = fs::create_dir(&own);
    fs::write(own.join("cgroup.procs"), us).is_ok()
}

/// The folder of the cgroup that we run in.
fn own_cgroup() -> Result<PathBuf, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
    locate(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
        .ok_or_else(|| "no cgroup v2 is mounted".to_owned())
}

/// Finds it from the texts of `mountinfo` and `cgroup` of proc(5).
fn locate(mountinfo: &str, cgroup: &str) -> Option<PathBuf> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        Some(Path::new(point).join(Path::new(own).strip_prefix(root).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that stands for a cgroup: the kernel's files are those that the test made.
    struct Fake(PathBuf);

    impl Fake {
        fn new(tag: &str, controllers: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("tinyfaas-cgroup-{tag}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("cgroup.controllers"), controllers).unwrap();
            Self(dir)
        }

        fn read(&self, file: &str) -> Option<String> {
            fs::read_to_string(self.0.join(file)).ok()
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn limits() -> Limits {
        Limits {
            memory: 64 << 20,
            cpu_millis: 500,
            pids: 32,
            timeout: Duration::from_secs(1),
            concurrency: 1,
            queue: 1,
        }
    }

    #[test]
    fn limits_are_written_as_the_kernel_wants_them() {
        let fake = Fake::new("limits", "cpuset cpu io memory hugetlb pids");
        let cgroups = Cgroups::below(&fake.0, "i").unwrap();
        assert_eq!(cgroups.enforced, CONTROLLERS);
        let cgroup = cgroups.make("h", &limits()).unwrap();
        let read = |file: &str| fake.read(&format!("tinyfaas-i/h/{file}")).unwrap();
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("memory.oom.group"), "1");
        assert_eq!(read("cpu.max"), "50000 100000");
        assert_eq!(read("pids.max"), "32");
        cgroup.take(Pid::from_raw(7).unwrap()).unwrap();
        assert_eq!(read("cgroup.procs"), "7");
        let _few = cgroups.make("few", &Limits { cpu_millis: 1, ..limits() }).unwrap();
        assert_eq!(fake.read("tinyfaas-i/few/cpu.max").unwrap(), "1000 100000");
    }

    #[test]
    fn what_is_not_limited_or_has_no_controller_is_not_written() {
        let fake = Fake::new("none", "pids");
        let cgroups = Cgroups::below(&fake.0, "i").unwrap();
        assert_eq!(cgroups.enforced, ["pids"]);
        assert_eq!(fake.read("cgroup.subtree_control").unwrap(), "+pids");
        assert_eq!(fake.read("tinyfaas-i/cgroup.subtree_control").unwrap(), "+pids");
        let _h = cgroups.make("h", &Limits { pids: 0, ..limits() }).unwrap();
        assert_eq!(fs::read_dir(fake.0.join("tinyfaas-i/h")).unwrap().count(), 0);
    }

    #[test]
    fn a_cgroup_that_is_not_ours_to_write_is_told_by_its_path() {
        let fake = Fake::new("absent", "");
        let error = Cgroups::below(&fake.0.join("absent"), "i").unwrap_err();
        assert!(error.contains("absent/tinyfaas-i") && error.contains("No such file"), "{error}");
    }

    #[test]
    fn the_kernel_is_asked_to_kill_and_says_whether_memory_was_why() {
        let fake = Fake::new("kill", "memory");
        let cgroups = Cgroups::below(&fake.0, "i").unwrap();
        let cgroup = cgroups.make("h", &limits()).unwrap();
        fs::write(cgroup.0.join("cgroup.kill"), "").unwrap();
        cgroup.kill();
        assert_eq!(fake.read("tinyfaas-i/h/cgroup.kill").unwrap(), "1");
        assert!(!cgroup.is_out_of_memory());
        fs::write(cgroup.0.join("memory.events"), "low 0\noom 1\noom_kill 0\noom_group_kill 0\n").unwrap();
        assert!(!cgroup.is_out_of_memory());
        fs::write(cgroup.0.join("memory.events"), "low 0\noom 1\noom_kill 2\noom_group_kill 1\n").unwrap();
        assert!(cgroup.is_out_of_memory());
    }

    #[test]
    fn an_empty_cgroup_is_removed_and_what_an_earlier_run_left_as_well() {
        let fake = Fake::new("remove", "");
        let cgroups = Cgroups::below(&fake.0, "i").unwrap();
        let cgroup = cgroups.make("h", &limits()).unwrap();
        crate::reactor::block_on(cgroup.remove());
        assert!(!cgroup.0.exists());
        fs::create_dir(cgroups.dir.join("left")).unwrap();
        let again = Cgroups::below(&fake.0, "i").unwrap();
        assert!(!again.dir.join("left").exists());
        drop(again);
        assert!(!fake.0.join("tinyfaas-i").exists());
    }

    #[test]
    fn our_own_cgroup_is_found_below_the_mount_of_version_2() {
        let v1 = "40 30 0:35 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let v2 = "41 30 0:36 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        let hybrid = "42 30 0:36 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let part = "43 30 0:36 /system.slice /cg rw - cgroup2 cgroup2 rw";
        let own = "8:memory:/x\n0::/system.slice/tinyfaas.service\n";
        let at = |mounts: &str, own| locate(mounts, own).map(|path| path.to_str().unwrap().to_owned());
        assert_eq!(at(v2, own).unwrap(), "/sys/fs/cgroup/system.slice/tinyfaas.service");
        assert_eq!(
            at(&format!("{v1}\n{hybrid}"), own).unwrap(),
            "/sys/fs/cgroup/unified/system.slice/tinyfaas.service"
        );
        assert_eq!(at(v2, "0::/\n").unwrap(), "/sys/fs/cgroup/");
        assert_eq!(at(part, own).unwrap(), "/cg/tinyfaas.service");
        assert_eq!((at(part, "0::/user.slice\n"), at(v1, own), at(v2, "8:memory:/x\n")), (None, None, None));
    }
}
