//! Which system calls a handler may make: a filter (seccomp(2)) that it and all it starts keep.
//!
//! Refused is what functions do not need and what the kernel was attacked through most, or what looks into other processes;
//! of sockets, all families but those that reach the network, and these as well where a function has none. A list of what is
//! refused, not of what is allowed: interpreters use nearly everything else.

use libc::c_long;
use seccompiler::{apply_filter, sock_filter};

/// Calls that are refused with EPERM.
const REFUSED: [c_long; 29] = [
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    // Works on behalf of the process where no filter looks.
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Flags of clone(2) that make namespaces: in a user namespace a process is root to much of the kernel.
const NAMESPACES: u32 = 0x7e02_0000;

/// Families of sockets (socket(2)) of a function that has a network, the last two of one that has none; AF_NETLINK is how
/// libraries ask which addresses there are.
const FAMILIES: [i32; 4] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_UNIX];

/// `AUDIT_ARCH_…` of linux/audit.h: numbers of system calls mean nothing without it.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else if cfg!(target_arch = "arm") {
    0x4000_0028
} else {
    0
};

/// From here on numbers are those of x32, a second set of the same calls.
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data` of linux/seccomp.h; the lower half of the first argument is at 16, as our targets are
/// little-endian.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// Instructions of linux/bpf_common.h: load a word, jump where equal, greater or equal, or one bit is set, return.
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Filters this process's calls for good. `hardened`: besides the families of sockets, which a function without a network
/// never gets.
///
/// # Errors
/// One line: the kernel has no filters, or this architecture is not known here.
pub fn filter(hardened: bool, network: bool) -> Result<(), String> {
    if ARCHITECTURE == 0 {
        return Err("its system calls are not known on this architecture".into());
    }
    apply_filter(&program(hardened, network)).map_err(|e| e.to_string())
}

fn program(hardened: bool, network: bool) -> Vec<sock_filter> {
    let op = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let refuse = |errno: i32| op(RETURN, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs(), 0, 0);
    let allow = || op(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0);
    let number = |call: c_long| call as u32;
    // Each jump leads over the next instruction, or to it.
    let mut program =
        vec![op(LOAD, ARCH, 0, 0), op(EQUAL, ARCHITECTURE, 1, 0), refuse(libc::EPERM), op(LOAD, NUMBER, 0, 0)];
    if cfg!(target_arch = "x86_64") {
        program.extend([op(AT_LEAST, X32, 0, 1), refuse(libc::EPERM)]);
    }
    if hardened {
        for call in REFUSED {
            program.extend([op(EQUAL, number(call), 0, 1), refuse(libc::EPERM)]);
        }
        // Its flags are in memory, where no filter can look: callers do with clone(2) then.
        program.extend([op(EQUAL, number(libc::SYS_clone3), 0, 1), refuse(libc::ENOSYS)]);
        program.extend([op(EQUAL, number(libc::SYS_clone), 0, 4), op(LOAD, FIRST_ARGUMENT, 0, 0)]);
        program.extend([op(ANY_BIT, NAMESPACES, 0, 1), refuse(libc::EPERM), allow()]);
    } else {
        program.extend([op(EQUAL, number(libc::SYS_io_uring_setup), 0, 1), refuse(libc::EPERM)]);
    }
    program.extend([op(EQUAL, number(libc::SYS_socket), 1, 0), allow(), op(LOAD, FIRST_ARGUMENT, 0, 0)]);
    let families = FAMILIES.get(if network { 0 } else { 2 }..).unwrap_or_default();
    for family in families {
        program.extend([op(EQUAL, family.unsigned_abs(), 0, 1), allow()]);
    }
    program.push(refuse(libc::EAFNOSUPPORT));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says to a call: the kernel's way through it, for the instructions that it has.
    fn verdict(program: &[sock_filter], arch: u32, call: u32, argument: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let op = &program[at];
            let jump = |taken: bool| usize::from(if taken { op.jt } else { op.jf });
            at += 1;
            match op.code {
                LOAD => loaded = [call, arch, 0, 0, argument][op.k as usize / 4],
                EQUAL => at += jump(loaded == op.k),
                AT_LEAST => at += jump(loaded >= op.k),
                ANY_BIT => at += jump(loaded & op.k != 0),
                RETURN => return op.k,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn what_is_listed_is_refused_and_everything_else_is_allowed() {
        let all = program(true, true);
        let of = |call: c_long, argument: u32| verdict(&all, ARCHITECTURE, call as u32, argument);
        let refused = |errno: i32| libc::SECCOMP_RET_ERRNO | errno as u32;
        for call in REFUSED {
            assert_eq!(of(call, 0), refused(libc::EPERM), "{call}");
        }
        assert_eq!(of(libc::SYS_clone3, 0), refused(libc::ENOSYS));
        for call in [libc::SYS_read, libc::SYS_execve, libc::SYS_connect, libc::SYS_kill] {
            assert_eq!(of(call, 0), libc::SECCOMP_RET_ALLOW, "{call}");
        }
        assert_eq!(of(libc::SYS_clone, libc::CLONE_VM as u32 | libc::CLONE_THREAD as u32), libc::SECCOMP_RET_ALLOW);
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWCGROUP] {
            assert_eq!(of(libc::SYS_clone, flag as u32), refused(libc::EPERM), "{flag:#x}");
        }
        assert_eq!(verdict(&all, ARCHITECTURE ^ 1, libc::SYS_read as u32, 0), refused(libc::EPERM));
        if cfg!(target_arch = "x86_64") {
            assert_eq!(of(libc::SYS_read | i64::from(X32) as c_long, 0), refused(libc::EPERM));
        }
    }

    #[test]
    fn sockets_are_of_the_families_that_the_function_may_have() {
        let refused = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;
        for (hardened, network) in [(true, true), (true, false), (false, false)] {
            let program = program(hardened, network);
            let of = |family: i32| verdict(&program, ARCHITECTURE, libc::SYS_socket as u32, family as u32);
            for family in [libc::AF_UNIX, libc::AF_NETLINK] {
                assert_eq!(of(family), libc::SECCOMP_RET_ALLOW, "{family}");
            }
            for family in [libc::AF_INET, libc::AF_INET6] {
                assert_eq!(of(family) == libc::SECCOMP_RET_ALLOW, network, "{family}");
            }
            for family in [libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK, libc::AF_BLUETOOTH] {
                assert_eq!(of(family), refused, "{family}");
            }
            let ptrace = verdict(&program, ARCHITECTURE, libc::SYS_ptrace as u32, 0);
            assert_eq!(ptrace == libc::SECCOMP_RET_ALLOW, !hardened);
        }
    }
}
