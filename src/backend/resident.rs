//! How much memory processes of this machine have resident, as the kernel tells it (proc(5)).

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of `/proc/PID/status` up to the line that is wanted; the lists of groups before it are short where handlers run.
const STATUS: usize = 2048;
/// Bytes of a list of processes, 8 for each: what of a handler has more is not told apart from one that has so many.
const PROCESSES: usize = 4096;

/// Bytes that the process has resident, pages included that it shares with others; `None` where it is gone.
pub fn of_process(pid: &str) -> Option<u64> {
    let mut text = [0; STATUS];
    let text = start_of(Path::new(&format!("/proc/{pid}/status")), &mut text)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The same of all processes in a cgroup together, of either version; `None` where it has none or cannot be seen.
pub fn of_cgroup(dir: &Path) -> Option<u64> {
    let mut text = [0; PROCESSES];
    let text = start_of(&dir.join("cgroup.procs"), &mut text)?;
    // Without a last one that may be cut.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    // A process of another namespace is a 0 here.
    whole.lines().filter_map(of_process).reduce(|sum, one| sum + one)
}

fn start_of<'b>(path: &Path, buf: &'b mut [u8]) -> Option<&'b str> {
    let mut file = File::open(path).ok()?;
    let mut filled = 0;
    while let Some(room) = buf.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read(room).ok()? {
            0 => break,
            n => filled += n,
        }
    }
    std::str::from_utf8(buf.get(..filled)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_a_group_that_of_its_processes() {
        let ours = of_process("self").unwrap();
        assert!(ours > 100 * 1024, "{ours}");
        assert_eq!(of_process("0"), None);
        let dir = std::env::temp_dir().join(format!("tinyfaas-group-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        assert_eq!(of_cgroup(&dir), None);
        std::fs::write(dir.join("cgroup.procs"), "0\n1\n12").unwrap();
        let first = of_process("1");
        let group = of_cgroup(&dir);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(group.is_some(), first.is_some());
    }
}
