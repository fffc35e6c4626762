"""The phantom as data: what is written, that it repeats, and how wrong requests are refused."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from ultrasam.datasets.coco import check_files, read_coco
from ultrasam.datasets.phantom import generate, generate_phantom, main
from ultrasam.datasets.phantom.generate import plan
from ultrasam.datasets.phantom.patients import KINDS, MINIMUM_AREA, draw_picture
from ultrasam.datasets.phantom.store import Parameters
from ultrasam.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")
IMAGES, SEED, SIZE = 45, 3, 128


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "data"
    report = generate_phantom(out, IMAGES, SEED, size=SIZE)
    assert not report.reused
    return out


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def every_image(root: Path) -> list[dict[str, object]]:
    return [
        image
        for split in SPLITS
        for image in json.loads((root / f"{split}.agnostic.json").read_text())["images"]
    ]


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    generate_phantom(tmp_path / "one", 15, 7, size=96, workers=1)
    generate_phantom(tmp_path / "two", 15, 7, size=96, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_seed_gives_other_pictures() -> None:
    a, b = (draw_picture(0, 0, 0, seed, 128) for seed in (1, 2))
    assert a.grey.shape != b.grey.shape or (a.grey != b.grey).any()


def test_pictures_of_a_patient_share_the_anatomy_but_not_the_speckle() -> None:
    for kind in range(len(KINDS)):
        first, second = draw_picture(kind, 0, 0, 5, 128), draw_picture(kind, 0, 1, 5, 128)
        assert first.fov == second.fov
        assert first.image_class == second.image_class
        assert (first.grey != second.grey).mean() > 0.2


def test_all_kinds_of_field_of_view_occur() -> None:
    kinds = {about.slug: draw_picture(index, 0, 0, 0, 96).fov.kind for index, about in enumerate(KINDS)}
    assert kinds["phantom_breast"] == kinds["phantom_vessel"] == "linear"
    assert kinds["phantom_fetal"] == kinds["phantom_ovary"] == "curved"
    assert kinds["phantom_gist"] == "radial"


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_masks_are_large_enough_apart_and_within_the_field_of_view(kind: int) -> None:
    for patient in range(12):
        picture = draw_picture(kind, patient, 0, 11, 256)
        inside = picture.fov.scan_maps()[2]
        assert picture.masks
        covered = np.zeros(inside.shape, int)
        for label, mask in picture.masks:
            assert mask.dtype == np.bool_
            assert 0 <= label < len(KINDS[kind].classes)
            assert mask.sum() >= MINIMUM_AREA
            assert not (mask & ~inside).any()
            covered += mask
        assert covered.max() == 1


def test_most_objects_stand_out_from_their_surroundings() -> None:
    contrasts = []
    for kind in range(len(KINDS)):
        for patient in range(8):
            picture = draw_picture(kind, patient, 0, 2, 256)
            inside = picture.fov.scan_maps()[2]
            for _, mask in picture.masks:
                ring = cv2.dilate(mask.astype(np.uint8), np.ones((13, 13), np.uint8)).astype(bool)
                around = picture.grey[ring & ~mask & inside].astype(float)
                contrasts.append(abs(picture.grey[mask].mean() - around.mean()) / around.std())
    assert np.mean(np.array(contrasts) > 0.3) > 0.8


def test_sizes_vary_within_the_promised_range(root: Path) -> None:
    sizes = {(image["height"], image["width"]) for image in every_image(root)}
    assert len(sizes) > 8
    for height, width in sizes:
        assert 220 * SIZE / 256 - 1 <= height <= 340 * SIZE / 256 + 1
        assert 260 * SIZE / 256 - 1 <= width <= 420 * SIZE / 256 + 1


def test_groups_do_not_cross_splits(root: Path) -> None:
    splits = defaultdict(set)
    for image in every_image(root):
        splits[image["group"]].add(image["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert len(splits) == 15


@pytest.mark.parametrize("images", [15, 29, 30, 47, 300, 301])
def test_plan_has_all_images_and_every_split_of_every_dataset(images: int) -> None:
    tasks = plan(Parameters(images, 0, 256))
    assert len(tasks) == len({task.file_name for task in tasks}) == images
    assert {(task.kind, task.split) for task in tasks} == {(k, s) for k in range(len(KINDS)) for s in SPLITS}
    groups = Counter((task.kind, task.patient) for task in tasks)
    assert max(groups.values()) <= 4
    assert min(groups.values()) >= (2 if images >= 30 else 1)


def test_splits_are_about_70_10_20_by_patient() -> None:
    patients = {(task.kind, task.patient): task.split for task in plan(Parameters(1500, 0, 256))}
    counts = Counter(patients.values())
    assert counts["test"] / len(patients) == pytest.approx(0.2, abs=0.005)
    assert counts["val"] / len(patients) == pytest.approx(0.1, abs=0.005)


def test_annotation_files_are_sound_for_pycocotools(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    total = 0
    for about in KINDS:
        for split in SPLITS:
            base = root / about.slug / "annotations" / f"{split}.{about.slug}"
            named, agnostic = COCO(f"{base}.json"), COCO(f"{base}.agnostic.json")
            assert [c["name"] for c in named.dataset["categories"]] == list(about.classes)
            assert [c["name"] for c in agnostic.dataset["categories"]] == ["object"]
            assert sorted(named.imgs) == list(range(1, len(named.imgs) + 1))
            assert sorted(named.anns) == sorted(agnostic.anns) == list(range(1, len(named.anns) + 1))
            for image in named.dataset["images"]:
                assert image["application"] == about.application
                picture = cv2.imread(str(root / image["file_name"]), cv2.IMREAD_UNCHANGED)
                assert picture.shape[:2] == (image["height"], image["width"])
            for number, item in named.anns.items():
                mask = named.annToMask(item)
                rows, columns = np.nonzero(mask)
                x, y, width, height = item["bbox"]
                assert (x, y) == (columns.min(), rows.min())
                assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
                assert item["area"] == mask.sum() >= MINIMUM_AREA
                assert item["segmentation"] == agnostic.anns[number]["segmentation"]
            total += len(named.imgs)
    assert total == IMAGES


def test_merged_files_hold_the_images_of_all_datasets(root: Path) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    seen = Counter()
    for split in SPLITS:
        collection = read_coco(root / f"{split}.agnostic.json", root)
        assert not check_files(collection)
        assert not collection.dropped
        assert {image.dataset for image in collection.images} == {about.slug for about in KINDS}
        seen["images"] += len(collection.images)
        seen["objects"] += sum(len(image.objects) for image in collection.images)
        assert len(collection.images) == manifest["counts"]["images_by_split"][split]
    assert seen == {"images": IMAGES, "objects": manifest["counts"]["objects"]}


def test_the_same_phantom_is_reused_untouched(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(root)
    stamp = (root / "manifest.json").stat().st_mtime_ns
    arguments = [str(root), "--images", str(IMAGES), "--seed", str(SEED), "--size", str(SIZE)]
    assert main(arguments) == 0
    assert "reused" in capsys.readouterr().out
    assert contents(root) == before
    assert (root / "manifest.json").stat().st_mtime_ns == stamp


def test_command_writes_into_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new").mkdir()
    assert main([str(tmp_path / "new"), "--images", "15", "--size", "96", "--workers", "1"]) == 0
    assert "phantom of 15 images" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert (tmp_path / "new").stat().st_mode & 0o055


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"images": 14}, "images"),
        ({"images": 20.0}, "images"),
        ({"images": True}, "images"),
        ({"seed": -1}, "seed"),
        ({"size": 20}, "size"),
        ({"workers": 0}, "workers"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    values: dict[str, object] = {"images": 15, "seed": 0, "size": 96, "workers": 1, **changes}
    with pytest.raises(ConfigError, match=f"{named} must be a whole number from"):
        generate_phantom(tmp_path / "out", **values)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_folder_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("a file")
    for name, message in (("mine", "is not empty and is not a phantom"), ("file", "is a file")):
        assert main([str(tmp_path / name), "--images", "15"]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 2


def test_phantom_of_other_parameters_or_damaged_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    generate_phantom(out, 15, 0, size=96)
    with pytest.raises(DataError, match=r"'seed': 0.*asked for.*'seed': 1"):
        generate_phantom(out, 15, 1, size=96)
    next((out / "phantom_gist" / "images").iterdir()).unlink()
    with pytest.raises(DataError, match="phantom_gist is missing or changed"):
        generate_phantom(out, 15, 0, size=96)
    (out / "train.agnostic.json").write_text("{}")
    with pytest.raises(DataError, match=r"train\.agnostic\.json is missing or changed|train\.agnostic"):
        generate_phantom(out, 15, 0, size=96)


def test_nothing_is_left_when_a_picture_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def full_disk(path: Path, array: object) -> None:
        written.append(path)
        if len(written) == 4:
            raise DataError(f"{path} cannot be written (no space left); free some space")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture")

    monkeypatch.setattr(generate, "write_png", full_disk)
    with pytest.raises(DataError, match="no space left"):
        generate_phantom(tmp_path / "out", 15, 0, size=96)
    assert len(written) == 4
    assert not list(tmp_path.iterdir())


def test_missing_output_folder_is_an_error_of_the_command_line() -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2


def test_pictures_that_hold_no_object_are_an_error_that_names_the_size() -> None:
    with pytest.raises(DataError, match="size 12 hold no object of 60 pixels; give a larger --size"):
        draw_picture(4, 0, 0, 0, 12)
