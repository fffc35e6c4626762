"""The benchmark command at the smallest sizes: what it times, compares, prints and writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ultrasam.engine import mmcv_ext
from ultrasam.engine.benchmark import main
from ultrasam.engine.benchmark_encoder import build_encoder, build_reference, encode, random_images
from ultrasam.engine.benchmark_memory import measure_memory
from ultrasam.engine.benchmark_steps import synthetic_batch
from ultrasam.engine.benchmark_timing import Row, Settings, format_table, rows_of, time_alternating
from ultrasam.errors import ConfigError, UltraSamError

TINY = ["--arch", "vit_tiny", "--image-size", "64", "--repeats", "1", "--objects", "1", "3", "--images", "1"]


def test_cases_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    seconds = time_alternating({n: lambda n=n: calls.append(n) for n in ("a", "b")}, 3, "cpu")
    assert calls == ["a", "b"] * 4
    assert {name: len(runs) for name, runs in seconds.items()} == {"a": 3, "b": 3}
    assert all(run >= 0 for runs in seconds.values() for run in runs)


def test_rows_hold_medians_and_ratios_of_medians() -> None:
    rows = rows_of("x", {"slow": [4.0, 100.0, 2.0], "fast": [1.0, 3.0, 0.5]}, {"fast": "slow"})
    assert [(row.case, row.seconds, row.baseline, row.ratio) for row in rows] == [
        ("slow", 4.0, None, None),
        ("fast", 1.0, "slow", 0.25),
    ]


def test_table_has_a_line_per_row_and_aligned_columns() -> None:
    lines = format_table(
        [Row("a", "b", 1.5, [1.5, 2.0], None, None, 0.0), Row("long name", "c", peak_bytes=3 * 2**29)]
    ).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["a", "b", "1.5", "s", "1.5", "s", "0.00e+00"]
    assert lines[2].split() == ["long", "name", "c", "1.50", "GiB"]
    assert len({line.index(case) for line, case in zip(lines, (" case", " b", " c"), strict=True)}) == 1


def test_both_encoders_hold_the_same_weights_and_the_comparison_can_tell() -> None:
    settings = Settings(arch="vit_tiny", image_size=160)
    encoder, image = build_encoder(settings), random_images(settings, 1)
    reference = build_reference(encoder, settings)
    exact = encode(reference, image, None)
    assert (encode(encoder, image, None) - exact).abs().max() < 1e-4
    assert encode(encoder, image, torch.bfloat16).sub(exact).abs().max() > 1e-3
    with torch.no_grad():
        encoder.get_parameter("blocks.1.attn.rel_pos_w").mul_(2)
    assert (encode(encoder, image, None) - exact).abs().max() > 1e-3, "position tables must matter"


def test_synthetic_batch_has_the_objects_asked_for() -> None:
    mmcv_ext.install()
    batch = synthetic_batch(Settings(arch="vit_tiny", image_size=64), images=2, objects=3, prompt="train")
    assert [tuple(image.shape) for image in batch["inputs"]] == [(3, 48, 64)] * 2
    for sample in batch["data_samples"]:
        assert len(sample.prompt_instances) == len(sample.gt_instances) == 3
        assert sample.gt_instances.targets.shape == (3, 16, 16)
        assert sample.gt_instances.targets.flatten(1).any(1).all()
    first, second = batch["inputs"]
    assert not torch.equal(first, second)


def test_command_measures_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "result.json"
    threads = torch.get_num_threads()
    assert main([*TINY, "--what", "encoder", "train", "test", "--threads", "1", "--out", str(out)]) == 0
    torch.set_num_threads(threads)
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["settings"]["objects"] == [1, 3] and written["machine"]["torch"] == torch.__version__
    rows = {(row["what"], row["case"]): row for row in written["rows"]}
    assert len(rows) == len(written["rows"]) == 4 + 2 + 2
    assert all(row["seconds"] > 0 and len(row["runs"]) == 1 for row in rows.values())
    assert rows["encoder", "ultrasam fp32"]["difference"] < 1e-4
    training = rows["training step", "1 images x 3 objects fp32"]
    assert training["ratio"] == training["seconds"] / rows["training step", training["baseline"]]["seconds"]
    printed = capsys.readouterr().out
    assert all(case in printed for _, case in rows)


def test_memory_is_of_a_new_process(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "memory.json"
    held = torch.ones(2**28)  # 1 GiB here must not be counted there
    assert main([*TINY, "--objects", "1", "--what", "memory", "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert 100 * 2**20 < row["peak_bytes"] < held.nbytes
    assert "GiB" in capsys.readouterr().out


def test_peak_counts_memory_that_was_freed() -> None:
    code = (
        "from ultrasam.engine.benchmark_memory import peak_resident_bytes as peak\n"
        "before = peak()\n"
        "block = bytearray(b'x') * (300 * 2**20)\n"
        "del block\n"
        "print(peak() - before)"
    )
    grown = int(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    )
    assert 280 * 2**20 < grown < 640 * 2**20


@pytest.mark.parametrize(
    ("script", "reason"), [("echo 1 >&2; echo no room >&2; exit 3", r"3 \(no room\)"), ("kill -9 $$", "-9")]
)
def test_failed_memory_step_names_itself_and_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, reason: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(
        UltraSamError, match=rf"2 images x 1 objects fp32 .* status {reason}.*smaller --image-size"
    ):
        measure_memory(Settings(arch="vit_tiny", image_size=64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "repeats is"),
        (["--objects", "1", "0"], "objects is"),
        (["--image-size", "72"], "image_size is 72"),
        (["--arch", "tiny_vit", "--what", "encoder"], "'tiny_vit'"),
    ],
)
def test_values_that_do_not_fit_are_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="finds no GPU"):
        Settings(device="cuda:0")
