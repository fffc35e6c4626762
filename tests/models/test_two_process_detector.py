"""Two gloo processes train the detector as one process with the same global batch does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_detectors import CASES, COUNTS, SHARDED, config, train

from ultrasam.engine.checkpointing import read_checkpoint

HERE = Path(__file__).parent
STEPS = len(COUNTS) // 4


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Folder written by two processes, and the losses that each of them logged."""
    folder = tmp_path_factory.mktemp("pair")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [*command, str(HERE / "two_detectors.py"), str(folder)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_the_cases_are_the_hard_ones():
    """Unequal numbers of objects, a process without any, and a step without any."""
    objects = [[sum(COUNTS[4 * step + rank : 4 * step + 4 : 2]) for rank in range(2)] for step in range(STEPS)]
    assert objects == [[5, 0], [0, 0], [1, 6], [0, 4]]


@pytest.mark.parametrize("case", [*CASES, *(f"{case}_sharded" for case in SHARDED)])
def test_losses_and_weights_equal_those_of_one_process(pair, tmp_path, case):
    folder, seen = pair
    alone, moved = train(config(tmp_path, 4, **CASES[case.removesuffix("_sharded")]))
    assert len(alone) == STEPS and seen[0][case] == seen[1][case]
    for number, (one, two) in enumerate(zip(alone, seen[0][case], strict=True)):
        assert one.keys() == two.keys() and "loss" in one
        for name, value in one.items():
            assert two[name] == pytest.approx(value, abs=1e-5), (number, name)
    assert alone[1]["loss"] == 0 and alone[0]["loss"] > 1
    assert moved > 1e-3, "weights that hardly move would compare equal whatever the gradients are"
    whole = read_checkpoint(tmp_path / f"iter_{STEPS}.pth")["state_dict"]
    shared = read_checkpoint(folder / case / f"iter_{STEPS}.pth")["state_dict"]
    assert whole.keys() == shared.keys()
    for name, value in whole.items():
        torch.testing.assert_close(shared[name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("case", SHARDED)
def test_sharded_training_leaves_whole_files(pair, case):
    """The checkpoint, its card and the weight file are those of a training that copies everything to each process."""
    folder, _ = pair
    copied, sharded = (read_checkpoint(folder / name / f"iter_{STEPS}.pth") for name in (case, f"{case}_sharded"))
    assert sharded["card"] == copied["card"]
    one, two = copied["optimizer"], sharded["optimizer"]
    assert one["param_groups"] == two["param_groups"] and one["state"].keys() == two["state"].keys()
    (first,), (second,) = (list((folder / name).glob("*.safetensors")) for name in (case, f"{case}_sharded"))
    assert first.name == second.name == ("weights.safetensors" if case == "refined" else "adapter.safetensors")
    left, right = load_file(first), load_file(second)
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=0, atol=1e-5, msg=name)
        torch.testing.assert_close(sharded["state_dict"][f"sam.{name}"], right[name], rtol=0, atol=0, msg=name)
