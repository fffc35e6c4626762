# shellcheck shell=bash
# What dist_train.sh, dist_test.sh, slurm_train.sh and slurm_test.sh share; they source it.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

# need COUNT ARGUMENTS GIVEN...: end with a usage line where fewer than COUNT are given.
need() {
    if [ $(($# - 2)) -lt "$1" ]; then
        echo "usage: $(basename "$0") $2" >&2
        exit 2
    fi
}

# with_torchrun PROCESSES SCRIPT ARGUMENTS...
# Several machines: NNODES, NODE_RANK and MASTER_ADDR (and PORT, 29500) in the environment of each.
with_torchrun() {
    local processes=$1 script=$2
    shift 2
    local meeting=(--standalone)
    if [ "${NNODES:-1}" != 1 ] || [ -n "${PORT:-}" ]; then
        meeting=(--nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}"
                 --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
    fi
    exec python -m torch.distributed.run "${meeting[@]}" --nproc_per_node "$processes" \
        "$HERE/$script" "$@" --launcher pytorch
}

# with_srun PARTITION JOB_NAME SCRIPT ARGUMENTS...
# Environment: GPUS (processes in all, 1), GPUS_PER_NODE (8 at most), CPUS_PER_TASK (5), PORT (29500),
# SRUN_ARGS (further arguments of srun), NO_GPU=1 for CPU processes.
with_srun() {
    local partition=$1 job=$2 script=$3
    shift 3
    local gpus=${GPUS:-1}
    local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    local resources=(--ntasks "$gpus" --ntasks-per-node "$per_node" --cpus-per-task "${CPUS_PER_TASK:-5}")
    if [ -z "${NO_GPU:-}" ]; then
        resources+=(--gres "gpu:$per_node")
    fi
    export MASTER_PORT="${PORT:-29500}"
    # shellcheck disable=SC2086
    exec srun --partition "$partition" --job-name "$job" "${resources[@]}" --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} python -u "$HERE/$script" "$@" --launcher slurm
}
