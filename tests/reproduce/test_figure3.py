"""Figure 3: which cases are chosen, what each picture shows, the same bytes again, results that do not fit."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from ultrasam.errors import DataError
from ultrasam.reproduce import figure3
from ultrasam.reproduce.command import main
from ultrasam.reproduce.figure3 import Model, choose_cases, draw_figure3
from ultrasam.visualization import drawing


def model(monkeypatch, *dice, groups=None):
    """Models whose objects 0, 1, ... have these Dice scores."""
    tables = {}
    for number, values in enumerate(dice):
        tables[f"m{number}"] = [
            SimpleNamespace(key=("a", str(n), f"{n}.png", "1", "0"), values={"dice": value},
                            group=(groups or list(range(len(values))))[n])
            for n, value in enumerate(values)
        ]  # fmt: skip
    monkeypatch.setattr(figure3, "read_per_object", lambda folder: tables[folder])
    return [Model(name, {"a": name}) for name in tables]


def chosen(models, count, which):
    return [int(case.key[1]) for case in choose_cases(models, "a", count, which)]


def test_cases_by_mean_dice(monkeypatch):
    models = model(monkeypatch, [0.1, 0.9, 0.5, 0.6, np.nan, 0.2], [0.3, 0.9, 0.7, 0.4, 0.8, 0.2])
    # Means: 0.2, 0.9, 0.6, 0.5, undefined, 0.2; median 0.5.
    assert chosen(models, 1, "median") == [3]
    assert chosen(models, 2, "median") == [3, 2]
    assert chosen(models, 2, "worst") == [0, 5]
    assert chosen(models, 2, "best") == [2, 1]
    assert len(chosen(models, 99, "median")) == 5
    assert choose_cases(models, "a", 1, "best")[0].dice == (0.9, 0.9)


def test_each_case_is_of_another_patient(monkeypatch):
    models = model(monkeypatch, [0.5, 0.51, 0.9, 0.1, 0.5], groups=["p", "p", "q", "r", "p"])
    assert chosen(models, 3, "median") == [3, 0, 2]


def test_models_must_share_their_objects(monkeypatch):
    models = model(monkeypatch, [0.5, 0.6], [0.5])
    with pytest.raises(DataError, match="must be results on the same objects of a"):
        choose_cases(models, "a", 1, "median")
    with pytest.raises(DataError, match="has no object of b"):
        choose_cases([Model("m0", {"b": "m0"})], "b", 1, "median")


@pytest.fixture
def results(ran):
    """Result folders of the model that masks everything, and of the one that masks nothing."""
    out = ran[0] / "runs"
    (everything,), (nothing,) = out.glob("*.sam.*"), out.glob("*.ultrasam.*")
    return everything, nothing


def colour_share(picture, colour):
    """Share of pixels near a colour of the overlay's palette, thinned or not."""
    return float((np.abs(picture.astype(int) - colour).max(axis=2) < 40).mean())


def test_pictures_show_image_prompt_truth_and_masks(results, collection, tmp_path, monkeypatch):
    rows = []
    made = figure3._pictures

    def keep(*arguments):
        rows.append(made(*arguments))
        return rows[-1]

    monkeypatch.setattr(figure3, "_pictures", keep)
    models = [Model("all", {"bus_bra": results[0]}), Model("none", {"bus_bra": results[1]})]
    paths = draw_figure3(models, collection / "data", tmp_path, images=2)
    assert [path.name for path in paths] == ["figure3.png", "figure3.svg"] and len(rows) == 2
    for (image, prompt, truth, everything, nothing), captions in rows:
        assert colour_share(prompt, drawing.BOX) > 0.002 > colour_share(image, drawing.BOX)
        assert colour_share(truth, drawing.TRUTH) > 0.002 > colour_share(image, drawing.TRUTH)
        assert np.array_equal(nothing, truth), "an empty mask leaves the truth alone"
        # The fill mixes 38 % of sky blue into the whole picture.
        bluer = everything[..., 2].astype(float) - everything[..., 0] - (image[..., 2].astype(float) - image[..., 0])
        assert np.median(bluer) > 30
        assert captions[1:] == ["", "", "0.84", "0.00"]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in draw_figure3(models, collection / "data", tmp_path, images=2)] == first
    assert b"<svg" in first[1] and first[0].startswith(b"\x89PNG")


def test_the_command_draws_weights_and_result_folders(mini, results, tmp_path, capsys):
    shutil.copytree(results[0].parent, tmp_path / "out/runs")
    base = ["figure3", "--data", str(mini / "data"), "--out", "out", "--images", "1", "--prompt", "box"]
    assert main([*base, "--weights", f"sam={mini / 'all.pth'}", "--results", f"mine={results[1]}"]) == 0
    out = capsys.readouterr().out
    assert "wrote out/figure3.png" in out and out.rstrip().endswith("tests run: 0"), "found in the folder"
    assert main([*base, "--results", f"mine={results[0]}"]) == 0
    assert "open" not in capsys.readouterr().out
    assert main([*base, "--only", "sam", "bus_bra"]) == 0
    assert "figure3 is not drawn: there is no result to show" in capsys.readouterr().out


def test_results_that_do_not_fit_are_refused(results, collection, tmp_path):
    data = collection / "data"
    clicked = tmp_path / "clicked"
    shutil.copytree(results[0], clicked)
    record = json.loads((clicked / "metrics.json").read_text())
    (clicked / "metrics.json").write_text(json.dumps({**record, "prompt": ["point"]}))
    models = [Model("a", {"bus_bra": results[0]}), Model("b", {"bus_bra": clicked})]
    with pytest.raises(DataError, match="results of one and the same prompt were expected"):
        draw_figure3(models, data, tmp_path / "out")
    other = tmp_path / "other"
    shutil.copytree(data, other)
    path = other / "bus_bra/annotations/test.bus_bra.agnostic.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(DataError, match="holds results on another"):
        draw_figure3(models[:1], other, tmp_path / "out")
    (clicked / "predictions.bus_bra.json").unlink()
    with pytest.raises(DataError, match=r"predictions.bus_bra.json cannot be read .* test again"):
        draw_figure3(models[1:], data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
