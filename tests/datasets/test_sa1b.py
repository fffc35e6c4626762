"""SA-1B in folders and in tar shards: the same images, drawn objects, and refusals."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from ultrasam.datasets.sa1b import Sa1bDataset, open_index
from ultrasam.datasets.transforms import LoadUltrasound
from ultrasam.errors import ConfigError, DataError

HEIGHT, WIDTH = 40, 60


def files(number, objects=5):
    """A picture and its annotations as Meta writes them, and the masks."""
    rng = np.random.default_rng(number)
    masks = np.zeros((objects, HEIGHT, WIDTH), bool)
    for row, (y, x) in enumerate(rng.integers(0, 20, (objects, 2))):
        masks[row, y : y + 6 + row, x : x + 5] = True
    annotations = []
    for row, mask in enumerate(masks):
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        annotations.append(
            {"id": 1000 + row, "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()},
             "area": int(mask.sum()), "bbox": [0, 0, 1, 1], "predicted_iou": 0.9, "stability_score": 0.9,
             "crop_box": [0, 0, WIDTH, HEIGHT], "point_coords": [[1.0, 1.0]]}
        )  # fmt: skip
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(buffer, "JPEG")
    image = {"image_id": number, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{number}.jpg"}
    text = json.dumps({"image": image, "annotations": annotations}).encode()
    return {f"sa_{number}.jpg": buffer.getvalue(), f"sa_{number}.json": text}, masks


def write_folder(root, content):
    root.mkdir(exist_ok=True)
    for name, data in content.items():
        (root / name).write_bytes(data)


def write_shard(path, content, prefix="./"):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def both(tmp_path):
    contents = [files(number)[0] for number in (7, 3, 100)]
    write_folder(tmp_path / "folder", {name: data for content in contents for name, data in content.items()})
    write_shard(tmp_path / "shards" / "sa_000000.tar", {**contents[0], **contents[1]})
    write_shard(tmp_path / "shards" / "sa_000001.tar", contents[2], prefix="")
    return tmp_path


def test_folder_and_shards_hold_the_same(both):
    folder, shards = Sa1bDataset(str(both / "folder")), Sa1bDataset(str(both / "shards"))
    assert len(folder) == len(shards) == 3
    for row, number in enumerate((3, 7, 100)):
        one, two = folder.get_data_info(row), shards.get_data_info(row)
        assert one["img_id"] == two["img_id"] == number
        assert np.array_equal(one["img"], two["img"])
        loaded = LoadUltrasound().transform(two)
        assert loaded["img"].shape == (HEIGHT, WIDTH, 3)
        assert np.array_equal(loaded["masks"], files(number)[1])
        for mask, box in zip(loaded["masks"], loaded["boxes"], strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_training_draws_objects_and_tests_take_the_first(both):
    training = Sa1bDataset(str(both / "folder"), max_objects=2)
    np.random.seed(0)
    drawn = [tuple(one.area for one in training.get_data_info(0)["objects"]) for _ in range(20)]
    assert all(len(areas) == 2 for areas in drawn) and len(set(drawn)) > 3
    testing = Sa1bDataset(str(both / "folder"), max_objects=2, test_mode=True, prompt="box")
    areas = files(3)[1].sum((1, 2)).tolist()
    assert [one.area for one in testing.get_data_info(0)["objects"]] == areas[:2]
    large = Sa1bDataset(str(both / "folder"), min_area=areas[3], test_mode=True)
    assert [one.area for one in large.get_data_info(0)["objects"]] == areas[3:]


def test_the_index_is_kept_and_made_again_for_other_shards(both, caplog):
    kept = both / "index.npz"
    first = open_index(both / "shards", kept)
    (both / "shards" / "sa_000001.tar").touch()
    stamp = (both / "shards" / "sa_000001.tar").stat()
    again = open_index(both / "shards", kept)
    assert again.names.tolist() == first.names.tolist() and np.array_equal(again.places, first.places)
    # With an unchanged stamp no shard is opened, not even a damaged one of the same size and date.
    import os

    (both / "shards" / "sa_000001.tar").write_bytes(b"\0" * stamp.st_size)
    os.utime(both / "shards" / "sa_000001.tar", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert len(open_index(both / "shards", kept).names) == 3
    kept.write_bytes(b"nothing")
    with pytest.raises(DataError, match="no index of SA-1B"):
        open_index(both / "shards", kept)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("sa_3.json"), r"sa_3\.json is missing beside sa_3\.jpg"),
        (lambda c: c.pop("sa_3.jpg"), r"sa_3\.jpg is missing"),
        (lambda c: c.clear(), "found none"),
        (lambda c: c.update({"sa_3.jpg": c["sa_3.jpg"][:300]}), "is damaged"),
        (lambda c: c.update({"sa_3.json": b"{}"}), "'image' and 'annotations' were expected"),
        (lambda c: c.update({"sa_3.json": c["sa_3.json"].replace(b'"width": 60', b'"width": 61')}), "40 x 61"),
    ],
)
def test_damage_is_named(tmp_path, change, words):
    content = files(3)[0]
    change(content)
    write_folder(tmp_path / "x", content)
    with pytest.raises(DataError, match=words):
        Sa1bDataset(str(tmp_path / "x")).get_data_info(0)


def test_a_shard_that_is_no_tar_file_and_wrong_values(tmp_path):
    write_folder(tmp_path / "x", {"sa_000000.tar": b"<html>" * 200})
    with pytest.raises(DataError, match="no whole tar file"):
        Sa1bDataset(str(tmp_path / "x"))
    with pytest.raises(DataError, match="is no folder"):
        Sa1bDataset(str(tmp_path / "y"))
    with pytest.raises(ConfigError, match="max_objects"):
        Sa1bDataset(str(tmp_path), max_objects=0)
    with pytest.raises(ConfigError, match="prompt"):
        Sa1bDataset(str(tmp_path), prompt="click")
