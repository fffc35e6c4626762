"""Datasets of measured values: what is read and refused, and how values scale with the image."""

import json
import math

import cv2
import numpy as np
import pytest

from ultrasam.engine.setup import register_all

register_all()

from ultrasam.datasets.values import ValueDataset  # noqa: E402
from ultrasam.datasets.values_scale import value_scale  # noqa: E402
from ultrasam.errors import ConfigError, DataError  # noqa: E402
from ultrasam.geometry.transform import SquareTransform  # noqa: E402
from ultrasam.io.images import read_mask, write_png  # noqa: E402

PIPELINE = [dict(type="LoadPicture"), dict(type="FitSquare", square=16), dict(type="PackValue")]
HC18 = dict(
    ann_file="training_set_pixel_size_and_HC.csv", img_prefix="training_set", file_column="filename",
    value="head circumference (mm)", spacing_column="pixel size(mm)", quantity="length", unit="mm",
    group_pattern=r"^(\d{3})_",
)  # fmt: skip


def table(folder, text, images=("a.png", "b.png")):
    for name in images:
        write_png(folder / name, np.zeros((8, 10, 3), np.uint8))
    (folder / "t.csv").write_text(text)
    return dict(ann_file="t.csv", data_root=str(folder), value="ef")


def test_samples(tmp_path):
    options = table(tmp_path, "file,ef,mm\na.png,55,0.5\nb.png, 60.5 ,0.25\n")
    dataset = ValueDataset(**options, spacing_column="mm", quantity="length", unit="mm", pipeline=PIPELINE)
    sample = dataset[1]["data_samples"]
    assert sample.gt_instances.measured.tolist() == [60.5]
    # 10 columns become 16, a pixel of the original is a quarter of a millimetre.
    assert sample.value_scale == pytest.approx(1.6 / 0.25, rel=0.02)
    assert (sample.quantity, sample.value_unit, sample.spacing) == ("length", "mm", (0.25, 0.25))
    assert [(m.value, m.size) for m in dataset.measured()] == [(55.0, (8, 10)), (60.5, (8, 10))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,ef\na.png,55\nb.png,\n", r"line 3: 'ef' is empty"),
        ("file,ef\na.png,high\n", r"line 2: 'ef' is 'high', a number was expected"),
        ("file,ef\na.png,nan\n", r"line 2: 'ef' is 'nan', a number was expected"),
        ("file,ef\na.png,1\na.png,2\n", r"line 3: a\.png stands in line 2 already"),
        ("file,lvef\na.png,1\n", r"'ef' is needed"),
        ("file,ef\nc.png,1\n", r"c\.png does not exist"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        ValueDataset(**table(tmp_path, text))


def test_pixels_without_a_size(tmp_path):
    with pytest.raises(DataError, match="a pixel of 0 mm was found"):
        ValueDataset(**table(tmp_path, "file,ef,mm\na.png,1,0\n"), spacing_column="mm")


def test_missing_images_can_be_left_out(tmp_path, caplog):
    options = table(tmp_path, "file,ef\na.png,1\nc.png,2\n")
    assert len(ValueDataset(**options, missing="skip")) == 1
    assert "left out 1 of 2 lines, whose images do not exist (first: c.png)" in caplog.text
    with pytest.raises(ConfigError, match="missing must be"):
        ValueDataset(**options, missing="drop")
    with pytest.raises(ConfigError, match="quantity must be one of"):
        ValueDataset(**options, quantity="volume")


def test_coco_records(tmp_path):
    record = {"id": 1, "file_name": "a.png", "width": 10, "height": 8, "ga": 21.5, "spacing_mm": [0.2, 0.2]}
    content = {"images": [record], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "t.json").write_text(json.dumps(content))
    (image,) = ValueDataset("t.json", "ga", data_root=str(tmp_path)).measured()
    assert (image.value, image.spacing, image.size) == (21.5, (0.2, 0.2), (8, 10))
    record["ga"] = "old"
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"a\.png has ga 'old', a number was expected"):
        ValueDataset("t.json", "ga", data_root=str(tmp_path))


def test_scales():
    fit = SquareTransform.fit(540, 800, 1024)
    assert value_scale("plain", fit, (0.1, 0.1), "x") == 1
    assert value_scale("length", fit, (0.1, 0.1), "x") == pytest.approx(12.8, rel=1e-3)
    assert value_scale("length", fit, None, "x") == pytest.approx(1.28, rel=1e-3)
    assert value_scale("area", fit, (0.1, 0.2), "x") == pytest.approx(1.28**2 / 0.02, rel=1e-3)
    squashed = SquareTransform.fit(540, 800, 1024, "squash")
    assert value_scale("area", squashed, None, "x") == pytest.approx(1024**2 / (540 * 800))
    with pytest.raises(ConfigError, match="x: a length has no one scale here"):
        value_scale("length", squashed, (0.1, 0.1), "x")
    with pytest.raises(ConfigError, match="x: a length has no one scale here"):
        value_scale("length", fit, (0.1, 0.2), "x")


@pytest.mark.shared
def test_hc18_circumference_is_that_of_the_drawn_ellipse(shared, caplog):
    """What the network is asked for, in pixels of the square, is the drawn outline's own length after resizing."""
    data = ValueDataset(data_root=str(shared / "data/hc18"), missing="skip", **HC18)
    assert len(data) == 82 and "left out 917 of 999 lines" in caplog.text
    for item in data.measured()[:6]:
        fit = SquareTransform.fit(*item.size, 1024)
        wanted = item.value * value_scale("length", fit, item.spacing, item.name)
        outline = read_mask(item.path.with_name(f"{item.path.stem}_Annotation.png"))
        points = np.argwhere(outline > 0)[:, ::-1].astype(np.float32)
        _, (first, second), _ = cv2.fitEllipse(points)
        a, b = first / 2 * fit.scale[0], second / 2 * fit.scale[1]
        # Ramanujan's approximation of an ellipse's circumference.
        drawn = math.pi * (3 * (a + b) - math.sqrt((3 * a + b) * (a + 3 * b)))
        assert wanted == pytest.approx(drawn, rel=0.01), item.name


@pytest.mark.shared
def test_hc18_parts_keep_a_fetus_together(shared):
    options = dict(data_root=str(shared / "data/hc18"), missing="skip", test_share=0.3, val_share=0.1, **HC18)
    groups = [{item.group for item in ValueDataset(part=part, **options).entries} for part in ("train", "val", "test")]
    assert all(groups) and not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
