"""Counts the instructions of one request through the real gateway: `instructions.py request|upload OUTGATE`.

The gateway runs under callgrind twice, with few and with many requests on one connection; the difference, divided by
how many more there were, is what one costs, whatever starting and stopping take. The destination and the client are
here, on loopback; what they cost is not counted.
"""

import http.client
import http.server
import os
import pathlib
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading

FEW, MANY = 20, 120
UPLOAD = 64 * 1024
DEADLINE = 100


class Destination(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer()

    def answer(self):
        body = b"x" * 1024
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\ncontent-type: text/plain\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def log_message(self, *_):
        pass


def certificate(folder):
    """An authority, and a certificate of its for localhost."""
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    authority = ["-subj", "/CN=authority", "-keyout", folder / "ca.key", "-out", folder / "ca.pem"]
    leaf = ["-subj", "/CN=localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    leaf += ["-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-addext", "subjectAltName=DNS:localhost"]
    leaf += ["-addext", "basicConstraints=critical,CA:FALSE"]
    for options in (authority, leaf):
        subprocess.run(made + options, check=True, capture_output=True)


def destination(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Destination)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def policy(port):
    rules = "".join(
        f'[[rule]]\nname = "rule {n}"\naction = "deny"\nto = ["*.team{n}.example"]\nmethods = ["POST"]\npaths = ["/private/{n}/**"]\n'
        for n in range(99)
    )
    return f'version = 1\nallow = ["localhost:{port}"]\n[addresses]\nallow = ["127.0.0.1:{port}", "[::1]:{port}"]\n{rules}'


def run(outgate, folder, port, scenario, times):
    """Instructions of a whole run with so many requests."""
    data = folder / f"data-{times}"
    data.mkdir(mode=0o700)
    (folder / "policy.toml").write_text(policy(port))
    (folder / "outgate.toml").write_text(
        f'listen = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\n[upstream]\nca_files = ["{folder}/ca.pem"]\n'
    )
    out = folder / f"callgrind-{times}"
    # One thread serves, so that who waits for whom varies less.
    environment = {**os.environ, "TOKIO_WORKER_THREADS": "1"}
    command = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}", outgate]
    command += ["--data-dir", data, "--config", folder / "outgate.toml", "--policy", folder / "policy.toml", "serve"]
    gateway = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    timer = threading.Timer(DEADLINE, gateway.kill)
    timer.start()
    try:
        proxy = None
        while proxy is None:
            line = gateway.stdout.readline()
            if not line:
                raise SystemExit(f"the gateway did not start: {gateway.stderr.read()}")
            proxy = re.match(r"proxy http://127\.0\.0\.1:(\d+)", line)
        drain = threading.Thread(target=gateway.stdout.read, daemon=True)
        drain.start()
        threading.Thread(target=gateway.stderr.read, daemon=True).start()
        ask(int(proxy[1]), port, data / "ca.pem", scenario, times)
        gateway.send_signal(signal.SIGTERM)
        gateway.wait()
    finally:
        timer.cancel()
        gateway.kill()
        gateway.wait()
    totals = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.M)
    return int(totals[1])


def ask(proxy, port, ca, scenario, times):
    context = ssl.create_default_context(cafile=str(ca))
    client = http.client.HTTPSConnection("127.0.0.1", proxy, context=context, timeout=60)
    client.set_tunnel("localhost", port)
    body = (b'{"role": "user", "content": "a quick brown fox"}\n' * UPLOAD)[:UPLOAD] if scenario == "upload" else None
    for _ in range(times):
        client.request("POST" if body else "GET", "/v1/things", body)
        answer = client.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"the gateway answered {answer.status}")
    client.close()


def main():
    scenario, outgate = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        certificate(folder)
        port = destination(folder)
        few, many = (run(outgate, folder, port, scenario, times) for times in (FEW, MANY))
    print((many - few) // (MANY - FEW))


main()
