#!/usr/bin/env bash
# Train under Slurm: slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of train.py]
# Environment: GPUS (processes in all, 1), GPUS_PER_NODE (8 at most), CPUS_PER_TASK (5), PORT (29500),
# SRUN_ARGS (further arguments of srun), NO_GPU=1 for CPU processes.
# shellcheck source=launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need 3 "PARTITION JOB_NAME CONFIG [arguments of train.py]" "$@"
with_srun "$1" "$2" train.py "${@:3}"
