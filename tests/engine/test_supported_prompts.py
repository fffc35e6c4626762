"""Weights that take some prompts only are not tested with others."""

import pytest

from ultrasam.engine.test import parse_arguments, prepare_config
from ultrasam.errors import ConfigError

MEDSAM = "configs/zero_shot/medsam_vit-b_us43d.py"


def test_points_for_medsam_are_refused_with_what_to_do():
    with pytest.raises(ConfigError, match=r"asked for point prompts.*box only; test with --prompt box"):
        prepare_config(parse_arguments([MEDSAM, "x.pth", "--prompt", "point"]))
    with pytest.raises(ConfigError, match="box only"):
        prepare_config(parse_arguments([MEDSAM, "x.pth", "--prompt", "centroid"]))
    cfg = prepare_config(parse_arguments([MEDSAM, "x.pth", "--prompt", "box"]))
    assert cfg.supported_prompts == ["box"]
