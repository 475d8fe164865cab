#!/usr/bin/env bash
# Everything to know about a CUDA device in at most six minutes, without a network:
#
#     benches/cuda/run.sh CTK [DEVICE] > cuda.json
#
# CTK is a built program (cargo build --release), DEVICE is cuda (the default) or cuda:N. First the self-test, then the step of ResNet-18
# (32 px, batch 512) and of ResNet-50 (224 px, batches 64 and 256) in f32, TF32 and bf16: time, images a second, memory, and the share of
# each call of the device; beside them PyTorch with channels_last and autocast, where `python3` has torch and torchvision. stdout gets one
# JSON object; progress, and rows that are skipped with the reason, go to stderr and into the object. The exit code is 1 if the device is
# wrong in the self-test.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
ctk=${1:?benches/cuda/run.sh CTK [DEVICE]}
device=${2:-cuda}
deadline=$((SECONDS + 345))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { echo "$*" >&2; }

# A row of the result: its name, and the command that prints one JSON object as its last line.
rows=0
row() {
    local name=$1 left=$((deadline - SECONDS))
    shift
    rows=$((rows + 1))
    local out="$work/row-$(printf %03d "$rows")"
    echo "$name" >"$out.name"
    if [ "$left" -lt 10 ]; then
        echo "no time is left" >"$out.skipped"
    elif timeout "$left" "$@" >"$out.out" 2>"$out.err"; then
        tail -n 1 "$out.out" >"$out.json"
        say "done: $name"
        return 0
    else
        local code=$?
        tail -n 1 "$out.out" | grep '^{' >"$out.json" || rm -f "$out.json"
        local why
        why=$(tail -n 2 "$out.err" | tr '\n' ' ')
        [ "$code" = 124 ] && why="no time is left"
        echo "${why:-exit code $code}" >"$out.skipped"
    fi
    say "failed or skipped: $name: $(cat "$out.skipped")"
    return 1
}

# A row that cannot be run, with the reason.
without() {
    rows=$((rows + 1))
    local out="$work/row-$(printf %03d "$rows")"
    echo "$1" >"$out.name"
    echo "$2" >"$out.skipped"
    say "skipped: $1: $2"
}

row "devices" "$ctk" devices --json
wrong=0
row "self-test" "$ctk" devices --self-test --device "$device" --json --quiet || wrong=1

torch=$(python3 -c 'import torch, torchvision; print("yes" if torch.cuda.is_available() else "torch finds no device")' 2>&1 | tail -n 1)
for shape in "resnet18 small 32 512" "resnet50 imagenet 224 64" "resnet50 imagenet 224 256"; do
    read -r encoder stem size batch <<<"$shape"
    for numbers in f32 tf32 bf16; do
        name="$encoder, $size px, batch $batch, $numbers"
        exact=false precision=f32
        [ "$numbers" = f32 ] && exact=true
        [ "$numbers" = bf16 ] && precision=bf16
        row "ctk: $name" "$ctk" bench vision --encoder "$encoder" --stem "$stem" --size "$size" --batch "$batch" --steps 10 \
            --precision "$precision" --set "train.exact=$exact" --device "$device" --json --quiet
        if [ "$torch" = yes ]; then
            row "PyTorch: $name" python3 "$here/peer.py" --network "$encoder" --size "$size" --batch "$batch" --numbers "$numbers" \
                --device "$device"
        else
            without "PyTorch: $name" "$torch"
        fi
    done
done

# One object from the rows.
{
    printf '{"device": "%s", "seconds": %d, "rows": [' "$device" "$SECONDS"
    comma=""
    for name in "$work"/row-*.name; do
        row=${name%.name}
        printf '%s{"name": "%s"' "$comma" "$(cat "$name")"
        [ -s "$row.json" ] && printf ', "figures": %s' "$(cat "$row.json")"
        [ -s "$row.skipped" ] && printf ', "skipped": "%s"' "$(tr -d '"\\' <"$row.skipped" | tr '\n\t' '  ')"
        printf '}'
        comma=", "
    done
    printf ']}\n'
}
exit $wrong
