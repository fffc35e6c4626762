"""Interrupted conversions go on where they stopped and end with the bytes of an uninterrupted one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import pipeline
from data_prep.cli import main

# Ends the process with a signal that cannot be caught, before image number {count} or the {count}-th journal entry.
KILLED = """
import os, signal, sys
import data_prep.pipeline as pipeline
from data_prep.cli import main
owner = pipeline{owner}
original, calls = owner.{name}, []
def counted(*arguments, **named):
    calls.append(1)
    if len(calls) > {count}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **named)
owner.{name} = counted
main(sys.argv[1:])
"""
WORK = ".bus_bra.partial"


def arguments(source: Path, out: Path, *more: str) -> list[str]:
    return ["convert", "bus_bra", "--source", str(source), "--out", str(out), "--workers", "1", *more]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def kill(source: Path, out: Path, count: int, *more: str, name: str = "convert_record", owner: str = "") -> Path:
    """Run a conversion that is killed; return its journal."""
    code = KILLED.format(owner=owner, name=name, count=count)
    done = subprocess.run([sys.executable, "-c", code, *arguments(source, out, *more)], check=False,
                          capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (out / "bus_bra").exists()
    return out / WORK / "journal.jsonl"


def stop(source: Path, out: Path, count: int, *more: str) -> Path:
    """Stop a conversion with Ctrl-C after some images, which takes no process of its own; return its journal."""
    original, calls = pipeline.convert_record, []

    def counted(*arguments):
        calls.append(arguments)
        if len(calls) > count:
            raise KeyboardInterrupt
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "convert_record", counted)
        with pytest.raises(KeyboardInterrupt):
            main(arguments(source, out, *more))
    assert not (out / "bus_bra").exists()
    return out / WORK / "journal.jsonl"


def finish(source: Path, out: Path, *more: str) -> list[str]:
    """Run a conversion to its end; return the keys of the records that it converted, sorted."""
    original, keys = pipeline.convert_record, []

    def noted(record, *rest):
        keys.append(record.key)
        return original(record, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "convert_record", noted)
        assert main(arguments(source, out, *more)) == 0
    assert [path.name for path in out.iterdir()] == ["bus_bra"]
    return sorted(keys)


@pytest.fixture
def whole(mini, tmp_path) -> dict[str, bytes]:
    """Return the files of an uninterrupted conversion."""
    assert main(arguments(mini.source, tmp_path / "whole")) == 0
    return snapshot(tmp_path / "whole")


# Images go in portions of 8; what a portion had written when it was killed counts only when it was complete.
@pytest.mark.parametrize(("count", "finished"), [(3, 0), (13, 8)])
def test_a_killed_conversion_goes_on(mini, tmp_path, whole, capsys, count, finished):
    kill(mini.source, tmp_path / "out", count)
    assert len(list((tmp_path / "out" / WORK / "new/images").iterdir())) == count
    again = finish(mini.source, tmp_path / "out")
    assert snapshot(tmp_path / "out") == whole
    assert len(again) == 17 - finished
    said = f"{finished} of 17 images were converted by an interrupted run"
    assert (said in capsys.readouterr().err) == (finished > 0)


def test_it_can_be_killed_again_and_while_it_writes_the_annotations(mini, tmp_path, whole):
    stop(mini.source, tmp_path / "out", 9)
    kill(mini.source, tmp_path / "out", 8)
    kill(mini.source, tmp_path / "out", 0, name="write_set")
    again = finish(mini.source, tmp_path / "out")
    assert snapshot(tmp_path / "out") == whole
    assert again == []


def test_two_processes_can_be_killed_too(mini, tmp_path, whole):
    kill(mini.source, tmp_path / "out", 1, "--workers", "2", name="add", owner=".Journal")
    again = finish(mini.source, tmp_path / "out")
    assert snapshot(tmp_path / "out") == whole
    assert len(again) == 9


@pytest.mark.parametrize(("count", "finished"), [(0, 0), (8, 8), (16, 16)])
def test_a_stopped_conversion_goes_on_as_a_killed_one(mini, tmp_path, whole, count, finished):
    journal = stop(mini.source, tmp_path / "out", count)
    assert len(journal.read_text().splitlines()) == 1 + finished
    again = finish(mini.source, tmp_path / "out")
    assert snapshot(tmp_path / "out") == whole
    assert len(again) == 17 - finished


@pytest.mark.parametrize("spoil", [
    lambda text: text[:-40], lambda text: text + '{"record": "half', lambda text: text + "\0\0\n",
    lambda text: text + '[1]\n{"converted": {"key": "x"}}\n', lambda text: text[text.index("\n") + 1:],
    lambda text: "", lambda text: "nonsense\n" + text,
])
def test_a_spoilt_journal_costs_time_only(mini, tmp_path, whole, spoil):
    journal = stop(mini.source, tmp_path / "out", 16)
    journal.write_text(spoil(journal.read_text()))
    again = finish(mini.source, tmp_path / "out")
    assert snapshot(tmp_path / "out") == whole
    assert 1 <= len(again) <= 17


def later(path: Path) -> None:
    """Give a file another time, as writing it does once the clock has moved on."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1_000_000))


def _other_image(mini) -> None:
    pixels = np.array(Image.open(mini.image("bus_0001-l")))
    Image.fromarray(255 - pixels).save(mini.image("bus_0001-l"))
    later(mini.image("bus_0001-l"))


def _other_mask(mini) -> None:
    mask = mini.masks["bus_0001-l"]
    mask[25:28, 20] = False
    Image.fromarray(mask).save(mini.mask("bus_0001-l"))
    later(mini.mask("bus_0001-l"))


def _other_table(mini) -> None:
    for table in ("bus_data.csv", "5-fold-cv.csv"):
        mini.edit(table, "bus_0001-l", Pathology="benign")


@pytest.mark.parametrize("change", [_other_image, _other_mask, _other_table])
def test_what_was_changed_meanwhile_is_converted_again(mini, tmp_path, whole, change):
    stop(mini.source, tmp_path / "out", 16)
    change(mini)
    assert finish(mini.source, tmp_path / "out") == ["bus_0001-l", "bus_0010-r"]
    found = snapshot(tmp_path / "out")
    assert found != whole
    assert main(arguments(mini.source, tmp_path / "fresh")) == 0
    assert found == snapshot(tmp_path / "fresh")


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:50])])
def test_a_converted_image_that_is_gone_or_cut_off_is_made_again(mini, tmp_path, whole, spoil):
    stop(mini.source, tmp_path / "out", 16)
    spoil(tmp_path / "out" / WORK / "new/images/bus_0004-l.png")
    again = finish(mini.source, tmp_path / "out")
    assert snapshot(tmp_path / "out") == whole
    assert again == ["bus_0004-l", "bus_0010-r"]


def test_images_of_the_interrupted_run_that_are_not_part_of_this_one_go(mini, tmp_path):
    stop(mini.source, tmp_path / "out", 16)
    more = ("--test-folds", "1", "--train-folds", "2")
    wanted = finish(mini.source, tmp_path / "fresh", *more)
    assert finish(mini.source, tmp_path / "out", *more) == []
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")
    assert {path.stem for path in (tmp_path / "out/bus_bra/images").iterdir()} == set(wanted) < mini.masks.keys()


def test_another_version_rules_or_source_begins_anew(mini, tmp_path, whole, monkeypatch):
    copy = shutil.copytree(mini.source, tmp_path / "copy")
    stop(mini.source, tmp_path / "out", 16)
    with monkeypatch.context() as patch:
        patch.setattr("ultrasam.__version__", "0.0.0")
        assert len(finish(mini.source, tmp_path / "out")) == 17
    assert snapshot(tmp_path / "out").keys() == whole.keys()
    shutil.rmtree(tmp_path / "out")
    stop(mini.source, tmp_path / "out", 16)
    again = finish(copy, tmp_path / "out")
    assert snapshot(tmp_path / "out") == whole
    assert len(again) == 17


def test_the_same_folder_by_another_name_goes_on(mini, tmp_path, whole, monkeypatch):
    stop(mini.source, tmp_path / "out", 16)
    monkeypatch.chdir(mini.source)
    again = finish(Path(), tmp_path / "out")
    assert snapshot(tmp_path / "out") == whole
    assert again == ["bus_0010-r"]


def archives(source: Path, folder: Path) -> Sequence[Path]:
    """Return the raw files as a zip, and as a folder with a zip of the images and the other files loose."""
    folder.mkdir()
    mixed = shutil.copytree(source, folder / "mixed")
    shutil.make_archive(str(mixed / "BUSBRA/Images"), "zip", mixed / "BUSBRA", "Images")
    shutil.rmtree(mixed / "BUSBRA/Images")
    (mixed / "BUSBRA/Images.zip").rename(mixed / "BUSBRA.zip")
    return Path(shutil.make_archive(str(folder / "download"), "zip", source)), mixed


def test_interrupted_archives_go_on_and_replaced_ones_begin_anew(mini, tmp_path, whole):
    packed, mixed = archives(mini.source, tmp_path / "packed")
    for name, source, archive in (("a", packed, packed), ("b", mixed, mixed / "BUSBRA.zip")):
        # Of the mixed folder, BUSBRA.zip/Images/x.png goes beside BUSBRA/bus_data.csv.
        kill(source, tmp_path / name, 16) if source == packed else stop(source, tmp_path / name, 16)
        before = snapshot(source) if source.is_dir() else {"": source.read_bytes()}
        again = finish(source, tmp_path / name)
        assert snapshot(tmp_path / name) == whole
        assert again == ["bus_0010-r"]
        assert before == (snapshot(source) if source.is_dir() else {"": source.read_bytes()})
        shutil.rmtree(tmp_path / name)
        stop(source, tmp_path / name, 16)
        later(archive)
        again = finish(source, tmp_path / name)
        assert snapshot(tmp_path / name) == whole
        assert len(again) == 17


def test_what_could_not_be_converted_is_tried_again(mini, tmp_path, whole):
    taken = mini.mask("bus_0001-l").read_bytes()
    mini.mask("bus_0001-l").unlink()
    journal = stop(mini.source, tmp_path / "out", 16, "--keep-going")
    keys = [json.loads(line)["converted"]["key"] for line in journal.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys)) == 15
    assert "bus_0001-l" not in keys
    mini.mask("bus_0001-l").write_bytes(taken)
    again = finish(mini.source, tmp_path / "out")
    assert snapshot(tmp_path / "out") == whole
    assert again == ["bus_0001-l", "bus_0010-r"]
