#!/usr/bin/env bash
# How the cost of a request grows with connections, rules, the size of a body, stored decisions and cores. One curve an
# argument, all without; each point is one short run of the rig and one line: value, CPU µs per request, p50 and p99 µs,
# MiB of the gateway afterwards.
#
#   bench/growth.sh [connections] [rules] [body] [stored] [cores] [start]
#
# Takes ten minutes. Needs `rig.sh setup` and a release build; the same variables as rig.sh. `stored` and `start` need
# STORE, a data folder with many records in it (tests/scale.sh makes one of ten million and keeps it where
# OUTGATE_SCALE_KEEP says).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
work=${RIG_WORK:-${XDG_CACHE_HOME:-$HOME/.cache}/outgate-bench}
outgate=${OUTGATE:-$PWD/../target/release/outgate}
results=$(mktemp)
trap 'rm -f "$results"' EXIT
export RESULTS=$results RIG_SECS=${RIG_SECS:-3}

# point LABEL WORKLOAD
point() {
    : >"$results"
    ./rig.sh run outgate "$2" 1 >/dev/null 2>&1 || true
    python3 - "$results" "$1" <<'PY'
import json, sys
lines = open(sys.argv[1]).read().splitlines()
if not lines:
    print(f"{sys.argv[2]:>24}  no result")
else:
    run = json.loads(lines[-1])
    micro = (run.get("cpu_proxy_per_1k_s") or 0) * 1000
    memory = run.get("rss_end_kb", 0) / 1024
    print(f"{sys.argv[2]:>24}  cpu {micro:10.1f} µs  p50 {run['p50_us']:9.0f}  p99 {run['p99_us']:9.0f}  "
          f"memory {memory:6.1f} MiB  ok {run['ok']} errors {run['errors']}")
PY
}

connections() { for n in ${CONNECTIONS:-1 10 100 1000 10000}; do point "$n connections" "c$n"; done; }
rules() { for n in ${RULES:-1 100 1000 10000 100000}; do OUTGATE_RULES=$n point "$n rules" c64; done; }
body() {
    local size
    for size in ${SIZES:-1024 65536 1048576 67108864 1073741824 4294967296}; do RIG_SECS=10 point "$size bytes" "u$size"; done
}
stored() {
    point "0 stored" c64
    [[ -z ${STORE:-} ]] || OUTGATE_STORE=$STORE point "the records of STORE" c64
}
cores() {
    point "1 core" c64
    RIG_PIN=0 point "2 cores, shared" c64
}

# From the start of the program to the line that says it is ready, ten times, with the records of STORE.
start() {
    local data
    data=$(mktemp -d)
    [[ -z ${STORE:-} ]] || cp -a "$STORE/." "$data"
    chmod 700 "$data"
    python3 - "$outgate" "$data" <<'PY'
import subprocess, sys, time
outgate, data = sys.argv[1:]
times = []
for _ in range(10):
    begun = time.monotonic()
    gateway = subprocess.Popen(
        [outgate, "--data-dir", data, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    while not gateway.stdout.readline().startswith("admin "):
        if gateway.poll() is not None:
            raise SystemExit("the gateway did not start")
    times.append((time.monotonic() - begun) * 1000)
    gateway.terminate()
    gateway.wait()
times.sort()
print(f"{'start to ready':>24}  median {times[5]:.1f} ms, {times[0]:.1f} to {times[-1]:.1f}")
PY
    rm -rf "$data"
}

if (($# == 0)); then set -- connections rules body stored cores start; fi
for curve in "$@"; do
    echo "== $curve"
    "$curve"
done
