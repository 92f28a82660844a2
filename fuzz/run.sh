#!/usr/bin/env bash
# Fuzzes every target in turn and prints what came of it.
#
#   bash fuzz/run.sh [SECONDS] [TARGET…]
#
# SECONDS is processor time for each target, ten minutes unless said otherwise. The corpus that grows is kept under
# target/fuzz-corpus, inputs that break a promise under target/fuzz-findings; the exit code is 1 where there are any.
# A finding is run again with `cargo fuzz run -s none TARGET FILE`. OUTGATE_FUZZ_LOGS names another folder for logs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-600}
targets=("${@:2}")
work=$PWD/target
logs=${OUTGATE_FUZZ_LOGS:-$work/fuzz-logs}
host=$(rustc -vV | sed -n 's/^host: //p')

# Everything here is safe Rust: the sanitizers would find nothing and cost half the speed, and without them the
# stable toolchain will do.
build() {
    cargo fuzz --version >/dev/null 2>&1 || cargo install --locked --debug cargo-fuzz
    cargo fuzz build -s none --target-dir "$work/fuzz"
}

# run TARGET: until it has had its time, in slices, because only wall time can be told to the fuzzer.
run() {
    local target=$1 used=0 failed=0 runs before log=$logs/$1.log
    local corpus=$work/fuzz-corpus/$target findings=$work/fuzz-findings/$target
    mkdir -p "$corpus" "$findings"
    : >"$log"
    before=$(processor)
    while ((used < seconds && !failed)); do
        nice -n 10 "$work/fuzz/$host/release/$target" -max_total_time=$((seconds - used)) -timeout=20 \
            -max_len=4096 -artifact_prefix="$findings/" -print_final_stats=1 "$corpus" "fuzz/corpus/$target" \
            >>"$log" 2>&1 || failed=1
        used=$(($(processor) - before))
    done
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | awk '{ sum += $1 } END { print sum + 0 }')
    row "$target" "$runs" "$((runs / (used > 0 ? used : 1)))" "$used" "$(count "$corpus")" "$(count "$findings")"
}

# Seconds of processor time that children of this script which have ended took.
processor() {
    awk -v hertz="$(getconf CLK_TCK)" '{ print int(($16 + $17) / hertz) }' "/proc/$$/stat"
}

count() {
    find "$1" -type f | wc -l
}

row() {
    printf '%-12s %12s %8s %8s %8s %8s\n' "$@"
}

main() {
    build
    mkdir -p "$logs"
    if ((${#targets[@]} == 0)); then
        mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | tail -n +2 | sort)
    fi
    row target executions exec/s seconds corpus findings
    local target
    for target in "${targets[@]}"; do
        run "$target"
    done
    [[ -z $(find "$work/fuzz-findings" -type f) ]]
}

main
