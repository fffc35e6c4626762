#!/usr/bin/env bash
# Test with several processes: dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py]
# Without GPUs, GPUS is the number of CPU processes. Several machines: run on each of them with
# NNODES, NODE_RANK and MASTER_ADDR (and PORT, 29500) set in the environment.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $(basename "$0") CONFIG CHECKPOINT GPUS [arguments of test.py]" >&2
    exit 2
fi
POSITIONAL=("$1" "$2")
GPUS=$3
shift 3
NNODES=${NNODES:-1}
if [ "$NNODES" = 1 ] && [ -z "${PORT:-}" ]; then
    MEETING=(--standalone)
else
    MEETING=(--nnodes "$NNODES" --node_rank "${NODE_RANK:-0}"
             --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
fi
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec python -m torch.distributed.run "${MEETING[@]}" --nproc_per_node "$GPUS" \
    "$HERE/test.py" "${POSITIONAL[@]}" --launcher pytorch "$@"
