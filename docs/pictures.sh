#!/usr/bin/env bash
# Makes the pictures of README.md and of the book by ctk alone: docs/pictures.sh CTK
#   views.png              a grid of view pairs of the generated images (ctk preview)
#   terminal.svg           what `ctk train vision` prints (the whole default run: a minute or two)
#   label-efficiency.svg   the plot of a small study on the same run (ctk eval label-efficiency)
# Everything is seeded; times in the terminal's picture differ from machine to machine.
set -euo pipefail
docs=$(cd "$(dirname "$0")" && pwd)
ctk=$(command -v "${1:?docs/pictures.sh CTK}")
ctk=$(realpath "$ctk")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$docs/src/pictures"
cd "$folder"

"$ctk" preview --out views.png
"$ctk" train vision --out runs/vision-1 >stdout 2>stderr
"$ctk" eval label-efficiency runs/vision-1 --labels 1-per-class,3-per-class,10-per-class --seeds 3 --methods scratch,probe,finetune \
    --rates 0.02 --epochs 20 --folds 2 --out study -q >study.txt

python3 - "$docs/src/pictures/terminal.svg" <<'PYTHON'
import sys
from html import escape

err = [line for line in open("stderr").read().splitlines() if line.strip()]
steps = [at for at, line in enumerate(err) if line.lstrip().startswith("step ")]
if len(steps) > 4:  # of many lines of progress, the first two and the last two
    err = err[: steps[1] + 1] + ["…"] + err[steps[-2]:]
lines = ["$ ctk train vision", *err, *open("stdout").read().rstrip().splitlines()]
wide, tall = 8.4, 17
lines = [line if len(line) <= 110 else line[:109] + "…" for line in lines]
width, height = int(110 * wide) + 24, len(lines) * tall + 44
out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
       f'<rect width="{width}" height="{height}" rx="8" fill="#1e2127"/>']
out += [f'<circle cx="{18 + 18 * at}" cy="16" r="5" fill="{colour}"/>' for at, colour in enumerate(["#e06c75", "#e5c07b", "#98c379"])]
out.append('<g font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="13.5" fill="#c8ccd4" '
           'xml:space="preserve">')
for at, line in enumerate(lines):
    fill = ' fill="#98c379"' if line.startswith("$") else ' fill="#7f8694"' if 0 < at <= len(err) else ""
    out.append(f'<text x="12" y="{44 + at * tall}"{fill} xml:space="preserve">{escape(line)}</text>')
out += ["</g>", "</svg>"]
open(sys.argv[1], "w").write("\n".join(out) + "\n")
PYTHON

cp views.png "$docs/src/pictures/views.png"
cp study/plot.svg "$docs/src/pictures/label-efficiency.svg"
for picture in "$docs/src/pictures/"*; do
    case $picture in *.png) most=250000 ;; *) most=60000 ;; esac
    size=$(wc -c <"$picture")
    echo "$size bytes  ${picture##*/}"
    [ "$size" -le "$most" ] || { echo "${picture##*/} is larger than $most bytes" >&2; exit 1; }
done
