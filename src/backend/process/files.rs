//! What a handler may do with files, ports and other processes: a Landlock domain (`Documentation/userspace-api/landlock.rst`)
//! that it and all it starts can never leave. It needs no rights of its own, only a kernel that has it.
//!
//! What is not named here is refused: the state directory, the tokens, other functions' folders, the home folders.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope, path_beneath_rules,
};

/// The newest version whose file rights are asked for: with it, sockets can be reached only where files may be written.
const NEWEST: ABI = ABI::V9;

/// Programs and their libraries, to be run and read.
const PROGRAMS: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store"];

/// What the machine says of itself, sensors included, and the settings that libraries look for: to be read. Not all of `/etc`:
/// what holds secrets there is not known here.
const SETTINGS: [&str; 43] = [
    "/proc",
    "/sys",
    "/etc/alpine-release",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/ld-musl-aarch64.path",
    "/etc/ld-musl-armhf.path",
    "/etc/ld-musl-x86_64.path",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/locale.alias",
    "/etc/mime.types",
    "/etc/networks",
    "/etc/nsswitch.conf",
    "/etc/openwrt_release",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pip.conf",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/python3",
    "/etc/resolv.conf",
    "/etc/resolvconf",
    "/etc/services",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
    "/etc/timezone",
    "/run/resolvconf",
    "/run/systemd/resolve",
];

/// Devices that hold nothing.
const DEVICES: [&str; 6] = ["/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];

/// What a handler may use besides what is everybody's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// Read, and programs run.
    pub read: Vec<String>,
    /// Written as well.
    pub write: Vec<String>,
}

/// Confines this process for good, as far as the kernel can.
///
/// # Errors
/// The kernel has Landlock and refused.
pub fn confine(paths: &Paths, network: bool) -> Result<(), RulesetError> {
    let mut ports = BitFlags::from(AccessNet::BindTcp);
    if !network {
        ports |= AccessNet::ConnectTcp;
    }
    let settings = AccessFs::ReadFile | AccessFs::ReadDir;
    let devices = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let programs = AccessFs::from_read(NEWEST);
    Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(ports)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(PROGRAMS, programs))?
        // Our own program: the path may be gone, or lead to another one by now.
        .add_rules(path_beneath_rules([super::child::OWN_EXECUTABLE], programs))?
        .add_rules(path_beneath_rules(&paths.read, programs))?
        .add_rules(path_beneath_rules(SETTINGS, settings))?
        .add_rules(path_beneath_rules(DEVICES, devices))?
        .add_rules(path_beneath_rules(&paths.write, AccessFs::from_all(NEWEST)))?
        .restrict_self()
        .map(drop)
}

/// What this kernel cannot enforce of [`confine`], in words; empty where it can do all.
pub fn not_enforced() -> Vec<&'static str> {
    let hard = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    [
        (hard().handle_access(AccessFs::from_all(ABI::V1)).is_ok(), "files (Linux 5.13)"),
        (hard().handle_access(AccessNet::BindTcp).is_ok(), "TCP ports (6.7)"),
        (hard().scope(Scope::Signal).is_ok(), "signals and abstract sockets (6.12)"),
    ]
    .into_iter()
    .filter_map(|(enforced, what)| (!enforced).then_some(what))
    .collect()
}

/// The folder of `SETTINGS` or `PROGRAMS` that `path` is in, which every handler may read.
pub fn is_readable(path: &Path) -> bool {
    PROGRAMS.iter().any(|dir| path.starts_with(dir))
}
