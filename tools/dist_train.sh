#!/usr/bin/env bash
# Train with several processes: dist_train.sh CONFIG GPUS [arguments of train.py]
# Without GPUs, GPUS is the number of CPU processes. Several machines: run on each of them with
# NNODES, NODE_RANK and MASTER_ADDR (and PORT, 29500) set in the environment.
# shellcheck source=launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need 2 "CONFIG GPUS [arguments of train.py]" "$@"
with_torchrun "$2" train.py "$1" "${@:3}"
