"""The command ``prepare``: which downloads it finds, what it converts, keeps and refuses."""

from __future__ import annotations

import argparse
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from collection_sets import checksums, info, load, names_in

from data_prep import catalogue as catalogue_module
from data_prep.collection import prepare
from data_prep.collection.downloads import find_downloads, fingerprint
from data_prep.converters import bus_bra
from data_prep.records import Converter
from ultrasam.errors import ConfigError, DataError

INFOS = {
    "bus": info("bus", "breast", names=("bus", "bus.*")),
    "bus_uc": info("bus_uc", "breast", names=("*bus_uc*",)),
    "bus_uclm": info("bus_uclm", "breast", names=("*bus_uclm*", "*7fvgj4jsp7*")),
    "tn3k": info("tn3k", "thyroid", names=("*tn3k*",)),
    "ddti": info("ddti", "thyroid", names=("*ddti*", "*tn3k*")),
    "echo_a": info("echo_a", "cardiac", names=("echo_*1",)),
    "echo_b": info("echo_b", "cardiac", names=("*_echo",)),
}


def zipped(path: Path, content: Path | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in [] if content is None else sorted(content.rglob("*")):
            archive.write(file, file.relative_to(content))
        archive.writestr("readme.txt", "x")
    return path


def found(folder: Path) -> dict[str, str]:
    return {slug: path.relative_to(folder).as_posix() for slug, path in find_downloads(folder, INFOS).items()}


def test_folders_and_archives_are_found_by_their_names(tmp_path):
    zipped(tmp_path / "BUS.zip")
    (tmp_path / "My Bus_UC (1)").mkdir()
    # Sorted into folders by the user.
    zipped(tmp_path / "breast/7fvgj4jsp7-1.tar.gz")
    (tmp_path / "breast/notes").mkdir()
    # Published together.
    zipped(tmp_path / "TN3K.zip")
    # Not a folder and not an archive.
    (tmp_path / "bus_uclm.txt").write_text("x")
    (tmp_path / ".bus").mkdir()
    # Too deep.
    zipped(tmp_path / "a/b/bus.zip")
    assert found(tmp_path) == {"bus": "BUS.zip", "bus_uc": "My Bus_UC (1)", "bus_uclm": "breast/7fvgj4jsp7-1.tar.gz",
                               "tn3k": "TN3K.zip", "ddti": "TN3K.zip"}


def test_the_pattern_that_says_most_wins(tmp_path):
    zipped(tmp_path / "BUS_UCLM.zip")
    assert found(tmp_path) == {"bus_uclm": "BUS_UCLM.zip"}
    zipped(tmp_path / "bus_uc.zip")
    assert found(tmp_path) == {"bus_uc": "bus_uc.zip", "bus_uclm": "BUS_UCLM.zip"}


def test_the_parts_of_one_archive_are_one_download(tmp_path):
    for name in ("bus.zip.001", "bus.zip.002"):
        (tmp_path / name).write_bytes(b"x")
    assert found(tmp_path) == {"bus": "bus.zip.001"}


def test_several_downloads_of_a_set_are_refused_in_one_sentence(tmp_path):
    zipped(tmp_path / "bus.zip")
    (tmp_path / "bus").mkdir()
    with pytest.raises(DataError) as caught:
        found(tmp_path)
    message = str(caught.value)
    assert "one download of bus was expected, found 2 (bus, bus.zip)" in message
    assert "--skip bus" in message
    assert "\n" not in message


def test_a_name_that_fits_sets_equally_is_refused(tmp_path):
    assert len("echo_1") == len("_echo") + 1
    (tmp_path / "echo_x1").mkdir()
    (tmp_path / "my_echo").mkdir()
    assert found(tmp_path) == {"echo_a": "echo_x1", "echo_b": "my_echo"}
    infos = {**INFOS, "echo_b": info("echo_b", "cardiac", names=("*cho_x1",))}
    with pytest.raises(DataError, match=r"echo_x1: .* its name fits echo_a, echo_b; rename it"):
        find_downloads(tmp_path, infos)


def test_a_folder_of_downloads_must_be_one(tmp_path):
    with pytest.raises(DataError, match="folder of downloads was expected, found nothing there"):
        find_downloads(tmp_path / "absent", INFOS)
    with pytest.raises(DataError, match="folder of downloads was expected, found a file"):
        find_downloads(zipped(tmp_path / "bus.zip"), INFOS)


def test_fingerprints_change_with_the_files_and_the_rules(tmp_path):
    folder = tmp_path / "bus"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/a.png").write_bytes(b"1234")
    seen = [fingerprint(folder, INFOS["bus"])]
    assert fingerprint(shutil.copytree(folder, tmp_path / "elsewhere"), INFOS["bus"]) == seen[0]
    (folder / "deep/a.png").write_bytes(b"12345")
    seen.append(fingerprint(folder, INFOS["bus"]))
    os.utime(folder / "deep/a.png", (1, 1))
    seen.append(fingerprint(folder, INFOS["bus"]))
    (folder / "b.png").touch()
    seen.append(fingerprint(folder, INFOS["bus"]))
    seen.append(fingerprint(folder, bus_bra.INFO))
    archive = zipped(tmp_path / "bus.zip")
    seen.append(fingerprint(archive, INFOS["bus"]))
    archive.write_bytes(archive.read_bytes() + b"x")
    seen.append(fingerprint(archive, INFOS["bus"]))
    assert len(set(seen)) == len(seen)


@pytest.fixture
def catalogue(monkeypatch):
    """The real BUS-BRA, a set whose conversion fails, and one with BUS-BRA's images."""
    def records(root):
        raise DataError(f"{root}: a table was expected, found none")

    known = {
        "bus_bra": bus_bra.CONVERTER,
        "broken": Converter(info("broken", "other", names=("broken*",)), records),
        "twin": Converter(info("twin", "breast", names=("twin*",), alias_of="bus_bra"), records),
        "unseen": Converter(info("unseen", "other", names=("unseen*",)), records),
    }
    for module in (prepare, catalogue_module):
        monkeypatch.setattr(module, "catalogue", lambda: known)
    return known


def run(root: Path, *arguments: object) -> int | None:
    parser = argparse.ArgumentParser()
    prepare.add_parser(parser.add_subparsers())
    options = parser.parse_args(["prepare", str(root), "--workers", "1", *map(str, arguments)])
    return options.run(options)


def test_from_downloads_to_files_for_training(mini, catalogue, tmp_path, capsys):
    downloads, root = tmp_path / "downloads", tmp_path / "root"
    zipped(downloads / "BUSBRA.zip", mini.source)
    assert run(root, "--source", downloads) is None
    out = capsys.readouterr().out
    assert "converted: bus_bra" in out
    assert "not found in" in out
    assert "broken, unseen" in out
    names = set().union(*(names_in(root, f"{split}.agnostic.json") for split in ("train", "val", "test")))
    assert names == {f"bus_bra/{name}" for name in mini.masks}
    assert names_in(root, "test.agnostic.json") == {
        f"bus_bra/{name}" for name, fold in mini.folds.items() if fold == 1}
    assert load(root, "manifest.json")["sets"]["bus_bra"]["family"] == "breast"


def test_what_is_converted_is_kept_until_its_download_changes(mini, catalogue, tmp_path, capsys):
    downloads, root = tmp_path / "downloads", tmp_path / "root"
    shutil.copytree(mini.source, downloads / "bus_bra")
    run(root, "--source", downloads)
    written = (root / "bus_bra/images/bus_0001-l.png").stat().st_ino
    first = checksums(root)
    capsys.readouterr()
    run(root, "--source", downloads)
    assert "kept as converted before: bus_bra" in capsys.readouterr().out
    assert (root / "bus_bra/images/bus_0001-l.png").stat().st_ino == written
    assert checksums(root) == first
    run(root)
    assert checksums(root) == first
    run(root, "--source", downloads, "--reconvert")
    assert (root / "bus_bra/images/bus_0001-l.png").stat().st_ino != written
    assert checksums(root) == first
    os.utime(downloads / "bus_bra/BUSBRA/bus_data.csv", (1, 1))
    capsys.readouterr()
    run(root, "--source", downloads)
    caught = capsys.readouterr()
    assert "converted: bus_bra" in caught.out
    assert "changed, it is converted again" in caught.err


def test_a_set_that_fails_stops_before_merging_unless_told_to_go_on(mini, catalogue, tmp_path, capsys):
    downloads, root = tmp_path / "downloads", tmp_path / "root"
    shutil.copytree(mini.source, downloads / "bus_bra")
    (downloads / "broken").mkdir()
    with pytest.raises(DataError, match=r"1 sets could not be converted \(broken\), see above; nothing was merged"):
        run(root, "--source", downloads)
    assert "a table was expected, found none" in capsys.readouterr().err
    # What could be converted is kept.
    assert (root / "bus_bra/manifest.json").is_file()
    assert not (root / "manifest.json").exists()
    run(root, "--source", downloads, "--keep-going")
    caught = capsys.readouterr()
    assert "1 sets could not be converted (broken)" in caught.err
    assert "kept as converted before: bus_bra" in caught.out
    assert list(load(root, "manifest.json")["sets"]) == ["bus_bra"]
    run(root, "--source", downloads, "--skip", "broken")
    assert "broken" not in capsys.readouterr().err


def test_of_two_sets_of_the_same_images_one_is_converted(mini, catalogue, tmp_path, capsys):
    downloads, root = tmp_path / "downloads", tmp_path / "root"
    shutil.copytree(mini.source, downloads / "bus_bra")
    (downloads / "twin").mkdir()
    run(root, "--source", downloads)
    assert "twin: not converted, it has the images of bus_bra, which is taken" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"1 sets could not be converted \(twin\)"):
        run(root, "--source", downloads, "--only", "twin")


def test_only_and_skip_hold_for_merging_too(mini, catalogue, tmp_path):
    downloads, root = tmp_path / "downloads", tmp_path / "root"
    shutil.copytree(mini.source, downloads / "bus_bra")
    run(root, "--source", downloads)
    with pytest.raises(DataError, match="found none of those asked for"):
        run(root, "--skip", "bus_bra")
    with pytest.raises(ConfigError, match="'bus_brar' is not in the catalogue; did you mean bus_bra"):
        run(root, "--only", "bus_brar")


def test_no_download_at_all_is_said(catalogue, tmp_path):
    (tmp_path / "downloads/something").mkdir(parents=True)
    with pytest.raises(DataError, match="the download of at least one set was expected, found none"):
        run(tmp_path / "root", "--source", tmp_path / "downloads")
    assert not (tmp_path / "root").exists()


def test_a_damaged_list_of_downloads_is_named(mini, catalogue, tmp_path):
    shutil.copytree(mini.source, tmp_path / "downloads/bus_bra")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/.sources.json").write_text("{")
    with pytest.raises(DataError, match=r"\.sources\.json: the list of converted downloads is damaged"):
        run(tmp_path / "root", "--source", tmp_path / "downloads")


def test_workers_must_be_at_least_one(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "--workers", "0")
    assert "at least 1 was expected, found 0" in capsys.readouterr().err
