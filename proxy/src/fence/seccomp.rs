//! What namespaces leave open, closed by system call: other kinds of sockets, injected input, ways into other namespaces.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

/// Sets the line discipline of a terminal.
const TIOCSETD: u64 = 0x5423;
/// Handles to mounts, with attributes (Linux 6.15); one number on every processor.
const SYS_OPEN_TREE_ATTR: libc::c_long = 467;
/// `IOPRIO_WHO_PROCESS` of ioprio_set(2).
const PROCESS: u64 = 1;

/// A call that is refused, and with which arguments; none: always.
type Refused = (libc::c_long, Vec<SeccompRule>);

/// Takes the calls away from this process and all that come after it. Privileges cannot be gained anew any more.
///
/// # Errors
/// A kernel without seccomp; a processor that we have no list for.
pub(super) fn confine() -> io::Result<()> {
    let filters = filters().map_err(io::Error::other)?;
    for filter in filters {
        apply_filter(&filter).map_err(io::Error::other)?;
    }
    Ok(())
}

fn filters() -> Result<Vec<BpfProgram>, seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let compile = |refused: Vec<Refused>, errno: i32| -> Result<BpfProgram, seccompiler::Error> {
        let rules: BTreeMap<i64, Vec<SeccompRule>> = refused.into_iter().collect();
        let says = SeccompAction::Errno(errno.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, says, arch)?;
        Ok(native_only(BpfProgram::try_from(filter)?))
    };
    Ok(vec![
        compile(forbidden()?, libc::EPERM)?,
        compile(absent(), libc::ENOSYS)?,
        compile(
            vec![
                (libc::SYS_socket, vec![other_families()?]),
                (libc::SYS_socketpair, vec![other_families()?]),
            ],
            libc::EAFNOSUPPORT,
        )?,
    ])
}

/// Calls that answer as if nobody had the right to them.
fn forbidden() -> Result<Vec<Refused>, seccompiler::BackendError> {
    let mut refused = vec![
        (
            libc::SYS_ioctl,
            // Input as if typed; and a terminal that nobody else could use any more.
            vec![
                asks(1, libc::TIOCSTI)?,
                asks(1, libc::TIOCLINUX)?,
                asks(1, TIOCSETD)?,
                asks(1, libc::TIOCEXCL)?,
            ],
        ),
        // Groups and users reach over the edge of a namespace: whoever started us may be of our group.
        (libc::SYS_setpriority, vec![differs(0, u64::from(libc::PRIO_PROCESS))?]),
        (libc::SYS_ioprio_set, vec![differs(0, PROCESS)?]),
        (libc::SYS_unshare, namespaces()?),
        (libc::SYS_clone, namespaces()?),
    ];
    let always = [
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        SYS_OPEN_TREE_ATTR,
        libc::SYS_mount_setattr,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_open_by_handle_at,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        // Keys belong to the user, not to a namespace, and asking for one can make the kernel start programs outside.
        libc::SYS_add_key,
        libc::SYS_keyctl,
        libc::SYS_request_key,
    ];
    refused.extend(always.map(|call| (call, Vec::new())));
    Ok(refused)
}

/// Calls that answer as if this kernel did not have them: programs then use older ones, which can be looked at.
fn absent() -> Vec<Refused> {
    // The arguments of `clone3` are behind a pointer; what io_uring does goes past every filter.
    [libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register]
        .map(|call| (call, Vec::new()))
        .to_vec()
}

/// Any family of sockets but the four that ordinary programs use and namespaces confine.
fn other_families() -> Result<SeccompRule, seccompiler::BackendError> {
    let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let differs = |family: i32| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(family.unsigned_abs()))
    };
    SeccompRule::new(known.into_iter().map(differs).collect::<Result<_, _>>()?)
}

/// New namespaces: in one of users a program would have every privilege again, and more of the kernel to attack.
fn namespaces() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let flags = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    let has = |flag: i32| {
        let flag = u64::from(flag.unsigned_abs());
        let set = SeccompCmpOp::MaskedEq(flag);
        SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, set, flag)?])
    };
    flags.into_iter().map(has).collect()
}

/// Compares the lower half only, as the kernel does: what stands above must not make it another call.
fn asks(argument: u8, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    let equal = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
    SeccompRule::new(vec![equal])
}

/// Any value but this one.
fn differs(argument: u8, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    let differs = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)?;
    SeccompRule::new(vec![differs])
}

/// Puts in front of a filter that calls by another convention (of 32 bits, x32) do not exist: their numbers mean
/// something else.
fn native_only(filter: BpfProgram) -> BpfProgram {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    /// Offsets in `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    const ABSENT: u32 = 0x0005_0000 | libc::ENOSYS as u32;
    #[cfg(target_arch = "x86_64")]
    const NATIVE: u32 = 0xc000_003e;
    #[cfg(not(target_arch = "x86_64"))]
    const NATIVE: u32 = 0xc000_00b7;
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut program = vec![
        op(LOAD, 0, 0, ARCHITECTURE),
        op(EQUAL, 1, 0, NATIVE),
        op(RETURN, 0, 0, ABSENT),
        op(LOAD, 0, 0, NUMBER),
        op(AT_LEAST, 0, 1, 0x4000_0000),
        op(RETURN, 0, 0, ABSENT),
    ];
    program.extend(filter);
    program
}
