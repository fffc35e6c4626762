#!/usr/bin/env bash
# Train under Slurm: slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of train.py]
# Environment: GPUS (processes in all, 1), GPUS_PER_NODE (8 at most), CPUS_PER_TASK (5), PORT (29500),
# SRUN_ARGS (further arguments of srun), NO_GPU=1 for CPU processes.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $(basename "$0") PARTITION JOB_NAME CONFIG [arguments of train.py]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
shift 2
GPUS=${GPUS:-1}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
RESOURCES=(--ntasks "$GPUS" --ntasks-per-node "$GPUS_PER_NODE" --cpus-per-task "${CPUS_PER_TASK:-5}")
if [ -z "${NO_GPU:-}" ]; then
    RESOURCES+=(--gres "gpu:$GPUS_PER_NODE")
fi
export MASTER_PORT="${PORT:-29500}"
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck disable=SC2086
exec srun --partition "$PARTITION" --job-name "$JOB_NAME" "${RESOURCES[@]}" --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} python -u "$HERE/train.py" "$@" --launcher slurm
