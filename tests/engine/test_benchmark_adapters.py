"""The benchmark of the adapters at the smallest size."""

import json

import pytest

from ultrasam.engine import benchmark_adapters
from ultrasam.engine.benchmark import main
from ultrasam.engine.benchmark_adapters import METHODS, build_adapted
from ultrasam.engine.benchmark_timing import Settings

SMALL = Settings(arch="vit_tiny", image_size=64, objects=(1,), images=1)


def test_command_measures_every_method_against_full(tmp_path, monkeypatch):
    peaks = {"full": 2**30, "decoder": 2**28, "lora": 2**29, "med_sa": 2**29}
    monkeypatch.setattr(benchmark_adapters, "_peak_in_new_process", lambda settings, method: peaks[method])
    out = tmp_path / "result.json"
    given = ["--arch", "vit_tiny", "--image-size", "64", "--repeats", "1", "--objects", "1", "--images", "1"]
    assert main([*given, "--what", "adapters", "--out", str(out)]) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    steps = [row for row in rows if row["what"] == "adapted step"]
    memory = [row for row in rows if row["what"] == "adapted memory"]
    for part in (steps, memory):
        assert [row["case"].split(",")[0] for row in part] == list(METHODS)
    assert steps[0]["ratio"] is None and all(row["baseline"] == steps[0]["case"] for row in steps[1:])
    assert all(row["seconds"] > 0 for row in steps) and [row["ratio"] for row in memory] == [None, 0.25, 0.5, 0.5]


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own():
    assert 2**26 < benchmark_adapters._peak_in_new_process(SMALL, "decoder") < 2**34


def test_each_method_trains_what_it_says():
    counts = {}
    for method in METHODS:
        detector = build_adapted(Settings(arch="vit_tiny", image_size=64), method)
        counts[method] = sum(p.numel() for p in detector.parameters() if p.requires_grad)
        assert detector.training
    assert counts["lora"] < counts["med_sa"] < counts["decoder"] < counts["full"]
