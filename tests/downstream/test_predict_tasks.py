"""``ultrasam predict`` with checkpoints of other tasks: the numbers of the tested model on the same image."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image
from pycocotools.coco import COCO

from ultrasam.cli.main import main
from ultrasam.io.images import read_image


@pytest.fixture
def predict(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        status = main(["predict", *map(str, arguments), "--device", "cpu"])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def answered(found, index):
    """Return the sample that tools/test.py's model gives for an image of the test set."""
    with torch.no_grad():
        return found.model.test_step(pseudo_collate([found.data[index]]))[0]


def rows(path):
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def samples(found):
    return [answered(found, index) for index in range(len(found.data))]


def test_classifier(trained, predict, tmp_path):
    found = trained["classify"]
    expected = samples(found)
    paths = [sample.img_path for sample in expected]
    status, out, err = predict(*paths, "--weights", found.path)
    assert (status, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == ["classes.csv", "predictions.json"]
    table = rows("predictions/classes.csv")
    document = json.loads((tmp_path / "predictions" / "predictions.json").read_text(encoding="utf-8"))
    for sample, row, record in zip(expected, table, document["images"], strict=True):
        wanted = sample.pred_instances.probabilities[0]
        given = [float(row[f"probability of {name}"]) for name in ("benign", "malignant")]
        assert given == pytest.approx(wanted.tolist(), abs=1e-5)
        assert row["class"] == record["class"] == ("benign", "malignant")[int(wanted.argmax())]
        assert float(row["probability"]) == pytest.approx(float(wanted.max()), abs=1e-5)
        assert list(record["probabilities"].values()) == pytest.approx(wanted.tolist(), abs=1e-5)
        assert (record["height"], record["width"], row["file"]) == (24, 32, record["file_name"])
    assert out.strip().splitlines()[-1] == f"wrote {len(paths)} classifications of {len(paths)} of {len(paths)} " \
        "scans to predictions (2 files)"  # fmt: skip


@pytest.mark.parametrize("kind", ["box", "point"])
def test_prompted_classifier(trained, predict, tmp_path, kind):
    found = trained["prompted"]
    found.data.prompt = kind
    expected = next(sample for sample in samples(found) if len(sample.prompt_instances) == 2)
    asked = expected.prompt_instances
    given = []
    for number in range(2):
        numbers = asked.boxes[number].tolist() if kind == "box" else asked.points[number][0].tolist()
        given += ["--object", f"--{kind}", ",".join(map(str, numbers))]
    status, out, err = predict(expected.img_path, *given, "--weights", found.path, "--no-clip", "--out", kind)
    assert (status, err) == (0, ""), err
    stem = expected.img_path.rpartition("/")[2].removesuffix(".png")
    table = rows(f"{kind}/{stem}_classes.csv")
    wanted = expected.pred_instances.probabilities
    for number, row in enumerate(table):
        values = [float(row[f"probability of {name}"]) for name in ("benign", "malignant")]
        assert values == pytest.approx(wanted[number].tolist(), abs=2e-5)
        assert row["class"] == ("benign", "malignant")[int(wanted[number].argmax())]
        assert row["object"] == str(number + 1)
    assert [row["name"] for row in rows(f"{kind}/{stem}_measures.csv")] == [row["class"] for row in table]
    document = json.loads((tmp_path / kind / f"{stem}.json").read_text(encoding="utf-8"))
    categories = {item["id"]: item["name"] for item in document["categories"]}
    for annotation in document["annotations"]:
        row = table[annotation["object"] - 1]
        assert annotation["class"] == categories[annotation["category_id"]] == row["class"]
        assert annotation["probability"] == pytest.approx(float(row["probability"]), abs=1e-5)
    assert "probability" in out and (tmp_path / kind / f"{stem}_mask_2.png").is_file()


@pytest.mark.parametrize("form", [{}, dict(global_vector=False), dict(global_encoder="none"), dict(prompt=False),
                                  dict(object_encoder=False), dict(global_encoder="shared")])  # fmt: skip
def test_classes_of_every_form_of_the_prompted_classifier(form):
    """What is computed of kept embeddings is what the model computes of the image."""
    from ultrasam.downstream.checkpoint import Rebuilt, TaskCheckpoint
    from ultrasam.downstream.prompted import PromptedUltraSam
    from ultrasam.inference.prompt import Prompt
    from ultrasam.models.prompted_classifier import PromptedClassifier

    torch.manual_seed(0)
    model = PromptedClassifier(["a", "b", "c"], arch="vit_tiny", image_size=64, **form).eval()
    model.sam.set_mlp_residual("double")
    checkpoint = TaskCheckpoint(Path("x.pth"), "prompted-classify", model.card(), {}, {})
    network = PromptedUltraSam(Rebuilt(model, {}, {}, torch.device("cpu"), checkpoint))
    image = np.random.default_rng(0).integers(60, 255, (40, 60, 3), dtype=np.uint8)
    session = network.session(image)
    prompts = [Prompt.of([[20, 20]]), Prompt.of(box=[5, 6, 30, 33]), Prompt.of([[50, 30], [9, 9]], [1, 0])]
    given = network.classify(session, prompts)
    fit = network.fit(40, 60)
    pixels = torch.from_numpy(fit.image(image)).permute(2, 0, 1)
    with torch.no_grad():
        wanted = model.scores([pixels], session.square_prompts(prompts)).softmax(dim=1).numpy()
    np.testing.assert_allclose(np.stack([answer.probabilities for answer in given]), wanted, atol=1e-6)
    assert network.passes == ("single", "multi") and len(session.predict(prompts=prompts)) == 3
    assert network.card["name"] == "x.pth"


def test_regressor(trained, predict, tmp_path):
    found = trained["regress"]
    item = found.data.entries[0]
    expected = answered(found, 0)
    status, out, err = predict(item.path, "--weights", found.path, "--spacing", item.spacing[0])
    assert (status, err) == (0, "")
    stem = item.path.stem
    (row,) = rows(f"predictions/{stem}_values.csv")
    assert float(row["value"]) == pytest.approx(float(expected.pred_instances.measured[0]), rel=1e-5)
    assert (row["unit"], row["deviation"]) == ("mm", "") and f"{stem}.png: " in out
    (record,) = json.loads((tmp_path / "predictions" / f"{stem}.json").read_text())["images"]
    assert record["value"] == pytest.approx(float(expected.pred_instances.measured[0]), rel=1e-6)
    assert record["unit"] == "mm" and record["deviation"] is None
    # Twice the pixel size is twice the length.
    assert predict(item.path, "--weights", found.path, "--spacing", 2 * item.spacing[0], "--overwrite")[0] == 0
    (other,) = rows(f"predictions/{stem}_values.csv")
    assert float(other["value"]) == pytest.approx(2 * float(row["value"]), rel=1e-4)
    status, _, err = predict(item.path, "--weights", found.path, "--out", "none")
    assert status == 2
    assert "does not say the size of its pixels, which lengths in mm need; give it with --spacing" in err
    assert not (tmp_path / "none").exists()


def test_mask2former(trained, predict, tmp_path):
    found = trained["detect"]
    expected = samples(found)
    paths = [sample.img_path for sample in expected]
    scores = sorted(float(score) for sample in expected for score in sample.pred_instances.scores)
    limit = scores[len(scores) // 2]
    status, _, err = predict(*paths, "--weights", found.path, "--min-score", limit)
    assert (status, err) == (0, "")
    coco = COCO("predictions/predictions.json")
    compared = 0
    for number, sample in enumerate(expected, 1):
        wanted = sample.pred_instances[sample.pred_instances.scores >= limit]
        given = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        assert len(given) == len(wanted)
        for index, annotation in enumerate(given):
            np.testing.assert_array_equal(coco.annToMask(annotation), wanted.masks[index].numpy())
            x, y, width, height = annotation["bbox"]
            assert [x, y, x + width, y + height] == wanted.bboxes[index].tolist()
            assert annotation["score"] == pytest.approx(float(wanted.scores[index]), abs=1e-5)
            name = coco.cats[annotation["category_id"]]["name"]
            assert name == ("benign", "malignant")[int(wanted.labels[index])] and "prompt" not in annotation
            compared += 1
    assert 0 < compared < len(scores)
    # Nothing found is an answer.
    status, out, err = predict(paths[0], "--weights", found.path, "--min-score", 2, "--out", "none")
    assert (status, err) == (0, "") and "no object has a score of 2 or more" in out
    stem = paths[0].rpartition("/")[2].removesuffix(".png")
    assert not np.asarray(Image.open(tmp_path / "none" / f"{stem}_labels.png")).any()


def test_folders_bad_files_and_what_is_there(trained, predict, tmp_path):
    found = trained["classify"]
    (tmp_path / "in" / "deep").mkdir(parents=True)
    first, second = samples(found)[:2]
    shutil.copy(first.img_path, tmp_path / "in" / "a.png")
    shutil.copy(second.img_path, tmp_path / "in" / "deep" / "b.png")
    (tmp_path / "in" / "c.png").write_bytes(b"no image")
    status, out, err = predict("in", "--weights", found.path)
    assert status == 2 and "c.png" in err and "wrote 2 classifications of 2 of 3 scans" in out
    assert [row["file"] for row in rows("predictions/classes.csv")] == ["a.png", "deep/b.png"]
    status, _, err = predict("in", "--weights", found.path)
    assert status == 2 and "exists; give --overwrite" in err


@pytest.mark.parametrize(("task", "arguments", "words"), [
    ("classify", ["--box", "1,2,9,9"], "is a classifier of whole images and takes no prompts; leave out --box"),
    ("regress", ["--prompts", "x.csv"], "is a regressor of whole images and takes no prompts; leave out --prompts"),
    ("detect", ["--point", "3,3"], "is a Mask2Former that finds objects by itself and takes no prompts"),
    ("prompted", [], "give prompts by --box and --point or by --prompts FILE, found neither"),
    ("prompted", ["--box", "1,2,9,9", "--propagate"], "looks at single frames; leave out --propagate"),
    ("classify", ["--min-score", "0.5"], "for which --min-score means nothing"),
    ("detect", ["--crop"], "for which --crop means nothing"),
    ("classify", ["--format", "png,csv"], "gives no masks; --format takes coco .JSON. and csv then, found png"),
    ("classify", ["--frame", "1"], "has the frames 0 to 0, found frame 1"),
])  # fmt: skip
def test_refusals(trained, predict, tmp_path, task, arguments, words):
    found = trained[task]
    image = next(iter(samples(trained["classify"]))).img_path
    status, out, err = predict(image, "--weights", found.path, *arguments)
    assert status == 2 and out == ""
    assert re.search(words, err), err
    assert err.startswith("error: ") and not (tmp_path / "predictions").exists()


def test_the_page_shows_classes(trained):
    from ultrasam.errors import ConfigError
    from ultrasam.io.scan import scan_from_array
    from ultrasam.web import edits, server
    from ultrasam.web.limits import Limits
    from ultrasam.web.study import Study

    found = trained["prompted"]
    found.data.prompt = "box"
    expected = next(sample for sample in samples(found) if len(sample.prompt_instances))
    model = server.load_model(found.path, "cpu")
    engine, limits = server.make_engine(model, 1 << 26), Limits()
    try:
        study = Study("key", scan_from_array(read_image(expected.img_path)), 0, limits)
        study.clip = False
        edit = {"action": "box", "box": expected.prompt_instances.boxes[0].tolist()}
        answer = edits.apply(engine, limits, study, 0, edit)["object"]
        wanted = expected.pred_instances.probabilities[0]
        assert answer["class"]["name"] == ("benign", "malignant")[int(wanted.argmax())]
        assert answer["class"]["probability"] == pytest.approx(float(wanted.max()), abs=2e-5)
        x1, y1, x2, y2 = edit["box"]
        click = {"action": "point", "object": 1, "x": (x1 + x2) / 2, "y": (y1 + y2) / 2}
        assert edits.apply(engine, limits, study, 0, click)["object"]["class"]["probability"] > 0
        json.dumps(edits.state(study, 0))
    finally:
        engine.stop()
    with pytest.raises(ConfigError, match="is a regressor of whole images and answers no click"):
        server.load_model(trained["regress"].path, "cpu")
