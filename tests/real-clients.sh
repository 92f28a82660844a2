#!/bin/sh
# Drives pip, npm and cargo through the gateway to the registries this machine is configured for. Run by hand: it
# needs the network, and prints what the gateway recorded.
#
#     cargo build --release && tests/real-clients.sh [ADDRESS]...
#
# Where registries or their mirrors have private addresses, name them (or blocks of them): nothing private is dialled
# that the policy does not allow.
set -eu
cd "$(dirname "$0")/.."
outgate="${OUTGATE:-${CARGO_TARGET_DIR:-target}/release/outgate}"
work=$(mktemp -d)
data="$work/data"
gateway=
trap 'if [ -n "$gateway" ]; then kill "$gateway" 2>/dev/null || true; wait "$gateway" 2>/dev/null || true; fi; rm -rf "$work"' EXIT

# The starter policy allows the public registries. A mirror that pip, npm or cargo is configured for is added by name.
host_of() { printf '%s\n' "$1" | sed -n 's|^[a-z+]*://\([^/@]*@\)\{0,1\}\([^/:]*\).*|\2|p'; }
"$outgate" --data-dir "$data" policy show >/dev/null
for url in "$(python3 -m pip config get global.index-url 2>/dev/null || true)" \
    "$(npm config get registry 2>/dev/null || true)"; do
    host=$(host_of "$url")
    if [ -n "$host" ]; then "$outgate" --data-dir "$data" policy allow "$host" || true; fi
done

if [ "$#" -gt 0 ]; then
    mkdir -p -m 700 "$data/policy.d"
    { printf 'version = 1\n[addresses]\nallow = ['; printf '"%s", ' "$@"; printf ']\n'; } >"$data/policy.d/addresses.toml"
fi

: >"$work/said"
"$outgate" --data-dir "$data" serve --unattended --listen 127.0.0.1:0 --admin 127.0.0.1:0 >"$work/said" &
gateway=$!
tries=0
until grep -q '^admin http://' "$work/said"; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ]; then echo "the gateway did not get ready" >&2; exit 1; fi
    sleep 0.1
done
eval "$("$outgate" --data-dir "$data" env --shell sh)"

failed=0
try() {
    name=$1
    shift
    if (cd "$work" && "$@" >"$work/$name.log" 2>&1); then
        echo "$name: passed"
    else
        echo "$name: FAILED" >&2
        tail -n 20 "$work/$name.log" >&2
        failed=1
    fi
}

try pip python3 -m pip download --quiet --no-cache-dir --no-deps --dest "$work/pip" six
try npm npm pack --silent --cache "$work/npm" left-pad
mkdir -p "$work/crate/src"
printf '[package]\nname = "crate"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\nitoa = "1"\n' >"$work/crate/Cargo.toml"
: >"$work/crate/src/lib.rs"
try cargo env CARGO_HOME="$work/cargo" cargo fetch --manifest-path "$work/crate/Cargo.toml"

"$outgate" --data-dir "$data" log --limit 50
exit "$failed"
