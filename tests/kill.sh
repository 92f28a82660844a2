#!/bin/sh
# Kills the gateway under load many times on one folder, and prints what was seen: tests/kill.sh [ROUNDS]
# OUTGATE_KILL_SEED repeats the moments of an earlier run.
set -eu
cd "$(dirname "$0")/.."
OUTGATE_KILL_ROUNDS="${1:-200}" cargo test --locked -p outgate --test integration -- \
    --exact --nocapture kill::a_killed_gateway_has_recorded_whatever_left
