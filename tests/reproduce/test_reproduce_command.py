"""The command on a mini collection with two tiny models: numbers known by hand, found again, what is open, mistakes."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mini_collection import CONFIG, ROOT, SHARE, make_collection, mask_everything, use_config, with_config
from mmdet.registry import MODELS

from ultrasam.engine.checkpointing import FORMAT
from ultrasam.engine.config import load_config
from ultrasam.engine.setup import register_all
from ultrasam.engine.test import prepare_config
from ultrasam.reproduce.command import main
from ultrasam.reproduce.tables import TABLES
from ultrasam.reproduce.weights import given_weights


def run(mini, *arguments, table="table2", data=None, out="out"):
    return main([table, "--data", str(data or mini / "data"), "--out", str(out), *map(str, arguments)])


def lines_of(out="out", name="table2"):
    with (Path(out) / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_two_models_from_end_to_end(ran, collection):
    out, status, printed, errors = ran
    assert status == 0
    assert printed.splitlines()[-1] == "table2: 4 of 8 cells filled, 4 open; tests run: 2"
    assert "table2: test 2 of 2, box/sam/bus_bra" in errors
    found = {(line["row"], line["group"], line["score"]): line for line in lines_of(out)}
    assert float(found["box/sam", "bus_bra", "mAP"]["ours"]) == pytest.approx(50)
    assert float(found["box/sam", "bus_bra", "mAP50"]["ours"]) == pytest.approx(100)
    assert float(found["box/ultrasam", "bus_bra", "mAP50"]["ours"]) == 0
    line = found["box/sam", "bus_bra", "mAP"]
    assert float(line["paper"]) == 68.1 and float(line["difference"]) == pytest.approx(50 - 68.1)
    # Every patient has the same score, so the interval is a point.
    assert float(line["low"]) == float(line["high"]) == pytest.approx(50)
    assert found["box/sam", "gist514_db", "mAP"]["status"] == "open"
    assert "gist514_db.agnostic.json does not exist" in printed
    assert f"python -m data_prep convert gist514_db --source DOWNLOAD --out {collection / 'data'}" in printed
    record = json.loads((out / line["result_folder"] / "metrics.json").read_text())
    assert record["breakdown"]["overall"]["dice"]["mean"] == pytest.approx(2 * SHARE / (1 + SHARE))
    assert record["metrics"]["coco/segm_mAP"] == pytest.approx(0.5)
    assert record["prompt"] == ["box"] and record["checkpoint"]["sha256"] == line["checkpoint_sha256"]
    assert "| bus_bra/annotations/test.bus_bra.agnostic.json |" in (out / "table2.md").read_text()


class FakeTest:
    """Takes the place of a test: keeps what it was asked for, writes scores."""

    def __init__(self):
        self.asked = []

    def __call__(self, arguments):
        self.asked.append(prepare_config(arguments))
        arguments.out.mkdir(parents=True, exist_ok=True)
        metrics = {"coco/segm_mAP": 0.25, "coco/segm_mAP_50": 0.5}
        (arguments.out / "metrics.json").write_text(json.dumps({"metrics": metrics}))
        return arguments.out


@pytest.fixture
def tests(monkeypatch):
    fake = FakeTest()
    monkeypatch.setattr("ultrasam.engine.test.test", fake)
    return fake.asked


def test_results_are_found_again_only_while_nothing_changed(mini, tmp_path, tests):
    data = tmp_path / "copy"
    shutil.copytree(mini / "data", data)
    all_, nothing = f"sam={mini / 'all.pth'}", f"sam={mini / 'nothing.pth'}"
    base = ("--only", "box", "sam", "bus_bra", "--weights")

    def count(*arguments):
        assert run(mini, *base, *arguments, data=data) == 0
        return len(tests)

    assert count(all_) == count(all_) == 1
    assert count(all_, "--cfg-options", "test_dataloader.num_workers=1") == 1, "workers change no result"
    shutil.copytree(data, tmp_path / "moved")
    assert run(mini, *base, all_, data=tmp_path / "moved") == 0 and len(tests) == 1, "nor do places"
    (folder,) = (tmp_path / "out/runs").iterdir()
    (folder / "run.json").unlink()
    assert count(all_) == 2, "an interrupted test is run again"
    assert count(nothing) == 3
    assert count(all_, "--cfg-options", "model.passes=[multi]") == 4
    make_collection(data, patients=4)
    assert count(all_) == 5
    assert count(all_, nothing.replace("sam=", "ultrasam=")) == 5, "of rows that are not chosen nothing is run"
    assert len(list((tmp_path / "out/runs").iterdir())) == 4


def test_published_protocol_uses_centroids_and_the_released_order(mini, tests):
    assert run(mini, "--weights", f"sam={mini / 'all.pth'}", "--only", "point", "sam", "bus_bra", "--protocol",
               "both") == 0  # fmt: skip
    ours, published = tests
    assert ours.test_dataloader.dataset.prompt == "point" and "mask_order" not in ours.model
    assert published.test_dataloader.dataset.prompt == "centroid" and published.model.mask_order == "released"
    assert [line["row"] for line in lines_of()[::2]] == ["point/sam", "point/sam/published"]
    assert [float(line["ours"]) for line in lines_of()] == [25, 50, 25, 50] and lines_of()[0]["low"] == ""


def test_a_cell_that_fails_leaves_the_others(mini, tmp_path, tests, monkeypatch, capsys):
    (tmp_path / "points.py").write_text(f'_base_ = "{mini / "mini.py"}"\nsupported_prompts = ["point"]\n')
    whole = TABLES["table2"]()
    points = {row.id: row for row in with_config(whole, tmp_path / "points.py").rows}
    rows = tuple(points[row.id] if row.id == "box/sam" else row for row in whole.rows)
    monkeypatch.setitem(TABLES, "table2", lambda: replace(whole, rows=rows))
    both = ("--weights", f"sam={mini / 'all.pth'}", f"ultrasam={mini / 'all.pth'}")
    assert run(mini, "--only", "box", "sam", "ultrasam", "bus_bra", *both) == 2
    out, err = capsys.readouterr()
    assert "table2: 2 of 4 cells filled, 0 open, 2 failed" in out
    assert "failed: box/sam/bus_bra: " in out
    assert "was asked for box prompts, but its weights take point only" in err and "error: cells failed: 2" in err
    assert {line["row"]: line["status"] for line in lines_of()} == {"box/sam": "failed", "box/ultrasam": "filled"}
    assert "## Failed" in Path("out/table2.md").read_text()


def test_weights_that_do_not_load_fail_their_cells(mini, tmp_path, capsys):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")
    assert run(mini, "--only", "box", "sam", "bus_bra", "--weights", f"sam={broken}") == 2
    assert f"error: {broken}" in capsys.readouterr().err
    assert {line["status"] for line in lines_of()} == {"failed"}
    assert not list(Path("out").rglob("run.json"))


def test_configurations_must_read_the_given_data(mini, tmp_path, monkeypatch, capsys):
    config = tmp_path / "elsewhere.py"
    config.write_text(CONFIG.replace("{{$ULTRASAM_DATA:data/us43d}}", "elsewhere"))
    use_config(monkeypatch, config)
    assert run(mini, "--weights", f"sam={mini / 'all.pth'}", "--only", "box", "sam", "bus_bra") == 2
    assert "was expected; let its data_root be {{$ULTRASAM_DATA:...}}" in capsys.readouterr().err


def test_result_folders_take_the_place_of_tests(mini, ran, capsys):
    (name,) = {line["result_folder"] for line in lines_of(ran[0]) if line["row"] == "box/sam"} - {""}
    folder = ran[0] / name
    only = ("--only", "box", "sam", "bus_bra", "--results")
    assert run(mini, *only, f"box/sam/bus_bra={folder}") == 0
    assert "2 of 2 cells filled, 0 open; tests run: 0" in capsys.readouterr().out
    assert float(lines_of()[0]["ours"]) == pytest.approx(50)
    assert run(mini, "--results", f"point/sam/bus_bra={folder}") == 2
    assert "with point prompts was expected" in capsys.readouterr().err
    assert run(mini, "--results", f"box/sam/elsewhere={folder}") == 2
    assert "--results box/sam/elsewhere is no chosen part of table2" in capsys.readouterr().err


def test_work_directories_give_their_newest_checkpoint(mini, tmp_path, tests):
    for number in (9, 20):
        (tmp_path / "run").mkdir(exist_ok=True)
        shutil.copy(mini / "all.pth", tmp_path / f"run/iter_{number}.pth")
    assert run(mini, "--only", "box", "ultrasam", "bus_bra", "--weights", "ultrasam=run") == 0
    assert given_weights(["ultrasam=run"]) == {"ultrasam": Path("run/iter_20.pth")}
    assert len(tests) == 1


def test_the_work_directory_of_an_adapter(mini, tmp_path, monkeypatch):
    """A training's checkpoint holds base and adapter, and nothing else is needed."""
    text = f'_base_ = "{mini / "mini.py"}"\nmodel = dict(method="lora", adapter=dict(rank=2))\n'
    (tmp_path / "lora.py").write_text(text)
    register_all()
    model = MODELS.build(load_config(tmp_path / "lora.py").model)
    mask_everything(model.sam)
    assert any("lora" in name for name in model.state_dict())
    (tmp_path / "work/lora").mkdir(parents=True)
    content = {"format": FORMAT, "state_dict": model.state_dict(), "card": model.card()}
    torch.save(content, tmp_path / "work/lora/iter_3.pth")
    use_config(monkeypatch, tmp_path / "lora.py")
    assert run(mini, "--weights", "work", "--only", "point", "lora", "bus_bra", "--protocol", "ours") == 0
    assert [float(line["ours"]) for line in lines_of()] == pytest.approx([50, 100])
    assert {(line["row"], line["weights"], line["config"]) for line in lines_of()} == {
        ("point/lora", "lora", str(tmp_path / "lora.py")),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "sam"), "--weights takes NAME=FILE"),
        (("--weights", "samm=x.pth"), "no table needs 'samm'; nearest: sam, "),
        (("--weights", "empty"), "--weights empty holds no work directory or public file with a known name"),
        (("--weights", "sam=absent.pth"), "absent.pth"),
        (("--weights", "sam=empty"), "holds no iter_N.pth"),
        (("--weights", "sam=litemedsam"), "sam_vit_b was expected, found litemedsam"),
        (("--only", "box", "bus"), "--only bus is not in table2"),
        (("--only", "point", "medsam-common"), "nothing that --only point medsam-common and --protocol ours choose"),
        (("--results", "box/sam/bus_bra"), "--results takes PART=FOLDER"),
        (("--csv", "x.csv"), "--csv is for figure4"),
        (("--images", "0"), "--images must be at least 1"),
    ],
)
def test_mistakes_are_one_sentence(mini, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    assert run(mini, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_data_root_must_exist(mini, capsys):
    assert run(mini, data="absent") == 2
    assert "--data absent is no folder" in capsys.readouterr().err


def test_options_are_documented_and_exist(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    real = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    text = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `--")]
    assert {option for cell in cells for option in re.findall(r"--[a-z][a-z-]+", cell)} == real
