"""The catalogue and the messages of the command."""

from __future__ import annotations

import pytest

from data_prep.catalogue import catalogue
from data_prep.cli import main


def test_every_entry_is_complete():
    for slug, converter in catalogue().items():
        info = converter.info
        assert info.slug == slug
        assert info.home.startswith("https://")
        assert info.licence
        assert len(set(info.categories)) == len(info.categories) > 0


def test_list_says_what_is_on_the_disk(mini, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["list", "--out", str(out)]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("bus_bra")
    assert "not converted" in line
    assert main(["convert", "bus_bra", "--source", str(mini.source), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "17 of 1875 images" in text
    assert f"wrote {out / 'bus_bra'}" in text
    assert main(["list", "--out", str(out)]) == 0
    assert "17 images, 0 failed" in capsys.readouterr().out


def test_files_that_no_record_names_are_reported(mini, tmp_path, capsys):
    mini.image("bus_0011-l").write_bytes(mini.image("bus_0004-l").read_bytes())
    assert main(["convert", "bus_bra", "--source", str(mini.source), "--out", str(tmp_path / "out")]) == 0
    assert "1 image files of the source belong to no record" in capsys.readouterr().out


def test_unknown_dataset_names_the_near_one(tmp_path, capsys):
    assert main(["convert", "BUS-BRA", "--source", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "did you mean bus_bra?" in capsys.readouterr().err


def test_zero_workers_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "bus_bra", "--source", "a", "--out", "b", "--workers", "0"])
    assert "at least 1" in capsys.readouterr().err
