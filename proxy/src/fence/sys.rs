//! The few calls of the system that no crate wraps safely. The only `unsafe` of the program, each with its argument.
#![expect(unsafe_code, reason = "nothing else can make namespaces, fork, or configure the loopback device")]

use std::ffi::{CString, c_char, c_int, c_short};
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Puts this process into new namespaces; its children, for the one of processes.
///
/// # Errors
/// A system that does not permit it.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: what is unsafe about it is `CLONE_FILES`, after which other threads may close descriptors that this one
    // uses. It is not among our flags, and this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// Forks; `None` in the child.
///
/// # Errors
/// Too many processes.
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: this process has one thread (it is a fresh execution of the program that starts no other), so the child
    // finds no lock held by a thread that it does not have.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child)),
    }
}

/// Ends this process without running what the parent registered for its own end.
pub(super) fn exit(code: u8) -> ! {
    // SAFETY: it does not return, and touches nothing of ours.
    unsafe { libc::_exit(c_int::from(code)) }
}

/// Asks every process of this namespace but its first, which must be who asks, to end.
pub(super) fn end_all() {
    if std::process::id() == 1 {
        // SAFETY: a signal touches no memory of ours. To the first process of a namespace, -1 is all others of it.
        unsafe { libc::kill(-1, libc::SIGTERM) };
    }
}

/// Takes over a descriptor that whoever executed this program left open for it.
///
/// # Errors
/// A number behind which nothing is open.
pub(super) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asking for flags harms no descriptor, whoever owns it.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is open, and nothing in this program knows it by another name: it was named by the program that
    // executed us, for this one purpose, and this function is called once.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    Ok(descriptor)
}

/// Closes a descriptor as soon as another program is executed.
pub(super) fn close_on_exec(number: RawFd) {
    // SAFETY: it changes a flag of a descriptor, and nobody's ownership of it; where none is open it fails.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// The kind of file behind a descriptor, as in `st_mode`; `None` where none is open.
pub(super) fn file_kind(number: RawFd) -> Option<u32> {
    let mut stat = mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the pointer is good for one `stat`, which the call fills in where it succeeds.
    if unsafe { libc::fstat(number, stat.as_mut_ptr()) } == -1 {
        return None;
    }
    // SAFETY: the call succeeded, so all of it is initialised.
    Some(unsafe { stat.assume_init() }.st_mode & libc::S_IFMT)
}

/// How signals were answered before we ignored them.
pub(super) struct Ignored(Vec<(c_int, libc::sighandler_t)>);

/// Ignores what a terminal sends, and what asks to end: the command answers it.
pub(super) fn ignore_signals() -> Ignored {
    let signals = [
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ];
    // SAFETY: no handler is installed, only the disposition changes.
    Ignored(signals.map(|signal| (signal, unsafe { libc::signal(signal, libc::SIG_IGN) })).to_vec())
}

/// Ignores the signal that stops whoever writes to, or configures, a terminal from behind.
pub(super) fn ignore_background_output() {
    // SAFETY: no handler is installed, only the disposition changes.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
}

impl Ignored {
    /// Answers signals again as before, for the program that is about to be executed.
    pub(super) fn restore(&self) {
        for (signal, before) in &self.0 {
            if *before != libc::SIG_ERR {
                // SAFETY: it was in force before, and the handlers of this program are still where they were.
                unsafe { libc::signal(*signal, *before) };
            }
        }
    }
}

/// What `mount_setattr(2)` takes.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Makes a mount and all below it read-only, whatever other flags are locked on it.
///
/// # Errors
/// No mount there; a kernel before 5.12.
pub(super) fn set_read_only(path: &Path) -> io::Result<()> {
    const READ_ONLY: u64 = 1;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = MountAttributes { set: READ_ONLY, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: the path ends with a NUL, the attributes are of the layout and size that are passed along with them, and
    // both outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as c_char;
    }
    request
}

fn address(address: Ipv4Addr) -> libc::sockaddr {
    let inet = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: both are sixteen bytes of plain data; the one is a reading of the other.
    unsafe { mem::transmute::<libc::sockaddr_in, libc::sockaddr>(inet) }
}

fn configure(socket: impl AsFd, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: each of the requests below reads and writes one `ifreq`, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), what, &raw mut *request) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Brings a network device up.
///
/// # Errors
/// No such device, no permission.
pub(super) fn bring_up(socket: impl AsFd, device: &str) -> io::Result<()> {
    let mut request = request(device);
    configure(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the call above wrote this reading of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as c_short;
    configure(&socket, libc::SIOCSIFFLAGS, &mut request)
}

/// Gives a device an address and its network.
///
/// # Errors
/// No such device, no permission.
pub(super) fn set_network(socket: impl AsFd, device: &str, host: Ipv4Addr, mask: Ipv4Addr) -> io::Result<()> {
    let mut request = request(device);
    request.ifr_ifru.ifru_addr = address(host);
    configure(&socket, libc::SIOCSIFADDR, &mut request)?;
    request.ifr_ifru.ifru_netmask = address(mask);
    configure(&socket, libc::SIOCSIFNETMASK, &mut request)
}

/// How many packets a packet socket has lost since this was asked last, for want of room (packet(7)).
///
/// # Errors
/// A socket of another kind.
pub(super) fn dropped_packets(socket: impl AsFd) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the pointer is good for as many bytes as the length says, any bytes are valid there, and both outlive
    // the call, which keeps neither.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(statistics.tp_drops) }
}

/// Lets a socket see only what a filter passes.
///
/// # Errors
/// A filter that the kernel refuses.
pub(super) fn attach_filter(socket: impl AsFd, filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to as many instructions as it says, the size is its own, and the kernel copies both
    // before the call returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What `landlock_create_ruleset(2)` takes.
#[repr(C)]
struct Ruleset {
    files: u64,
    network: u64,
    scoped: u64,
}

/// Keeps this process and all that come after it from signalling others, its own group outside the fence included, and
/// from abstract sockets. Kernels before 6.12 cannot; the answer is whether this one does.
pub(super) fn keep_signals_in() -> bool {
    const ABSTRACT_SOCKETS: u64 = 1;
    const SIGNALS: u64 = 2;
    let ruleset = Ruleset { files: 0, network: 0, scoped: ABSTRACT_SOCKETS | SIGNALS };
    // SAFETY: the ruleset is of the layout and size that are passed along with it, and outlives the call.
    let made = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, size_of::<Ruleset>(), 0_u32)
    };
    let Ok(number) = RawFd::try_from(made) else { return false };
    if number < 0 {
        return false;
    }
    // SAFETY: the call returned a descriptor that is open and nobody else's.
    let made = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: it takes a descriptor, which is open, and flags.
    unsafe { libc::syscall(libc::SYS_landlock_restrict_self, made.as_raw_fd(), 0_u32) == 0 }
}
