#!/usr/bin/env bash
# Test with several processes: dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py]
# Without GPUs, GPUS is the number of CPU processes. Several machines: run on each of them with
# NNODES, NODE_RANK and MASTER_ADDR (and PORT, 29500) set in the environment.
# shellcheck source=launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need 3 "CONFIG CHECKPOINT GPUS [arguments of test.py]" "$@"
with_torchrun "$3" test.py "$1" "$2" "${@:4}"
