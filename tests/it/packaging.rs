//! What a release is packed as: the tarball with its installer, the Debian package, units and init scripts, signatures.
//!
//! They are made from what `cross/build` left for this machine: `.ci/run` builds it first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::board::{Backend, Board, TempDir, docker_is_ready};
use crate::tools::has;

const TARGET: &str = "x86_64-unknown-linux-musl";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// What it prints; it has to end well.
fn said(command: &mut Command) -> String {
    let out = run(command);
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{text}", out.status);
    text
}

/// The packages of a flavour in `folder`, if there is a release binary of it.
fn pack(flavour: &str, folder: &Path) -> Option<Vec<PathBuf>> {
    let binary = repository().join("target").join(TARGET).join(flavour).join("tinyfaas");
    if !binary.exists() {
        assert!(std::env::var_os("CI").is_none(), "{} is missing: run cross/build", binary.display());
        eprintln!("\n*** SKIPPED: run cross/build {TARGET} {flavour} to have its packages tested ***\n");
        return None;
    }
    let mut command = Command::new(repository().join("cross/pack"));
    let out = run(command.args([TARGET, flavour]).arg(folder));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8(out.stdout).unwrap().lines().map(PathBuf::from).collect())
}

/// All files and folders below one, without it.
fn all_below(folder: &Path) -> Vec<String> {
    let text = said(Command::new("find").arg(folder).args(["-mindepth", "1", "-printf", "%P\n"]));
    let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// The unpacked tarball, in `folder`.
fn unpack(tarball: &Path, folder: &Path) -> PathBuf {
    said(Command::new("tar").arg("-xzf").arg(tarball).arg("-C").arg(folder));
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(names.len(), 1, "one folder: {names:?}");
    names[0].clone()
}

/// `install.sh` under busybox's shell, below `root`.
fn install(script: &Path, root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("busybox");
    command.arg("sh").arg(script).args(args).env("DESTDIR", root).env("PREFIX", "/opt/tf");
    command
}

#[test]
fn the_tarball_installs_serves_its_examples_and_uninstalls_without_a_trace() {
    if !has("busybox", "busybox") {
        return;
    }
    for flavour in ["full", "mini"] {
        let dir = TempDir::new();
        let Some(packages) = pack(flavour, &dir.0.join("dist")) else { return };
        fs::create_dir(dir.0.join("unpacked")).unwrap();
        let unpacked = unpack(&packages[0], &dir.0.join("unpacked"));
        let root = dir.0.join("root");
        said(&mut install(&unpacked.join("install.sh"), &root, &["--init", "systemd"]));
        let binary = root.join("opt/tf/bin/tinyfaas");
        let unit = fs::read_to_string(root.join("opt/tf/lib/systemd/system/tinyfaas.service")).unwrap();
        assert!(unit.contains("ExecStart=/opt/tf/bin/tinyfaas serve"), "{unit}");

        // The settings are those of the package, but for the ports, which flags name.
        let settings = root.join("etc/tinyfaas/tinyfaas.json");
        let program = [binary.to_str().unwrap()];
        let state = root.join("var/lib/tinyfaas");
        fs::create_dir_all(state.parent().unwrap()).unwrap();
        let flags = ["--config", settings.to_str().unwrap()];
        let mut board = Board::start_as(&program, Backend::Process, &flags, state.clone());
        let example = root.join("opt/tf/share/tinyfaas/examples/summary");
        let host = board.management.to_string();
        said(Command::new(&binary).arg("deploy").arg(&example).args(["--host", &host]));
        let answer = board.call("summary", &fs::read(example.join("input.txt")).unwrap());
        assert!(answer.text().starts_with("count 7\n"), "{answer:?}");
        assert!(board.stop(), "{}", board.log());

        // An upgrade keeps what was edited, and takes away what is in the new version no more.
        fs::write(&settings, "{\"queue\": 3}").unwrap();
        let installed = root.join("opt/tf/share/tinyfaas/installed");
        let before = fs::read_to_string(&installed).unwrap();
        fs::write(root.join("opt/tf/share/tinyfaas/old"), "").unwrap();
        fs::write(&installed, format!("{before}/opt/tf/share/tinyfaas/old\n")).unwrap();
        said(&mut install(&unpacked.join("install.sh"), &root, &["--init", "systemd"]));
        assert_eq!(fs::read_to_string(&settings).unwrap(), "{\"queue\": 3}");
        assert_eq!(fs::read_to_string(&installed).unwrap(), before);
        assert!(!root.join("opt/tf/share/tinyfaas/old").exists());

        // Nobody can be asked: what is not the package's stays. The copy that was installed does it.
        let copy = dir.0.join("install.sh");
        fs::copy(root.join("opt/tf/share/tinyfaas/install.sh"), &copy).unwrap();
        let said_so = said(&mut install(&copy, &root, &["--uninstall"]));
        assert!(said_so.contains("kept: what is deployed") && said_so.contains("kept: the settings"), "{said_so}");
        let left: Vec<String> =
            all_below(&root).into_iter().filter(|name| !name.starts_with("var/lib/tinyfaas/")).collect();
        assert_eq!(left, ["etc", "etc/tinyfaas", "etc/tinyfaas/tinyfaas.json", "var", "var/lib", "var/lib/tinyfaas"]);
        assert!(state.join("functions/summary.fn").exists());

        said(&mut install(&unpacked.join("install.sh"), &root, &["--init", "systemd"]));
        let installed_copy = root.join("opt/tf/share/tinyfaas/install.sh");
        // It knows its prefix.
        said(
            Command::new("busybox").arg("sh").arg(&installed_copy).args(["--uninstall", "--yes"]).env("DESTDIR", &root),
        );
        let left: Vec<String> = all_below(&root).into_iter().filter(|name| name != "var").collect();
        assert_eq!(left, [""; 0]);
    }
}

#[test]
fn the_same_binary_gives_the_same_packages() {
    let dir = TempDir::new();
    for flavour in ["full", "mini"] {
        let Some(first) = pack(flavour, &dir.0.join("one")) else { return };
        let Some(second) = pack(flavour, &dir.0.join("two")) else { return };
        assert_eq!(first.len(), if flavour == "full" { 2 } else { 1 });
        for (one, two) in first.iter().zip(&second) {
            assert!(fs::read(one).unwrap() == fs::read(two).unwrap(), "{} differs", one.display());
        }
        let listed = said(Command::new("tar").args(["--numeric-owner", "-tvzf"]).arg(&first[0]));
        assert!(listed.lines().all(|line| line.contains(" 0/0 ")), "{listed}");
        for (folder, count) in [("examples/", 8), ("runtimes/", 5), ("completions/", 3)] {
            assert!(listed.matches(&format!("/{folder}")).count() >= count, "{folder}\n{listed}");
        }
        assert!(listed.contains("/runtimes/export\n"), "{listed}");
    }
}

#[test]
fn init_scripts_and_installers_are_read_by_the_shells_of_boards() {
    if !has("busybox", "busybox") || !has("shellcheck", "shellcheck") {
        return;
    }
    let packaging = repository().join("packaging");
    for script in
        ["install.sh", "openrc/tinyfaas", "procd/tinyfaas", "debian/postinst", "debian/prerm", "debian/postrm"]
    {
        let script = packaging.join(script);
        said(Command::new("sh").arg("-n").arg(&script));
        said(Command::new("busybox").args(["ash", "-n"]).arg(&script));
        said(Command::new("shellcheck").args(["-s", "sh"]).arg(&script));
    }
    for script in [
        "tests/packages/debian",
        "packaging/debian/build",
        "packaging/completions/tinyfaas.bash",
        "cross/pack",
        "cross/sign",
        "cross/release",
    ] {
        said(Command::new("shellcheck").arg(repository().join(script)));
    }
}

#[test]
fn the_init_scripts_ask_for_what_the_server_understands() {
    // Their frameworks, as far as these scripts go: what they are told is printed.
    let openrc = r#"RC_SVCNAME=tinyfaas; . "$0"; depend() { :; }; checkpath() { echo "checkpath $*"; }
        ebegin() { :; }; eend() { return "$1"; }; supervise-daemon() { echo "supervise-daemon $*"; }
        start_pre; echo "$command $command_args"; reload"#;
    let procd = r#". "$0"; procd_open_instance() { :; }; procd_close_instance() { :; }; mkdir() { :; }
        procd_set_param() { echo "$*"; }; procd_add_reload_trigger() { echo "reload $*"; }; start_service; service_triggers"#;
    let shell = |script: &str, file: &str| {
        said(Command::new("bash").args(["-c", script]).arg(repository().join("packaging").join(file)))
    };
    let openrc = shell(openrc, "openrc/tinyfaas");
    assert!(
        openrc.contains("checkpath --directory --owner tinyfaas:tinyfaas --mode 0711 /var/lib/tinyfaas\n"),
        "{openrc}"
    );
    assert!(openrc.contains("supervise-daemon tinyfaas --signal HUP\n"), "{openrc}");
    let procd = shell(procd, "procd/tinyfaas");
    assert!(procd.contains("reload_signal HUP\n") && procd.contains("reload tinyfaas\n"), "{procd}");
    let units = fs::read_to_string(repository().join("packaging/systemd/tinyfaas.service")).unwrap();
    for (text, state) in [(&openrc, "/var/lib/tinyfaas"), (&procd, "/srv/tinyfaas"), (&units, "/var/lib/tinyfaas")] {
        let command = format!("/usr/bin/tinyfaas serve --config /etc/tinyfaas/tinyfaas.json --state-dir {state}");
        assert!(text.contains(&command), "{text}");
    }
    // The packaged settings are right, and their defaults those of the program.
    let dir = TempDir::new();
    let settings = repository().join("packaging/tinyfaas.json");
    let flags = ["--config", settings.to_str().unwrap()];
    Board::start_in(Backend::Process, &flags, dir.0.join("state"));
}

#[test]
fn the_units_reload_needs_a_shell_and_nothing_else() {
    let dir = TempDir::new();
    let file = dir.0.join("tinyfaas.json");
    fs::write(&file, "{}").unwrap();
    let mut board = Board::start_in(Backend::Process, &["--config", file.to_str().unwrap()], dir.0.join("state"));
    fs::write(&file, "{\"queue\": 9}").unwrap();
    let unit = fs::read_to_string(repository().join("packaging/systemd/tinyfaas.service")).unwrap();
    let reload = unit.lines().find_map(|line| line.strip_prefix("ExecReload=")).unwrap();
    let script = reload.strip_prefix("/bin/sh -c '").and_then(|rest| rest.strip_suffix('\'')).unwrap();
    // A small system has no kill but the shell's.
    said(
        Command::new("/bin/sh")
            .args(["-c", script])
            .env_clear()
            .env("PATH", "")
            .env("MAINPID", board.pid().to_string()),
    );
    board.wait_for("the reload", |b| b.log().contains("queue was changed").then_some(()));
}

#[test]
fn the_unit_is_hardened() {
    if !has("systemd-analyze", "systemd") {
        return;
    }
    let systemd = repository().join("packaging/systemd");
    let dir = TempDir::new();
    let unit = fs::read_to_string(systemd.join("tinyfaas.service")).unwrap();
    // Fails where it is more: in tenths.
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", "--threshold=15"]);
    said(command.arg(systemd.join("tinyfaas.service")));
    // What is started there does not matter, but it has to be there; neither the manual.
    let unit = unit.replace("/usr/bin/tinyfaas", env!("CARGO_BIN_EXE_tinyfaas")).replace("Documentation=", "#");
    fs::write(dir.0.join("tinyfaas.service"), unit).unwrap();
    fs::copy(systemd.join("tinyfaas-http.socket"), dir.0.join("tinyfaas-http.socket")).unwrap();
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg(dir.0.join("tinyfaas.service")).arg(dir.0.join("tinyfaas-http.socket"));
    let said = said(&mut command);
    assert!(!said.contains("tinyfaas"), "{said}");
}

#[test]
fn checksums_are_signed_and_a_changed_package_is_found() {
    let dir = TempDir::new();
    let [key, public, dist] = ["key.pem", "tinyfaas.pub", "dist"].map(|name| dir.0.join(name));
    fs::create_dir(&dist).unwrap();
    said(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&key));
    said(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public));
    let sign = repository().join("cross/sign");
    assert!(!run(Command::new(&sign).arg(&dist)).status.success(), "there is nothing to sign");
    fs::write(dist.join("tinyfaas-1.tar.gz"), "one").unwrap();
    said(Command::new(&sign).arg(&dist).env_remove("TINYFAAS_SIGNING_KEY"));
    assert!(!dist.join("SHA256SUMS.sig").exists());
    said(Command::new(&sign).arg(&dist).env("TINYFAAS_SIGNING_KEY", fs::read_to_string(&key).unwrap()));

    // The commands of docs/packages.md.
    let docs = fs::read_to_string(repository().join("docs/packages.md")).unwrap();
    let verify = docs.lines().find(|line| line.starts_with("openssl pkeyutl -verify ")).unwrap();
    let check = docs.lines().find(|line| line.starts_with("sha256sum --check ")).unwrap();
    fs::copy(&public, dist.join("tinyfaas.pub")).unwrap();
    let shell = |line: &str| run(Command::new("sh").args(["-c", line]).current_dir(&dist)).status.success();
    assert!(shell(verify) && shell(check));
    fs::write(dist.join("tinyfaas-1.tar.gz"), "two").unwrap();
    assert!(!shell(check));
    said(Command::new(&sign).arg(&dist).env_remove("TINYFAAS_SIGNING_KEY"));
    assert!(!dist.join("SHA256SUMS.sig").exists(), "the signature of other checksums does not stay");
    fs::write(dist.join("SHA256SUMS.sig"), [0; 64]).unwrap();
    assert!(!shell(verify));
}

#[test]
fn the_debian_package_satisfies_lintian() {
    if !has("lintian", "lintian") {
        return;
    }
    let dir = TempDir::new();
    let Some(packages) = pack("full", &dir.0) else { return };
    let mut command = Command::new("lintian");
    let said = said(command.args(["--fail-on", "error", "--allow-root"]).arg(&packages[1]));
    assert!(!said.contains("E: "), "{said}");
}

#[test]
fn the_debian_package_is_installed_upgraded_removed_and_purged() {
    // A Debian root with dpkg and python3; without a network, as on many boards.
    if !docker_is_ready() {
        return;
    }
    let dir = TempDir::new();
    let Some(_) = pack("full", &dir.0.join("old")) else { return };
    let time = said(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(repository()));
    let later = time.trim().parse::<u64>().unwrap() + 60;
    let mut command = Command::new(repository().join("cross/pack"));
    said(command.args([TARGET, "full"]).arg(dir.0.join("new")).env("SOURCE_DATE_EPOCH", later.to_string()));
    let packages = format!("{}:/packages:ro", dir.0.display());
    let script = fs::File::open(repository().join("tests/packages/debian")).unwrap();
    let out = Command::new("docker")
        .args(["run", "--rm", "-i", "--network", "none", "-v", &packages, "tinyfaas-test/python3", "sh", "-s"])
        .stdin(script)
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && text.contains("the package came and went"), "{text}");
}
