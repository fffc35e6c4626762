"""The page on data: its table is the catalogue, its options exist, and its example converts."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep import cli, converters
from data_prep.catalogue import catalogue
from data_prep.collection import prepare
from data_prep.doctor import command as doctor
from data_prep.folders import command as folders
from data_prep.report import command as report
from data_prep.report.catalogue_page import catalogue_table, main, with_table
from ultrasam.errors import ConfigError

PAGE = Path(__file__).resolve().parents[2] / "docs/data.md"
TEXT = PAGE.read_text(encoding="utf-8")


def subparsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every command, each made by the module that it is part of."""
    commands = argparse.ArgumentParser().add_subparsers()
    for part in (prepare, doctor, folders, report):
        part.add_parser(commands)
    (own,) = (action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {**commands.choices, **own.choices}


def test_the_table_is_that_of_the_catalogue():
    infos = [converter.info for converter in catalogue().values()]
    table = catalogue_table(infos)
    assert with_table(TEXT, table) == TEXT, "run: python -m data_prep.report.catalogue_page docs/data.md"
    lines = table.splitlines()
    assert len(lines) == len(infos) + 2
    for info, line in zip(sorted(infos, key=lambda info: info.slug), lines[2:], strict=True):
        assert line.startswith(f"| `{info.slug}` | [{info.name}]({info.home}) | {info.application} |")
        assert line.count(" | ") == lines[0].count(" | ") == 5
        assert " ".join(info.licence.split()) in line.replace("\\|", "|")


def test_a_stale_table_is_replaced_and_a_page_without_one_refused(tmp_path, capsys):
    table = catalogue_table(converter.info for converter in catalogue().values())
    page = tmp_path / "data.md"
    page.write_text(with_table(TEXT, "old"), encoding="utf-8")
    main([str(page)])
    assert page.read_text(encoding="utf-8") == with_table(TEXT, table)
    assert capsys.readouterr().out == f"wrote {page}\n"
    page.write_text("# Data\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="begin of the table"):
        main([str(page)])


def test_every_set_has_a_line_on_what_was_changed():
    part = TEXT.partition("### Set by set")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in part.splitlines() if line.startswith("| `")))
    assert sorted(named) == sorted(catalogue())


@pytest.mark.parametrize("name", ["list", "convert", "prepare", "report", "doctor", "from-masks", "to-masks"])
def test_options_are_those_of_the_command(name):
    section = TEXT.partition(f"### {name}\n")[2].partition("\n##")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `--")]
    named = [option for cell in cells for option in re.findall(r"--[a-z][a-z-]+", cell)]
    parser = subparsers()[name]
    real = {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
    assert sorted(named) == sorted(real)


def test_every_command_of_the_page_can_be_given():
    given = re.findall(r"^python -m data_prep (\S+)(.*)$", TEXT.replace("\\\n", " "), flags=re.MULTILINE)
    parsers = subparsers()
    assert {name for name, _ in given} == {"list", "convert", "prepare", "report", "doctor", "from-masks", "to-masks"}
    for name, arguments in given:
        words = [word.strip("'") for word in arguments.partition("  #")[0].split()]
        assert parsers[name].parse_args(words).run


def example() -> tuple[str, str]:
    """Return the converter and the test of the section on adding a set."""
    part = TEXT.partition("## Add a 44th set")[2]
    converter, test = re.findall(r"^```python\n(.*?)^```$", part, flags=re.DOTALL | re.MULTILINE)
    return converter, test


@pytest.fixture
def added(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder whose modules belong to `data_prep.converters`, as long as a test runs."""
    folder = tmp_path / "converters"
    folder.mkdir()
    monkeypatch.setattr(converters, "__path__", [*converters.__path__, str(folder)])
    yield folder
    sys.modules.pop("data_prep.converters.liver_kidney", None)
    vars(converters).pop("liver_kidney", None)


def run_example(folder: Path, converter: str, tmp_path: Path) -> None:
    (folder / "liver_kidney.py").write_text(converter, encoding="utf-8")
    names: dict = {}
    exec(compile(example()[1], str(PAGE), "exec"), names)
    names["test_liver_kidney"](tmp_path)


def test_the_example_converts_its_own_miniature(added, tmp_path, capsys):
    run_example(added, example()[0], tmp_path)
    assert "not the complete published set: 3 of 120 images, 2 of 30 groups" in capsys.readouterr().out
    assert "liver_kidney" in catalogue()


@pytest.mark.parametrize(("right", "wrong"), [
    ('{1: "liver", 2: "kidney"}', '{1: "kidney", 2: "liver"}'),
    ('split=sides[patient]["side"]', "split=None"),
    ("group=patient", "group=image.stem"),
])
def test_the_test_of_the_example_finds_mistakes(added, tmp_path, right, wrong):
    converter = example()[0]
    assert converter.count(right) == 1
    with pytest.raises((AssertionError, OSError)):
        run_example(added, converter.replace(right, wrong), tmp_path)


def test_the_example_names_a_patient_that_the_table_lacks(added, tmp_path, capsys):
    converter = example()[0]
    with pytest.raises(AssertionError):
        run_example(added, converter.replace('image.stem.split("-")[0]', '"P99"'), tmp_path)
    assert "a line for patient P99 of P01-1.png was expected, found none" in capsys.readouterr().err
