"""The dry run opens every image, leaves nothing behind, and counts rightly."""

from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from toys import toy_config

from ultrasam.engine.dry_run import STEPS, check_images, dry_run, hours
from ultrasam.errors import DataError
from ultrasam.io.images import write_png


def test_it_says_what_would_happen_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    cfg = toy_config(tmp_path / "work")
    cfg["optim_wrapper"] = {**cfg["optim_wrapper"], "accumulative_counts": 3}
    cfg["train_cfg"]["max_iters"] = 5000
    before = Config(cfg).pretty_text
    loaded = Config(cfg)
    dry_run(loaded)
    printed = capsys.readouterr().out
    # Linear(4, 8) and Linear(8, 1), with biases.
    assert "49 of 49 train" in printed
    assert "2 images x 1 processes x 3 accumulated = 6 an optimizer step" in printed
    assert "11 images" in printed and "5,000 steps" in printed
    assert f"median of {STEPS + 2 - 3}" in printed
    assert not (tmp_path / "work").exists() and not list((tmp_path / "temporary").iterdir())
    assert loaded.pretty_text == before


def image(path, height=6, width=8):
    return SimpleNamespace(path=path, height=height, width=width)


def test_every_image_is_opened(tmp_path):
    images = []
    for number in range(14):
        write_png(tmp_path / f"{number}.png", np.full((6, 8), number, np.uint8))
        images.append(image(tmp_path / f"{number}.png"))
    whole = SimpleNamespace(datasets=[SimpleNamespace(images=images[:9]), SimpleNamespace(images=images[5:])])
    assert check_images(whole) == 14
    images[2].width = 9
    with pytest.raises(DataError, match=r"1 of 14 images.*2\.png has 6 x 8 pixels, its annotation file says 6 x 9"):
        check_images(whole)
    for one in images:
        one.path.write_bytes(one.path.read_bytes()[:45])
    (tmp_path / "3.png").unlink()
    with pytest.raises(DataError, match=r"14 of 14 images.*; and 4 more"):
        check_images(whole)


def test_durations():
    assert [hours(seconds) for seconds in (12, 600, 9000)] == ["12 seconds", "10 minutes", "2.5 hours"]
