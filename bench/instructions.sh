#!/usr/bin/env bash
# Counts the instructions of ten scenarios under callgrind and compares them with bench/instructions.txt: a guard
# against becoming slower that no busy machine can fool.
#
#   bench/instructions.sh                   compare: more than the tolerance above a budget fails
#   bench/instructions.sh bless             write the counts of now
#   bench/instructions.sh prove             show that doubled work fails
#   bench/instructions.sh gateway OUTGATE   say what a request and an upload of 64 KiB cost that program; compares nothing
#
# A scenario is a function of policy/examples/instructions.rs that callgrind counts alone, built as the tests are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

budgets=bench/instructions.txt
scenarios=(source json base64 near-misses percent gzip head redact decide-100 decide-10000)
# In percent: compilers differ a little.
tolerance=8
# What a byte of the worst inputs may cost, as a multiple of what a byte of source code does.
declare -A worst=([near-misses]=20 [percent]=30)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# count SCENARIO [twice]: instructions of a scenario of the policy crate
count() {
    valgrind -q --tool=callgrind --callgrind-out-file="$work/out" --toggle-collect='*instructions::measured*' \
        "$target/debug/examples/instructions" "$@" >/dev/null 2>"$work/err" || { cat "$work/err" >&2; exit 1; }
    sed -n 's/^totals: //p' "$work/out"
}

# compare SCENARIO COUNT: a line, and 1 where the budget is not kept
compare() {
    local budget allowed=$tolerance
    budget=$(awk -v name="$1" '$1 == name { print $2 }' "$budgets")
    [[ -n $budget ]] || { echo "$1: no budget in $budgets" >&2; return 1; }
    awk -v name="$1" -v count="$2" -v budget="$budget" -v allowed="$allowed" 'BEGIN {
        change = 100 * (count / budget - 1)
        verdict = change > allowed ? "OVER BUDGET" : change < -allowed ? "well below: bless it" : "kept"
        printf "%-14s %12d  budget %12d  %+6.1f %%  %s\n", name, count, budget, change, verdict
        exit change > allowed
    }'
}

build() {
    target=$(cargo metadata --locked --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    cargo build --locked -q -p policy --example instructions
}

case ${1:-compare} in
compare)
    build
    failed=0
    for name in "${scenarios[@]}"; do
        counted=$(count "$name")
        compare "$name" "$counted" || failed=1
        [[ $name != source ]] || source=$counted
        # All of these scan as many bytes.
        if [[ -n ${worst[$name]:-} ]] && ((counted > worst[$name] * source)); then
            echo "$name: costs more than ${worst[$name]} times what source code does" >&2
            failed=1
        fi
    done
    exit $failed
    ;;
bless)
    build
    {
        echo "# Instructions of each scenario, written by bench/instructions.sh bless."
        for name in "${scenarios[@]}"; do echo "$name $(count "$name")"; done
    } >"$work/new"
    mv "$work/new" "$budgets"
    cat "$budgets"
    ;;
prove)
    build
    for name in "${scenarios[@]}"; do
        if compare "$name" "$(count "$name" twice)"; then
            echo "$name: doubled work was not noticed" >&2
            exit 1
        fi
    done
    ;;
gateway)
    for name in request upload; do echo "$name $(python3 bench/instructions.py "$name" "$2")"; done
    ;;
*)
    sed -n 2,11p "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
