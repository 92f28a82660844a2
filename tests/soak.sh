#!/usr/bin/env bash
# The gateway as it is released, under everything at once for an hour unless said otherwise: both versions of HTTP,
# streams, WebSockets, refusals, uploads, sessions, new policies, new certificate authorities, destinations that die.
# Prints what it measures as a table, fails where memory or descriptors grow, a request is not on record, or it panics.
#
#   bash tests/soak.sh [MINUTES]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=${1:-60}
cargo build --release --locked -p outgate
export OUTGATE_SOAK_MINUTES=$minutes OUTGATE_TEST_PROGRAM=$PWD/target/release/outgate
cargo test --locked -p outgate --test integration -- --exact soak::nothing_grows_with_time --nocapture |&
    grep -vE '^(running|$)'
