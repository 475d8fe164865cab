#!/usr/bin/env bash
# Fuzzes every parser of foreign bytes, one after another:
#
#     cargo install cargo-fuzz
#     fuzz/run.sh [minutes each, default 15] [parser ...]
#
# The parsers are those of `fuzz/parsers.rs`; each starts from its seeds in `fuzz/corpus` and adds what it finds to `fuzz/found`, which is
# gone on with next time. Input that makes one panic, take 2 GB or ten seconds is kept in `fuzz/artifacts/PARSER`: mend the parser, and put
# the input into `fuzz/corpus/PARSER`, which `cargo test --test corpus` reads for ever. The exit code is 1 if there was any.
set -uo pipefail
cd "$(dirname "$0")/.."

minutes=${1:-15}
shift || true
if [ $# -gt 0 ]; then parsers=("$@"); else parsers=($(ls fuzz/corpus)); fi

# No sanitizer of memory: the parsers are safe Rust, and without one the stable compiler will do.
cargo fuzz build --sanitizer none parsers || exit 2
program=$(find fuzz/target -path '*/release/parsers' -type f -perm -u+x | head -n 1)
failed=()
for parser in "${parsers[@]}"; do
    mkdir -p "fuzz/found/$parser" "fuzz/artifacts/$parser"
    echo "== $parser, $minutes minutes"
    log=fuzz/artifacts/$parser.log
    if CTK_PARSER=$parser "$program" "fuzz/found/$parser" "fuzz/corpus/$parser" -artifact_prefix="fuzz/artifacts/$parser/" \
        -max_total_time="$((minutes * 60))" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 >"$log" 2>&1; then
        grep -E 'number_of_executed_units|new_units_added|peak_rss_mb' "$log"
    else
        failed+=("$parser")
        tail -n 25 "$log"
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "stumbled: ${failed[*]}"
    exit 1
fi
echo "clean: ${parsers[*]}"
