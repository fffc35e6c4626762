"""Bad input to the real commands: exit status 2 and one sentence that names the file and what to do."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ultrasam.checkpoints import resolve_weights
from ultrasam.datasets.phantom.generate import generate_phantom
from ultrasam.engine import commands
from ultrasam.engine.test import main as run_test_command
from ultrasam.engine.train import main as run_train_command
from ultrasam.errors import DataError

CONFIG = "configs/demo/ultrasam_vit-tiny_phantom.py"
# No validation, and everything in this process unless a test says otherwise.
QUICK = [
    "train_cfg.max_iters=1", "train_dataloader.batch_size=1", "train_dataloader.num_workers=0",
    "test_dataloader.num_workers=0", "val_cfg=None", "val_dataloader=None", "val_evaluator=None",
]  # fmt: skip


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """A phantom of 15 images; tests change copies of it."""
    folder = tmp_path_factory.mktemp("bad_input") / "phantom"
    generate_phantom(folder, 15, 0, size=96, workers=1)
    return folder


@pytest.fixture
def data(phantom, tmp_path, monkeypatch):
    """A copy of the phantom that the configuration reads."""
    folder = tmp_path / "data"
    shutil.copytree(phantom, folder)
    monkeypatch.setenv("ULTRASAM_PHANTOM", str(folder))
    monkeypatch.chdir(tmp_path)
    # MMEngine's loggers of earlier runs write to the captured streams of earlier tests, which are closed.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    return folder


def run_train(*options, arguments=()):
    return run_train_command([CONFIG, "--work-dir", "run", *arguments, "--cfg-options", *QUICK, *options])


def run_test(checkpoint, *options):
    return run_test_command([CONFIG, str(checkpoint), "--out", "tested", "--cfg-options", *QUICK, *options])


def the_sentence(status, capsys, *parts):
    """Check status and form of the one message on stderr, and that it holds some parts; return it."""
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error
    for part in parts:
        assert str(part) in error
    assert re.search(r"[;:,] (\w+ )?\w+", error), "the sentence says what to do"
    return error


def edit(path, change):
    """Rewrite a JSON file after ``change(content)``."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def all_images(data):
    return sorted(data.glob("*/images/*.png"))


@pytest.mark.parametrize("workers", [0, 1])
def test_missing_image(data, capsys, workers):
    for image in all_images(data):
        image.unlink()
    status = run_train(f"train_dataloader.num_workers={workers}")
    error = the_sentence(status, capsys, data, "does not exist; check the path")
    assert re.search(r"images/\S+\.png", error)


@pytest.mark.parametrize("workers", [0, 1])
def test_truncated_image(data, capsys, workers):
    for image in all_images(data):
        image.write_bytes(image.read_bytes()[:200])
    error = the_sentence(run_train(f"train_dataloader.num_workers={workers}"), capsys, data)
    assert re.search(r"images/\S+\.png.*(damaged|cut off|truncated|unreadable|cannot be)", error)


@pytest.mark.parametrize("workers", [0, 1])
def test_missing_image_in_a_test(data, capsys, workers):
    for image in all_images(data):
        image.unlink()
    # The architecture of litemedsam, so that its weights load.
    status = run_test_command(
        ["configs/demo/litemedsam_decoder_phantom.py", "litemedsam", "--out", "tested", "--cfg-options",
         f"test_dataloader.num_workers={workers}"]
    )  # fmt: skip
    the_sentence(status, capsys, data, "does not exist; check the path")
    assert not Path("tested/metrics.json").exists()


def test_image_of_another_size_than_annotated(data, capsys):
    def enlarge(content):
        for image in content["images"]:
            image["height"] += 1
        content["annotations"] = []

    edit(data / "train.agnostic.json", enlarge)
    the_sentence(run_train(), capsys, ".png", "its annotation file says", "correct the file's height and width")


def test_annotation_file_that_does_not_parse(data, capsys):
    path = data / "train.agnostic.json"
    path.write_text(path.read_text()[:500])
    the_sentence(run_train(), capsys, path, "is not valid JSON", "line ", "export or copy the file again")


def test_missing_annotation_file(data, capsys):
    path = data / "train.agnostic.json"
    path.unlink()
    the_sentence(run_train(), capsys, path, "does not exist", "check the path")


def test_category_that_the_config_does_not_know(data, capsys):
    status = run_train("+train_dataloader.dataset.classes=[lesion]")
    the_sentence(status, capsys, data / "train.agnostic.json", "lesion", "object")


def test_annotation_of_an_unknown_category(data, capsys):
    path = data / "train.agnostic.json"
    edit(path, lambda content: content["annotations"][0].update(category_id=7))
    the_sentence(run_train(), capsys, path, "annotation 1", "category_id 7", "add the missing record or delete")


@pytest.mark.parametrize("polygon", [[], [[]]])
def test_empty_polygon(data, capsys, polygon):
    path = data / "train.agnostic.json"
    edit(path, lambda content: content["annotations"][0].update(segmentation=polygon))
    the_sentence(run_train(), capsys, path, "annotation 1", "no mask", "draw the masks")


def test_rle_of_another_size(data, capsys):
    path = data / "train.agnostic.json"

    def shrink(content):
        segmentation = content["annotations"][0]["segmentation"]
        segmentation["size"] = [segmentation["size"][0] - 1, segmentation["size"][1]]

    edit(path, shrink)
    error = the_sentence(run_train(), capsys, path, "annotation 1")
    first = json.loads(path.read_text())["annotations"][0]["segmentation"]["size"]
    assert str(first[0]) in error and str(first[0] + 1) in error, "found and expected size"


# So short a file makes torch.load raise an OSError without a file name, before our own reader sees it.
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_checkpoint(data, capsys, share):
    whole = resolve_weights("litemedsam").read_bytes()
    path = data / "cut.pth"
    path.write_bytes(whole[: int(len(whole) * share)])
    the_sentence(run_test(path), capsys, path)
    the_sentence(run_train(arguments=["--weights", str(path)]), capsys, path)


def test_checkpoint_of_another_architecture(data, capsys):
    status = run_test("litemedsam")
    the_sentence(status, capsys, "lite_medsam.pth", "tiny_vit", "does not fit the model", "build the model with")


def test_missing_checkpoint(data, capsys):
    the_sentence(run_test("absent.pth"), capsys, "absent.pth", "litemedsam")


def test_resume_from_another_architecture(data, capsys):
    assert run_train() == 0
    saved = "run/iter_1.pth"
    capsys.readouterr()
    other = "configs/demo/litemedsam_decoder_phantom.py"
    status = run_train_command([other, "--resume", saved, "--work-dir", "other", "--cfg-options", *QUICK])
    the_sentence(status, capsys, saved, "another architecture", "use the configuration it was trained with")


def test_config_key_that_does_not_exist(data, capsys):
    status = run_train("train_cfg.max_iter=3")
    error = the_sentence(status, capsys, "'train_cfg.max_iter'", "is not in the configuration")
    assert "nearest: train_cfg.max_iters" in error
    error = the_sentence(run_train("+model.decode_chunks=3"), capsys, "decode_chunks", "UltraSamDetector")
    assert "nearest: decode_chunk" in error


def test_missing_config(data, capsys):
    error = the_sentence(run_train_command(["configs/demo/ultrasam_vit-tiny_phantoms.py"]), capsys, "does not exist")
    assert "similar ones: configs/demo/ultrasam_vit-tiny_phantom.py" in error


def test_images_without_objects_are_negatives_or_skipped(data, capsys):
    def empty_all_but_one(content):
        first = content["annotations"][0]["image_id"]
        content["annotations"] = [row for row in content["annotations"] if row["image_id"] == first]

    path = data / "train.agnostic.json"
    edit(path, empty_all_but_one)
    images = len(json.loads(path.read_text())["images"])
    every = [f"train_dataloader.batch_size={images}"]
    assert run_train(*every) == 0, "negatives train"
    assert run_train(*every, "train_cfg.max_iters=2", "+train_dataloader.dataset.empty=skip") == 0
    capsys.readouterr()
    edit(path, lambda content: content.update(annotations=[]))
    assert run_train(*every) == 0, "a batch of negatives only trains"
    capsys.readouterr()
    status = run_train("+train_dataloader.dataset.empty=skip")
    the_sentence(status, capsys, path, "no images to use", "check the file")


def test_skipped_images_are_counted(data, capsys, caplog):
    path = data / "train.agnostic.json"
    first = json.loads(path.read_text())["annotations"][0]["image_id"]
    edit(path, lambda c: c.update(annotations=[row for row in c["annotations"] if row["image_id"] != first]))
    with caplog.at_level(logging.WARNING, logger="ultrasam"):
        assert run_train("+train_dataloader.dataset.empty=skip") == 0
    assert f"{path}: left out 1 images without objects" in caplog.text


def test_the_sentence_is_all_that_the_process_writes_to_stderr(data):
    for image in all_images(data):
        image.unlink()
    command = [sys.executable, "-m", "ultrasam.cli.main", "train", CONFIG, "--work-dir", "run", "--cfg-options"]
    done = subprocess.run(
        [*command, *QUICK, "train_dataloader.num_workers=1"],
        capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    # PyTorch 2.4 warns, whatever the filters say, of a function that MMEngine imports.
    written = re.sub(r"\S+/mmengine/\S+ DeprecationWarning: .*\n( .*\n)*", "", done.stderr)
    assert re.fullmatch(r"error: \S+\.png does not exist; check the path and the data root\n", written)


def worker_error(kind, text, cause=None):
    """The exception that a loader raises in the main process for one raised in its worker."""
    from torch._utils import ExceptionWrapper

    try:
        try:
            raise KeyError("first: of all")
        except KeyError as error:
            raise kind(text) from (cause or error)
    except kind:
        wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(kind) as caught:
        wrapper.reraise()
    return caught.value


def test_sentence_of_worker_errors():
    text = "a.png: DataError: of a name; correct it"
    assert commands.sentence_of(DataError(text)) == text
    found = commands.sentence_of(worker_error(DataError, "b.png is damaged; copy it again"))
    assert found == "b.png is damaged; copy it again"
    assert commands.sentence_of(worker_error(DataError, text)) == text
    assert commands.sentence_of(worker_error(FileNotFoundError, "c.png")) == "c.png"
