"""What of sharded training needs no second process; the rest is in test_distributed.py and tests/models."""

import pytest
import torch
from mmengine.config import Config
from test_resume import run
from torch import nn
from toys import ToyModel, toy_config

from ultrasam.engine.build import build_runner
from ultrasam.engine.checks import check_sharding
from ultrasam.engine.sharding import outermost, shard_like, shard_model, whole
from ultrasam.errors import ConfigError


def test_outermost_takes_no_module_inside_another():
    """A star also matches dots, so a pattern of blocks matches what is in them too."""
    model = nn.ModuleDict({"blocks": nn.Sequential(nn.Sequential(nn.Linear(1, 1)), nn.Linear(1, 1))})
    assert outermost(model, ["blocks.*"]) == list(model["blocks"])
    assert outermost(model, "blocks.0.*") == [model["blocks"][0][0]]


def test_names_without_a_module_are_refused():
    with pytest.raises(ConfigError, match=r"fsdp\.modules names 'blocks\.\*', which matches no module of ToyModel"):
        outermost(ToyModel(), ["blocks.*"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (True, "fsdp must be None or a dictionary"),
        ({"module": ["body"]}, "fsdp has no option 'module'; its options are modules, reshard_after_forward"),
        ({"modules": 3}, "fsdp.modules must be a list or tuple or str, but is 3"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        check_sharding(Config({"fsdp": options}))


def test_a_cache_is_refused():
    model = ToyModel()
    model.cache_dir = "embeddings"
    with pytest.raises(ConfigError, match="with cache_dir a process skips the encoder"):
        shard_model(model, ["body"])


def test_what_is_not_sharded_stays_as_it_is():
    state = {"a": torch.ones(2), "b": [1, (torch.zeros(1), "c")]}
    assert whole(state)["a"] is state["a"] and whole(state)["b"] == state["b"]
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1}]}
    assert shard_like(optimizer, [nn.Parameter(torch.ones(2))]) == optimizer


def test_one_process_shards_nothing(tmp_path):
    cfg = {**toy_config(tmp_path), "fsdp": {"modules": ["body"]}}
    _, record = run(cfg)
    _, plain = run(toy_config(tmp_path / "plain"))
    assert record.losses == plain.losses
    assert not hasattr(next(build_runner(Config(cfg)).model.parameters()), "full_tensor")
