"""Starting the processes of a run: one launcher switch, gloo on CPU and NCCL on GPUs."""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as torch_dist

from ultrasam.errors import ConfigError

LAUNCHERS = ("none", "pytorch", "slurm")


def _slurm_environment(environ: Mapping[str, str], port: int | None) -> dict[str, str]:
    """Translate the variables of srun into those of torch.distributed.

    Args:
        environ: The environment of the process; needs SLURM_PROCID and SLURM_NTASKS.
        port: Port of the first node; MASTER_PORT or 29500 where it is None.

    Returns:
        RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

    Raises:
        ConfigError: If the process was not started by srun.
    """
    missing = [name for name in ("SLURM_PROCID", "SLURM_NTASKS") if name not in environ]
    if missing:
        raise ConfigError(
            f"--launcher slurm needs the environment of srun, but {', '.join(missing)} is not set; "
            "start with tools/slurm_train.sh or choose --launcher none"
        )
    address = environ.get("MASTER_ADDR") or _first_host(environ.get("SLURM_NODELIST", ""))
    return {
        "RANK": environ["SLURM_PROCID"],
        "LOCAL_RANK": environ.get("SLURM_LOCALID", "0"),
        "WORLD_SIZE": environ["SLURM_NTASKS"],
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port) if port is not None else environ.get("MASTER_PORT", "29500"),
    }


def _first_host(node_list: str) -> str:
    """Return the first host of a Slurm node list such as ``gpu[03-06]``; plain names need no scontrol."""
    if not node_list:
        return "127.0.0.1"
    if "[" not in node_list and "," not in node_list:
        return node_list
    try:
        answer = subprocess.run(
            ["scontrol", "show", "hostnames", node_list], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"the first host of SLURM_NODELIST={node_list} cannot be found, because scontrol failed "
            f"({error}); "
            "set MASTER_ADDR to that host"
        ) from error
    return answer.stdout.split()[0]


def _check_environment(launcher: str, environ: Mapping[str, str]) -> None:
    """Refuse a launcher that contradicts how the process was started."""
    if launcher not in LAUNCHERS:
        raise ConfigError(f"launcher must be one of {', '.join(LAUNCHERS)}, but is {launcher!r}")
    if launcher == "none" and "TORCHELASTIC_RUN_ID" in environ and int(environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"torchrun started {environ['WORLD_SIZE']} processes but --launcher is none, so they would all "
            f"write "
            "the same files; add --launcher pytorch"
        )
    if launcher == "pytorch":
        needed = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        missing = [name for name in needed if name not in environ]
        if missing:
            raise ConfigError(
                f"--launcher pytorch needs the environment of torchrun, but {', '.join(missing)} is not set; "
                "start with tools/dist_train.sh CONFIG GPUS or choose --launcher none"
            )


def init_distributed(
    launcher: str, *, backend: str = "auto", timeout: float | None = None, port: int | None = None
) -> None:
    """Join the process group; does nothing for ``none`` or when it is already joined.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun, any number of nodes) or ``slurm`` (srun).
        backend: ``auto`` means nccl where CUDA is available and gloo elsewhere; nccl without CUDA becomes
            gloo.
        timeout: Seconds until a collective operation is given up; PyTorch's default where None.
        port: Port of the first node (slurm only).

    Raises:
        ConfigError: If the environment does not fit the launcher, or a node has too few GPUs.
    """
    _check_environment(launcher, os.environ)
    if launcher == "none" or torch_dist.is_initialized():
        return
    if launcher == "slurm":
        os.environ.update(_slurm_environment(os.environ, port))
    use_cuda = torch.cuda.is_available()
    if use_cuda:
        local_rank = int(os.environ["LOCAL_RANK"])
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local_rank} of this machine has no GPU, because only {torch.cuda.device_count()} "
                f"are "
                "visible; start at most that many processes a machine"
            )
        torch.cuda.set_device(local_rank)
    if backend in ("auto", "nccl"):
        backend = "nccl" if use_cuda else "gloo"
    options: dict[str, Any] = {}
    if timeout is not None:
        options["timeout"] = datetime.timedelta(seconds=timeout)
    torch_dist.init_process_group(backend=backend, **options)


def close_distributed() -> None:
    """Leave the process group, where there is one."""
    if torch_dist.is_available() and torch_dist.is_initialized():
        torch_dist.destroy_process_group()


def process_rank() -> int:
    """Return the rank of this process, 0 where nothing is distributed."""
    return torch_dist.get_rank() if torch_dist.is_available() and torch_dist.is_initialized() else 0


def process_count() -> int:
    """Return the number of processes of the run, 1 where nothing is distributed."""
    return torch_dist.get_world_size() if torch_dist.is_available() and torch_dist.is_initialized() else 1


def gather_to_all(value: Any) -> list[Any]:
    """Return the value of every process, in order of rank, on every process (picklable values)."""
    if process_count() == 1:
        return [value]
    values: list[Any] = [None] * process_count()
    torch_dist.all_gather_object(values, value)
    return values


def mean_over_processes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Average the scalar tensors and floats of a loss dictionary over all processes.

    MMEngine logs what the first process computed on its share of the batch; the average is the loss of the
    whole batch, the number that a run of one process with that batch logs.

    Args:
        values: Scalars by name; every process must hold the same names.

    Returns:
        The same names with float32 scalar tensors; values that are no scalars are passed through.
    """
    if process_count() == 1:
        return dict(values)
    names = [
        name
        for name, value in values.items()
        if isinstance(value, float) or (isinstance(value, torch.Tensor) and value.numel() == 1)
    ]
    if not names:
        return dict(values)
    device = next((v.device for v in values.values() if isinstance(v, torch.Tensor)), torch.device("cpu"))
    stacked = torch.stack(
        [
            torch.as_tensor(values[name], dtype=torch.float32, device=device).detach().reshape(())
            for name in names
        ]
    )
    torch_dist.all_reduce(stacked)
    stacked = stacked / process_count()
    return {**values, **dict(zip(names, stacked.unbind(), strict=True))}
