#!/usr/bin/env bash
# A store of many records (ten million unless said otherwise), made and asked: every filter of the log, a session's
# report, the check of the chain, pruning under load. Prints what it measures, fails where a limit is passed.
#
#   bash tests/scale.sh [RECORDS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

records=${1:-10000000}
# A record with its indexes takes about a kilobyte, and as much again may lie in the log.
needed=$((records * 2 / 1024 / 1024 + 2))
free=$(df --output=avail -BG "${TMPDIR:-/tmp}" | tail -n 1 | tr -dc 0-9)
if ((free < needed)); then
    echo "$records records take up to $needed GiB; there are $free GiB in ${TMPDIR:-/tmp}; set TMPDIR to where there is room" >&2
    exit 1
fi
cargo build --release --locked -p outgate
export OUTGATE_SCALE_RECORDS=$records OUTGATE_TEST_PROGRAM=$PWD/target/release/outgate
cargo test --locked -p outgate --test integration -- scale:: --nocapture |&
    grep -E 'MEASURED|panicked|took|test result|error'
