"""The comparison of the methods: what it runs, what it leaves out the second time, and its table."""

import json
from pathlib import Path

import pytest
import torch

from ultrasam.checkpoints import sha256_of
from ultrasam.errors import UltraSamError
from ultrasam.finetune import compare_methods
from ultrasam.finetune.compare_methods import FAMILIES, Result, compare, config_of, main, parse_arguments, table_text

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def calls(monkeypatch):
    """Commands, which leave what the real ones would."""
    found = []

    def fake(command, folder):
        found.append(list(command))
        folder.mkdir(parents=True, exist_ok=True)
        if "test" in command:
            weights = command[command.index("test") + 2]
            box = command[command.index("--prompt") + 1] == "box"
            metrics = {"coco/segm_mAP": 0.5 + 0.25 * box, "coco/mean_dice": 0.75 + 0.125 * box}
            record = {"checkpoint": {"sha256": sha256_of(weights)}, "metrics": metrics}
            (folder / "metrics.json").write_text(json.dumps(record))
            return
        total = next(word for word in command if word.startswith("train_cfg.max_iters=")).split("=")[1]
        history = {"train/time": {"log": [9.0, 1.5, 1.5]}, "train/data_time": {"log": [8.0, 0.25, 0.25]}}
        content = {
            "format": "ultrasam-training-1", "message_hub": {"log_scalars": history},
            "card": {"trainable": {"trained": 1234567}}, "method": str(folder),
        }  # fmt: skip
        torch.save(content, folder / f"iter_{total}.pth")
        (folder / "last_checkpoint").write_text(str(folder / f"iter_{total}.pth"))
        (folder / "measured.json").write_text(json.dumps({"peak_bytes": 2**30}))

    monkeypatch.setattr(compare_methods, "run", fake)
    return found


def test_everything_runs_once(tmp_path, calls, capsys):
    given = ["--out", str(tmp_path), "--iterations", "8", "--base-iterations", "4", "--methods", "lora", "samus"]
    assert main(given) == 0
    trainings = [call for call in calls if "ultrasam.finetune.measured_run" in call]
    tests = [call for call in calls if "test" in call]
    # The base, two methods; the base and LoRA with points and boxes, SAMUS with points.
    assert len(trainings) == 3 and len(tests) == 5
    base = str(tmp_path / "base" / "iter_4.pth")
    assert all(f"model.weights={base}" in call for call in trainings[1:])
    assert all("param_scheduler.1.end=8" in call and "--resume" in call for call in trainings[1:])
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(tmp_path / "table.md")
    table = (tmp_path / "table.md").read_text()
    assert "| base | - | - | - | 0.500 | 0.750 | 0.750 | 0.875 |" in table
    assert "| lora | 1,234,567 | 1.250 | 1.00 | 0.500 | 0.750 | 0.750 | 0.875 |" in table
    assert "| samus | 1,234,567 | 1.250 | 1.00 | 0.500 | 0.750 | - | - |" in table
    calls.clear()
    assert main(given) == 0 and not calls
    assert (tmp_path / "table.md").read_text() == table
    # Another checkpoint is tested again.
    torch.save({**torch.load(tmp_path / "lora/train/iter_8.pth"), "new": 1}, tmp_path / "lora/train/iter_8.pth")
    assert main(given) == 0
    assert len(calls) == 2 and all("lora" in " ".join(call) for call in calls)


def test_litemedsam_starts_from_its_own_weights(tmp_path, calls):
    options = parse_arguments(["--out", str(tmp_path), "--family", "litemedsam", "--methods", "decoder", "--amp"])
    table = compare(options)
    assert len(calls) == 3 and "model.weights=litemedsam" in calls[0]
    # Trained in bfloat16, tested in float32; both tests share the embeddings.
    assert "--amp" in calls[0] and not any("--amp" in call for call in calls[1:])
    (kept,) = {word for call in calls[1:] for word in call if word.startswith("model.cache_dir=")}
    assert not Path(kept.split("=")[1]).exists()
    assert "1000 steps each in bfloat16" in table.read_text()


def test_mistakes_are_one_sentence(tmp_path, capsys, monkeypatch):
    assert main(["--out", str(tmp_path), "--family", "litemedsam", "--methods", "samus"]) == 2
    assert capsys.readouterr().err == "error: litemedsam has no method 'samus'; it has full, decoder, lora, med-sa\n"
    monkeypatch.setattr(compare_methods.sys, "executable", "false")
    with pytest.raises(UltraSamError, match="ended with exit status 1"):
        compare_methods.run(["false"], tmp_path)


def test_every_method_has_its_configuration():
    for family, methods in FAMILIES.items():
        assert all((ROOT / config_of(family, method)).is_file() for method in methods)


def test_the_table_says_what_was_run():
    text = table_text([Result("full")], parse_arguments(["--iterations", "7", "--seed", "3"]))
    assert text.startswith("BUS-BRA, vit-tiny, 7 steps each, seed 3") and "| full | - | - | - | - | - | - | - |" in text
    assert len({line.count("|") for line in text.splitlines()[2:]}) == 1
