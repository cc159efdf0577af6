//! What a function may use, and that nothing of a handler outlives it.

use std::fs;
use std::path::PathBuf;

use crate::board::{Backend, Board};
use crate::watch::{eventually, handlers, is_alive};

/// Starts a process that leaves the handler's process group, and answers with its id.
const ESCAPES: &[(&str, &str)] = &[(
    "fn.py",
    "import subprocess\ndef fn(input):\n    \
     return str(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid)\n",
)];

/// The folder of the cgroup (v2) that a process is in; `None` where none is mounted.
fn cgroup_of(pid: i32) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let point = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    })?;
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    Some(point.join(path))
}

#[test]
fn what_left_its_process_group_ends_with_its_handler_where_there_are_cgroups() {
    let mut board = Board::start(Backend::Process, &[]);
    board.deploy("f", "python3", 1, ESCAPES);
    let escaped: i32 = board.call("f", b"").text().parse().unwrap();
    assert!(is_alive(escaped));
    let log = board.log();
    if log.contains("no cgroups (") {
        eprintln!("\n*** SKIPPED: cgroups cannot be written here, so nothing ends what leaves its process group ***\n");
        crate::watch::signal(escaped, "KILL");
        return;
    }
    let dir = cgroup_of(handlers(&board, "f")[0]).unwrap();
    let of_instance = dir.parent().unwrap().to_owned();
    assert!(of_instance.file_name().unwrap().to_str().unwrap().starts_with("tinyfaas-"), "{dir:?}");
    assert_eq!(cgroup_of(escaped).unwrap(), dir);
    assert_eq!(board.delete("f").status, 200);
    eventually("the end of what escaped", || (!is_alive(escaped)).then_some(()));
    assert!(!dir.exists());
    board.deploy("f", "python3", 1, ESCAPES);
    let escaped: i32 = board.call("f", b"").text().parse().unwrap();
    assert!(board.stop());
    eventually("the end of what escaped", || (!is_alive(escaped)).then_some(()));
    assert!(!of_instance.exists(), "the instance's cgroup is left over");
}

#[test]
fn what_escaped_from_a_runtime_that_was_killed_is_ended_by_the_next_one() {
    let board = Board::start(Backend::Process, &[]);
    board.deploy("f", "python3", 1, ESCAPES);
    let escaped: i32 = board.call("f", b"").text().parse().unwrap();
    let board = board.power_cut();
    if board.log().contains("no cgroups (") {
        eprintln!("\n*** SKIPPED: cgroups cannot be written here, so nothing ends what leaves its process group ***\n");
        crate::watch::signal(escaped, "KILL");
        return;
    }
    eventually("the end of what escaped", || (!is_alive(escaped)).then_some(()));
}
