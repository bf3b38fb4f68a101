#!/usr/bin/env bash
# Phrases through jq: which were found, where, and the best box as comma-separated values.
#
#     examples/pipeline.sh [IMAGE-OR-FOLDER...]
set -euo pipefail

if ! command -v jq >/dev/null; then
    echo "pipeline.sh: jq is not installed; get it from https://jqlang.org or your package manager" >&2
    exit 127
fi
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || set -- "$here/left_basal_opacity.dcm"

cxrg ground "$@" -p "left basal opacity" -p "right pleural effusion" -p "heart" \
    --json --format none --quiet |
    jq --raw-output '
        .boxes[0] as $best
        | [.image.sha256[:8], .phrase, .status]
          + (if $best then [$best.where] + ([$best.x0, $best.y0, $best.x1, $best.y1] | map(round))
             else [] end)
        | @csv'
