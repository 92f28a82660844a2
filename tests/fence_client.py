"""A fence and a program in it: makes the sockets, hands them to the gateway, then tries what the tests ask about.

Runs in user and network namespaces of its own. Arguments: control socket, CA file, session, token, and `flood` for more
packets than anybody can read instead. Prints what it found as JSON."""

import array
import fcntl
import json
import socket
import ssl
import struct
import sys
import time

control, ca, session, token, *flood = sys.argv[1:]


def interface(name, request, value):
    """Changes the loopback device as `ip` would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, request, struct.pack("16s16s", name, value))


def address(text):
    return struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(text))


interface(b"lo", 0x8914, struct.pack("H", 0x49))  # SIOCSIFFLAGS: up
interface(b"lo:1", 0x8916, address("198.18.0.1"))  # SIOCSIFADDR
interface(b"lo:1", 0x891C, address("255.254.0.0"))  # SIOCSIFNETMASK: the whole block is local


def bound(kind, where):
    made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(where)
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    return made


packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
packets.bind(("lo", 0x0800))
sockets = {
    "https": bound(socket.SOCK_STREAM, ("0.0.0.0", 443)),
    "http": bound(socket.SOCK_STREAM, ("0.0.0.0", 80)),
    "names": bound(socket.SOCK_DGRAM, ("127.0.0.1", 53)),
    "names_stream": bound(socket.SOCK_STREAM, ("127.0.0.1", 53)),
    "packets": packets,
}

if flood:
    # Before anybody reads: what has no room is lost for certain.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        for _ in range(20_000):
            sending.sendto(b"hello", ("198.18.0.2", 9))

fence = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
fence.connect(control)
message = json.dumps({"session": session, "token": token, "sockets": list(sockets)}).encode()
descriptors = array.array("i", [made.fileno() for made in sockets.values()])
fence.sendmsg([struct.pack("<I", len(message))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
fence.sendall(message)
(length,) = struct.unpack("<I", fence.recv(4, socket.MSG_WAITALL))
taken = json.loads(fence.recv(length, socket.MSG_WAITALL))
assert taken == "serving", taken
for made in sockets.values():
    made.close()
if flood:
    # Until the gateway has looked.
    time.sleep(2)
    print(json.dumps("flooded"))
    sys.exit()


def look_up(name):
    query = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0)
    for label in name.split("."):
        query += bytes([len(label)]) + label.encode()
    query += struct.pack("!BHH", 0, 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10)
        asking.sendto(query, ("127.0.0.1", 53))
        reply = asking.recv(512)
    return socket.inet_ntoa(reply[-4:]) if reply[7] else None


def connect(host, port):
    stream = socket.create_connection((host, port), timeout=10)
    return stream


def ask(stream, host):
    """Sends a request: the status and the reason of the answer."""
    stream.sendall(f"GET /denied HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while True:
        read = stream.recv(65536)
        if not read:
            break
        answer += read
    head = answer.split(b"\r\n\r\n")[0].decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head[1:])
    return [int(head[0].split()[1]), fields.get("x-outgate-reason")]


def secure(where, name):
    context = ssl.create_default_context(cafile=ca)
    return context.wrap_socket(connect(where, 443), server_hostname=name)


def alert(where, name):
    try:
        secure(where, name)
    except ssl.SSLError as error:
        text = str(error).lower()
        for word in ["unrecognized_name", "unrecognized name", "access_denied", "access denied"]:
            if word in text:
                return "alert " + word.replace(" ", "_")
        return text
    return "accepted"


def end(stream, said=b""):
    """How a connection ends after this was said."""
    try:
        stream.sendall(said)
        return "closed" if stream.recv(1) == b"" else "answered"
    except ConnectionError:
        return "closed"


def refused(where, port):
    try:
        connect(where, port)
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return "unreachable" if error.errno == 101 else str(error)
    return "accepted"


names = [look_up(name) for name in ["allowed.test", "pinned.test", "evil.test"]]
here, pinned, _ = names
found = {
    "names": names,
    "https": ask(secure(here, "allowed.test"), "allowed.test"),
    "http": ask(connect(here, 80), "allowed.test"),
    "other sni": alert(here, "other.test"),
    "other host": ask(secure(here, "allowed.test"), "other.test"),
    "not http": end(connect(here, 443), b"SSH-2.0-x\r\n"),
    "passthrough": alert(pinned, "pinned.test"),
    "no name": end(connect("198.18.7.7", 443)),
    "loopback": end(connect("127.0.0.1", 80)),
    "port": refused(here, 5432),
    "direct": refused("192.0.2.1", 443),
}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as quic:
    quic.sendto(b"hello", (here, 443))
    quic.settimeout(1)
    try:
        quic.connect((here, 443))
        quic.send(b"hello")
        quic.recv(1)
    except OSError:
        pass
print(json.dumps(found))
