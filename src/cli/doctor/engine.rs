//! The Docker engine: whether it answers, fits this program, limits what it should, and has images for the runtimes.

use std::time::Duration;

use async_executor::StaticExecutor;

use super::Check;
use crate::backend::docker::Docker;
use crate::backend::docker::facts::{About, Image};
use crate::config::{BackendChoice, Config};
use crate::runtimes;
use crate::worker::Workers;

/// Time for one question to the engine; all of them have to fit into that for a check.
const QUESTION: Duration = Duration::from_secs(3);

pub(super) fn check(config: &Config) -> Vec<Check> {
    if config.backend == BackendChoice::Process {
        return vec![Check::ok("engine", "none is needed: --backend process"), host_programs(), cgroups()];
    }
    let executor: &'static StaticExecutor = Box::leak(Box::new(StaticExecutor::new()));
    let config = Config { engine_timeout: QUESTION, ..config.clone() };
    // The instance is part of names that are not asked for here.
    let docker = config.docker("doctor".into()).and_then(|docker| Docker::new(docker, executor, Workers::new()));
    match docker {
        Ok(docker) => crate::reactor::block_on(executor.run(look(&config, docker))),
        Err(e) => vec![Check::problem("engine", e, "change that setting")],
    }
}

async fn look(config: &Config, docker: Docker) -> Vec<Check> {
    let about = match docker.about().await {
        Ok(about) => about,
        Err(e) if config.backend == BackendChoice::Auto => {
            let advice =
                "functions will run as processes, which are contained less; mend that, or say --backend process";
            return vec![Check::warning("engine", e.text, advice), host_programs(), cgroups()];
        }
        Err(e) => return vec![Check::problem("engine", e.text, "or use --backend process")],
    };
    let mut checks = vec![engine(config, &about), limits(&about)];
    // A registry that is out of reach for one is so for the others, and each question takes its time.
    let mut registry = true;
    for spec in runtimes::all() {
        let name = format!("images of {}", spec.runtime);
        checks.push(match docker.image_of(spec, registry).await {
            Ok(image) => {
                registry &= !matches!(image, Image::Nowhere(..));
                self::image(&name, spec.runtime.name(), image)
            }
            Err(e) => Check::problem(&name, e.text, "see the engine's log"),
        });
    }
    checks
}

fn engine(config: &Config, about: &About) -> Check {
    let (version, theirs) = (&about.server_version, &about.architecture);
    let ours = std::env::consts::ARCH;
    let cgroups = if about.cgroup_version.is_empty() { "?" } else { &about.cgroup_version };
    if !fits(ours, theirs) {
        let found =
            format!("its machine is {theirs}, and this program is for {ours}: it cannot run in a container there");
        return Check::warning("engine", found, "use the release for that machine, else binary functions do not start");
    }
    let address = config.engine().map_or_else(|e| e, |engine| engine.to_string());
    Check::ok("engine", format!("Docker {version} at {address}, {theirs}, cgroups v{cgroups}"))
}

/// Whether a program for `ours`, as Rust has it, runs on a machine that uname(2) calls `theirs`.
fn fits(ours: &str, theirs: &str) -> bool {
    match ours {
        "x86_64" => matches!(theirs, "x86_64" | "amd64"),
        "aarch64" => matches!(theirs, "aarch64" | "arm64"),
        // Those for 64 bits run programs for 32 as well, most of them.
        "arm" => theirs.starts_with("arm") || theirs == "aarch64",
        _ => ours == theirs,
    }
}

fn limits(about: &About) -> Check {
    let missing = about.not_limited();
    if missing.is_empty() {
        return Check::ok("limits of handlers", "memory, cpu and pids can be limited");
    }
    let advice = if missing.contains(&"memory") {
        "on a Raspberry Pi add cgroup_enable=memory cgroup_memory=1 to cmdline.txt and boot again"
    } else {
        "use a kernel with that cgroup controller"
    };
    Check::warning("limits of handlers", format!("the engine cannot limit {}", missing.join(", ")), advice)
}

fn image(name: &str, runtime: &str, image: Image) -> Check {
    match image {
        Image::Made(image) => Check::ok(name, format!("{image} is there")),
        Image::Base(base) => Check::ok(name, format!("{base} is there to make it from")),
        Image::Pullable(base) => Check::ok(name, format!("{base} is pulled when the first function is deployed")),
        Image::NotLoaded(image) => Check::problem(
            name,
            format!("{image} is not on the engine"),
            format!(
                "load it (docker load -i FILE, docker pull {image}) or name another with --runtime-image {runtime}=IMAGE"
            ),
        ),
        Image::Nowhere(base, why) => Check::warning(
            name,
            format!("{base} is not on the engine and no registry gives it ({why})"),
            format!(
                "load it (docker load -i FILE) or name another with --runtime-base {runtime}=IMAGE, else {runtime} cannot be deployed"
            ),
        ),
    }
}

/// The programs that handlers which are processes start with.
fn host_programs() -> Check {
    let paths: Vec<_> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let is_there = |program: &str| paths.iter().any(|path| path.join(program).is_file());
    let programs = runtimes::all().filter_map(|spec| Some((spec.runtime.name(), spec.host.as_ref()?.program)));
    let missing: Vec<_> = programs.filter(|(_, program)| !is_there(program)).collect();
    if missing.is_empty() {
        return Check::ok("programs", "those that handlers start with are in PATH");
    }
    let (runtimes, missing): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
    let found = format!("{} is not in PATH", missing.join(", "));
    Check::warning("programs", found, format!("install it, else {} cannot be deployed", runtimes.join(", ")))
}

/// What limits handlers that are processes.
fn cgroups() -> Check {
    let name = "cgroups of this kernel";
    let path = "/sys/fs/cgroup/cgroup.controllers";
    let Ok(there) = std::fs::read_to_string(path) else {
        let advice =
            "boot with systemd.unified_cgroup_hierarchy=1, else rlimits alone limit handlers that are processes";
        return Check::warning(name, "they are not of version 2", advice);
    };
    let missing: Vec<_> =
        ["memory", "cpu", "pids"].into_iter().filter(|c| !there.split_whitespace().any(|t| t == *c)).collect();
    if missing.is_empty() {
        return Check::ok(name, "version 2, with memory, cpu and pids");
    }
    let advice = "on a Raspberry Pi add cgroup_enable=memory cgroup_memory=1 to cmdline.txt, else rlimits alone limit handlers that are processes";
    Check::warning(name, format!("{} cannot be limited", missing.join(", ")), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_fits_its_own_machine() {
        for (ours, theirs) in [("x86_64", "x86_64"), ("aarch64", "arm64"), ("arm", "armv7l"), ("arm", "aarch64")] {
            assert!(fits(ours, theirs), "{ours} {theirs}");
        }
        assert!(!fits("x86_64", "aarch64") && !fits("aarch64", "armv7l"));
    }
}
