#!/usr/bin/env bash
# Train with several processes: dist_train.sh CONFIG GPUS [arguments of train.py]
# Without GPUs, GPUS is the number of CPU processes. Several machines: run on each of them with
# NNODES, NODE_RANK and MASTER_ADDR (and PORT, 29500) set in the environment.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $(basename "$0") CONFIG GPUS [arguments of train.py]" >&2
    exit 2
fi
POSITIONAL=("$1")
GPUS=$2
shift 2
NNODES=${NNODES:-1}
if [ "$NNODES" = 1 ] && [ -z "${PORT:-}" ]; then
    MEETING=(--standalone)
else
    MEETING=(--nnodes "$NNODES" --node_rank "${NODE_RANK:-0}"
             --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
fi
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec python -m torch.distributed.run "${MEETING[@]}" --nproc_per_node "$GPUS" \
    "$HERE/train.py" "${POSITIONAL[@]}" --launcher pytorch "$@"
