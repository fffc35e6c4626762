#!/usr/bin/env bash
# Test under Slurm: slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of test.py]
# Environment: GPUS (processes in all, 1), GPUS_PER_NODE (8 at most), CPUS_PER_TASK (5), PORT (29500),
# SRUN_ARGS (further arguments of srun), NO_GPU=1 for CPU processes.
# shellcheck source=launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need 4 "PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of test.py]" "$@"
with_srun "$1" "$2" test.py "${@:3}"
