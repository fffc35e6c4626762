"""Progress on a terminal and elsewhere, and the refusal to publish."""

import io
import sys

import pytest
from mmengine.config import Config
from toys import toy_config

from ultrasam.engine.build import build_runner
from ultrasam.engine.hooks import SafeCheckpointHook
from ultrasam.errors import ConfigError


def train(tmp_path, monkeypatch, terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    cfg = toy_config(tmp_path, log_level="INFO")
    cfg["default_hooks"]["progress"] = {"type": "ProgressHook"}
    build_runner(Config(cfg)).train()
    return stream.getvalue()


def test_bar_on_a_terminal(tmp_path, monkeypatch, capsys):
    shown = train(tmp_path, monkeypatch, terminal=True)
    assert "train: 100%" in shown and "12/12" in shown and "loss=" in shown
    assert "val:" in shown
    assert "Iter(train) [12/12]" in shown, "log lines go above the bar"


def test_plain_lines_elsewhere(tmp_path, monkeypatch, capsys):
    assert "%|" not in train(tmp_path, monkeypatch, terminal=False)
    out = capsys.readouterr().out
    assert "Iter(train) [12/12]" in out and "eta: " in out
    assert "\r" not in out


def test_publishing_is_refused():
    with pytest.raises(ConfigError, match="published_keys is not supported"):
        SafeCheckpointHook(interval=1, published_keys=["state_dict"])
