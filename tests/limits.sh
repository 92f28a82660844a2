#!/usr/bin/env bash
# The gateway as it is released, attacked by one agent while another goes on with its work: fails where the other's 99th
# percentile is more than three times what it was before. Prints what it measures.
#
#   bash tests/limits.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --release --locked -p outgate
export OUTGATE_TEST_PROGRAM=$PWD/target/release/outgate
cargo test --locked -p outgate --test integration -- limits:: --nocapture --test-threads 1 |&
    grep -E 'MEASURED|SCALED|panicked|took|test result|error'
