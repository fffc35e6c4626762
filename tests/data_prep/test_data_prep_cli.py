"""The messages of the command."""

from __future__ import annotations

import pytest

from data_prep.catalogue import catalogue
from data_prep.cli import main


def test_list_has_a_line_of_every_set_and_says_what_is_on_the_disk(mini, tmp_path, capsys):
    def listed() -> dict[str, str]:
        assert main(["list", "--out", str(out)]) == 0
        return {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}

    out = tmp_path / "out"
    before = listed()
    assert list(before) == sorted(catalogue())
    assert all("not converted" in line for line in before.values())
    assert main(["convert", "bus_bra", "--source", str(mini.source), "--out", str(out), "--workers", "1"]) == 0
    text = capsys.readouterr().out
    assert "17 of 1875 images" in text
    assert f"wrote {out / 'bus_bra'}" in text
    after = listed()
    assert "17 images, 0 failed" in after.pop("bus_bra")
    assert all("not converted" in line for line in after.values())


def test_files_that_no_record_names_are_reported(mini, tmp_path, capsys):
    mini.image("bus_0011-l").write_bytes(mini.image("bus_0004-l").read_bytes())
    assert main(["convert", "bus_bra", "--source", str(mini.source), "--out", str(tmp_path / "out"),
                 "--workers", "1"]) == 0
    assert "1 image files of the source belong to no record" in capsys.readouterr().out


@pytest.mark.parametrize(("given", "meant"), [
    ("BUS-BRA", "bus_bra"), ("hc-18", "hc18"), ("EchoNet-Dynamic", "echonet_dynamic")])
def test_an_unknown_dataset_names_the_near_ones_the_nearest_first(tmp_path, capsys, given, meant):
    assert main(["convert", given, "--source", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert f"did you mean {meant}" in capsys.readouterr().err


def test_an_unknown_dataset_like_none_is_told_where_the_list_is(tmp_path, capsys):
    assert main(["convert", "xylophone", "--source", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "see python -m data_prep list" in capsys.readouterr().err


def test_zero_workers_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "bus_bra", "--source", "a", "--out", "b", "--workers", "0"])
    assert "at least 1" in capsys.readouterr().err
