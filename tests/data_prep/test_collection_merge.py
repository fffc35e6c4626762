"""Merging converted sets: every image once, on one side, with all its objects, and nothing lost."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from collection_sets import Frame, checksums, info, load, names_in, write_converted
from pycocotools import mask as coco_mask

from data_prep.collection import publish
from data_prep.collection.merge import merge
from data_prep.collection.sets import converted_slugs
from ultrasam.datasets.coco import read_coco, write_coco
from ultrasam.datasets.composition import exclude, joined_groups
from ultrasam.errors import DataError

FAMILIES = ("breast", "ovarian", "gastrointestinal")
INFOS = {
    "alpha": info("alpha", "breast lesions", "breast"),
    "beta": info("beta", "other", "abdomen"),
    "gamma": info("gamma", "ovarian", "ovary"),
}


def alpha() -> list[Frame]:
    """30 patients, the last 10 on the test side; a1 has two images and one object of each category."""
    frames = [Frame(f"a{n:02d}", f"p{n}", "test" if n >= 20 else "train", n, "benign" if n % 2 else "malignant")
              for n in range(30)]
    frames[1] = Frame("a01", "p1", "train", 1, "benign", ("lesion", "cyst", "lesion"))
    frames.append(Frame("a01b", "p1", "val", 101, "malignant", ()))
    return frames


def beta() -> list[Frame]:
    """b0 shows what the test image a25 shows, in another size; b1 what the training image a03 shows."""
    frames = [Frame(f"b{n}", f"q{n}", "train", 200 + n) for n in range(12)]
    frames[0] = Frame("b0", "q0", "train", 25, size=(96, 128))
    frames[1] = Frame("b1", "q1", "train", 3, size=(32, 40))
    # Another frame of the video that b0 is of.
    frames.append(Frame("b0_next", "q0", "val", 250))
    return frames


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Three converted sets; tests work on copies."""
    folder = tmp_path_factory.mktemp("converted")
    write_converted(folder, "alpha", alpha(), ("lesion", "cyst"), choices={"validation_fraction": 0.2, "seed": 3})
    write_converted(folder, "beta", beta())
    write_converted(folder, "gamma", [Frame(f"g{n}", f"r{n}", "train", 300 + n) for n in range(20)])
    return folder


@pytest.fixture
def root(converted, tmp_path):
    return shutil.copytree(converted, tmp_path / "root")


def test_every_image_is_on_one_side_with_its_objects(root):
    before = {slug: all_objects(root, slug) for slug in INFOS}
    merge(root, infos=INFOS, workers=1)
    assert {slug: all_objects(root, slug) for slug in INFOS} == before
    assert names_in(root, "alpha/annotations/test.alpha.json") == {f"alpha/a{n}" for n in range(20, 30)}
    assert names_in(root, "beta/annotations/excluded.beta.json") == {"beta/b0", "beta/b0_next"}
    sides = {side: names_in(root, f"{side}.agnostic.json") for side in ("train", "val", "test")}
    assert sides["test"] == names_in(root, "alpha/annotations/test.alpha.json")
    everything = [name for names in sides.values() for name in names]
    assert Counter(everything) == Counter({f"{slug}/{frame.key}": 1 for slug, frames in
                                           (("alpha", alpha()), ("beta", beta()[1:-1])) for frame in frames}
                                          | {f"gamma/g{n}": 1 for n in range(20)})
    # One patient, and the same picture in two sets, are on one side.
    for pair in ({"alpha/a01", "alpha/a01b"}, {"alpha/a03", "beta/b1"}):
        assert sum(pair <= names for names in sides.values()) == 1
    # A fifth of 21 images of alpha, and 5 % of the others.
    counts = {slug: sum(name.startswith(slug) for name in sides["val"]) for slug in INFOS}
    assert 5 <= counts["alpha"] <= 6
    assert counts["gamma"] == 1
    assert 1 <= counts["beta"] <= 2


def all_objects(root, slug) -> dict[str, list]:
    """Category and mask of the objects of every image, over all files of a set."""
    found = {}
    for path in sorted((root / slug / "annotations").glob(f"*.{slug}.json")):
        document = json.loads(path.read_text())
        names = {item["id"]: item["name"] for item in document["categories"]}
        for image in document["images"]:
            assert image["file_name"] not in found
            assert image["split"] == path.name.split(".")[0]
            found[image["file_name"]] = [(names[item["category_id"]], item["segmentation"]["counts"], item["area"])
                                         for item in document["annotations"] if item["image_id"] == image["id"]]
    return found


def test_twins_agree_and_ids_count_from_one(root):
    merge(root, infos=INFOS, workers=1)
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.json") if path.name != "manifest.json"
                   and not path.name.startswith("excluded"))
    assert len(files) > 20
    for name in files:
        document = load(root, name)
        assert [image["id"] for image in document["images"]] == list(range(1, len(document["images"]) + 1))
        assert [item["id"] for item in document["annotations"]] == list(range(1, len(document["annotations"]) + 1))
        # Grouped by image, so that order tells nothing new.
        owners = [item["image_id"] for item in document["annotations"]]
        assert owners == sorted(owners)
        if ".agnostic." in name or "/" not in name:
            assert document["categories"] == [{"id": 1, "name": "object"}]
            assert {item["category_id"] for item in document["annotations"]} <= {1}
    for slug in INFOS:
        for side in ("train", "val", "test"):
            if not (root / f"{slug}/annotations/{side}.{slug}.json").exists():
                assert not (root / f"{slug}/annotations/{side}.{slug}.agnostic.json").exists()
                continue
            named = load(root, f"{slug}/annotations/{side}.{slug}.json")
            twin = load(root, f"{slug}/annotations/{side}.{slug}.agnostic.json")
            assert named["images"] == twin["images"]
            assert [{**item, "category_id": 1} for item in named["annotations"]] == twin["annotations"]


def test_merged_annotations_say_where_they_are_from(root):
    merge(root, infos=INFOS, workers=1)
    document = load(root, "train.agnostic.json")
    images = {image["id"]: image for image in document["images"]}
    for item in document["annotations"]:
        image = images[item["image_id"]]
        assert (item["dataset"], item["group"]) == (image["dataset"], image["group"])
        assert image["split"] == "train"
    # An image without objects is there too.
    where = next(split for split in ("train", "val") if "alpha/a01" in names_in(root, f"{split}.agnostic.json"))
    document = load(root, f"{where}.agnostic.json")
    number = next(image["id"] for image in document["images"] if image["file_name"] == "alpha/images/a01.png")
    mine = [item for item in document["annotations"] if item["image_id"] == number]
    assert [item["class_name"] for item in mine] == ["lesion", "cyst", "lesion"]
    truth = np.zeros((48, 64), bool)
    truth[5:12, 5:21] = True
    np.testing.assert_array_equal(coco_mask.decode(mine[1]["segmentation"]).astype(bool), truth)
    collection = read_coco(root / "val.agnostic.json", root)
    assert sum(len(image.objects) for image in collection.images) == len(load(root, "val.agnostic.json")["annotations"])


def test_files_have_the_form_that_write_coco_gives_them(root, tmp_path):
    merge(root, infos=INFOS, workers=1)
    for name in ("train.agnostic.json", "val.agnostic.json", "alpha/annotations/test.alpha.json",
                 "beta/annotations/excluded.beta.json", "gamma/annotations/train.gamma.agnostic.json"):
        write_coco(tmp_path / "again.json", load(root, name))
        assert (tmp_path / "again.json").read_bytes() == (root / name).read_bytes()


def test_a_second_run_gives_the_same_bytes_and_so_does_another_order(root, tmp_path):
    merge(root, infos=INFOS, workers=1)
    first = checksums(root)
    merge(root, infos=INFOS, workers=2)
    assert checksums(root) == first
    other = tmp_path / "other"
    write_converted(other, "gamma", [Frame(f"g{n}", f"r{n}", "val", 300 + n) for n in range(20)])
    write_converted(other, "beta", beta()[::-1])
    write_converted(other, "alpha", alpha(), ("lesion", "cyst"), choices={"validation_fraction": 0.2, "seed": 3})
    merge(other, infos=INFOS, workers=1)
    assert checksums(other) == first


def test_a_set_without_duplicates_keeps_its_files(tmp_path):
    frames = [Frame(f"g{n:02d}", f"r{n}", "train", 300 + n) for n in range(20)]
    write_converted(tmp_path, "gamma", frames)
    merge(tmp_path, infos=INFOS, workers=1)
    val = names_in(tmp_path, "gamma/annotations/val.gamma.json")
    before = [Frame(frame.key, frame.patient, "val" if f"gamma/{frame.key}" in val else "train", frame.picture)
              for frame in frames]
    other = tmp_path / "other"
    write_converted(other, "gamma", before)
    files = {name: value for name, value in checksums(other).items() if "manifest" not in name}
    merge(other, infos=INFOS, workers=1)
    after = checksums(other)
    assert {name: after[name] for name in files} == files


def test_nothing_is_lost_when_a_set_goes_away(root):
    manifest = merge(root, infos=INFOS, workers=1)
    assert manifest["sets"]["beta"]["splits"]["excluded"] == {"images": 2, "masks": 2, "groups": 1}
    assert load(root, "beta/manifest.json")["excluded"]["images"] == 2
    manifest = merge(root, ["beta", "gamma"], infos=INFOS, workers=1)
    assert manifest["not_taken"] == {"alpha": "not asked for"}
    assert manifest["excluded"] == []
    names = names_in(root, "train.agnostic.json") | names_in(root, "val.agnostic.json")
    assert {"beta/b0", "beta/b0_next"} <= names
    assert not any(name.startswith("alpha") for name in names)
    # No test image is left: the files of the earlier collection that have no successor are gone.
    assert not (root / "test.agnostic.json").exists()
    assert not (root / "beta/annotations/excluded.beta.json").exists()
    assert "excluded" not in load(root, "beta/manifest.json")


def test_a_family_is_left_out_with_all_that_shows_the_same(root):
    manifest = merge(root, infos=INFOS, workers=1)
    train = names_in(root, "train.agnostic.json")
    breast = {name for name in train if name.startswith("alpha")}
    # b1 is a picture of alpha's a03.
    concerned = breast | ({"beta/b1"} & train)
    assert names_in(root, "train.without_breast.json") == train - concerned
    assert names_in(root, "train.breast_00.json") == train - concerned
    assert names_in(root, "train.without_ovarian.json") == {name for name in train if not name.startswith("gamma")}
    assert names_in(root, "train.without_gastrointestinal.json") == train
    val = names_in(root, "val.agnostic.json")
    assert names_in(root, "val.without_ovarian.json") == {name for name in val if not name.startswith("gamma")}
    parts = [names_in(root, f"train.breast_{percentage}.json") for percentage in ("00", "10", "30", "50", "100")]
    for smaller, larger in pairwise(parts):
        assert smaller <= larger
        assert larger - concerned == train - concerned
    for percentage, part in zip((10, 30, 50), parts[1:4], strict=True):
        assert percentage / 100 * len(breast) - 2 < len(part & breast) <= percentage / 100 * len(breast)
    assert parts[-1] == train
    listed = Counter({slug: count for slug, count in
                      manifest["files"]["train.without_breast.json"]["left_out_images"].items()})
    assert listed == Counter(name.split("/")[0] for name in concerned)
    assert manifest["files"]["train.agnostic.json"]["left_out_images"] == {}
    # Equal files share their room on the disk.
    assert (root / "train.breast_100.json").samefile(root / "train.agnostic.json")


def test_sets_outside_the_catalogue_are_described_by_their_records(root):
    path = root / "beta/annotations/train.beta.json"
    document = load(root, "beta/annotations/train.beta.json")
    for image in document["images"]:
        image["application"] = "breast lesions"
    write_coco(path, document)
    manifest = merge(root, infos={}, workers=1)
    assert manifest["sets"]["beta"]["family"] == "breast"
    assert manifest["sets"]["alpha"]["family"] is None
    assert manifest["applications"]["other"]["sets"] == ["alpha", "gamma"]


def test_lists_for_classification(root):
    merge(root, infos=INFOS, workers=1)
    folder = root / "alpha/classification"
    assert (folder / "classes.txt").read_text() == "benign\nmalignant\n"
    labels = {frame.key: frame.label for frame in alpha()}
    for side in ("train", "val", "test"):
        lines = [line.split(" ") for line in (folder / f"{side}.txt").read_text().splitlines()]
        assert {name.replace("/images/", "/").removesuffix(".png") for name, _ in lines} == \
            names_in(root, f"alpha/annotations/{side}.alpha.json")
        assert all((root / name).is_file() for name, _ in lines)
        assert all(labels[name.split("/")[-1].removesuffix(".png")] == ("benign", "malignant")[int(number)]
                   for name, number in lines)
    # Sets without classes have no lists, and none of an earlier run.
    assert not (root / "beta/classification").exists()
    stale = root / "gamma/classification/val.txt"
    stale.parent.mkdir()
    stale.write_text("gamma/images/g0.png 0\n")
    merge(root, infos=INFOS, workers=1)
    assert not stale.exists()


def test_class_numbers_follow_the_categories_whether_or_not_all_occur(tmp_path):
    frames = [Frame(f"k{n}", f"p{n}", "train", n, label, ("teratoma",))
              for n, label in enumerate(["teratoma", "normal", "teratoma", "abscess"])]
    write_converted(tmp_path, "kinds", frames, ("zyst", "teratoma"))
    merge(tmp_path, infos={}, workers=1)
    assert (tmp_path / "kinds/classification/classes.txt").read_text() == "zyst\nteratoma\nabscess\nnormal\n"


def test_manifest_counts_and_checksums(root):
    manifest = merge(root, infos=INFOS, workers=1)
    assert manifest == load(root, "manifest.json")
    files = checksums(root)
    for name, entry in manifest["files"].items():
        document = load(root, name)
        assert entry["sha256"] == files[name]
        assert (entry["images"], entry["masks"]) == (len(document["images"]), len(document["annotations"]))
    merged = {path.name for path in root.glob("*.json")} - {"manifest.json"}
    assert set(manifest["files"]) == merged
    for slug, entry in manifest["sets"].items():
        own = load(root, f"{slug}/manifest.json")
        assert own["annotations_sha256"] == entry["annotations_sha256"]
        for name, checksum in own["annotations_sha256"].items():
            assert files[f"{slug}/annotations/{name}"] == checksum
        for side in ("train", "val", "test"):
            assert own["splits"][side]["images"] == len(names_in(root, f"{slug}/annotations/{side}.{slug}.json"))
            assert {key: own["splits"][side][key] for key in entry["splits"][side]} == entry["splits"][side]
    splits = load(root, "alpha/manifest.json")["splits"]
    assert sum((Counter(part["by_category"]) for part in splits.values()), Counter()) == {"lesion": 31, "cyst": 1}
    assert manifest["totals"]["test"] == {"images": 10, "masks": 10}
    assert manifest["applications"]["ovarian"]["train"]["images"] == 19
    near = manifest["near_duplicates"]
    assert near["joined_groups"] == [["alpha/p25", "beta/q0"], ["alpha/p3", "beta/q1"]]
    assert (near["pairs"], near["pairs_by_sets"]) == (2, {"alpha + beta": 2})
    (excluded,) = manifest["excluded"]
    assert (excluded["images"], excluded["groups"], excluded["test_groups"]) == (2, ["beta/q0"], ["alpha/p25"])


def test_hashes_alone_can_be_believed(root):
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        merge(root, infos=INFOS, workers=1)
    manifest = merge(root, infos=INFOS, confirm=False)
    assert manifest["near_duplicates"]["confirmed_by_opening"] is False
    assert ["alpha/p25", "beta/q0"] in manifest["near_duplicates"]["joined_groups"]


def test_one_of_two_sets_of_the_same_images_is_taken(root):
    write_converted(root, "beta_again", beta())
    infos = {**INFOS, "beta_again": info("beta_again", "other", alias_of="beta")}
    manifest = merge(root, infos=infos, workers=1)
    assert list(manifest["sets"]) == ["alpha", "beta", "gamma"]
    assert manifest["not_taken"] == {"beta_again": "it has the images of beta, which is taken"}
    manifest = merge(root, ["alpha", "beta_again"], infos=infos, workers=1)
    assert list(manifest["sets"]) == ["alpha", "beta_again"]


class Killed(BaseException):
    pass


def test_a_run_killed_while_writing_leaves_everything_as_it_was(root, monkeypatch):
    before = checksums(root)
    monkeypatch.setattr(publish.Publication, "publish", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        merge(root, infos=INFOS, workers=1)
    assert checksums(root) == before


@pytest.mark.parametrize("moves", [1, 7, 20])
def test_a_run_killed_while_moving_is_finished_by_the_next(root, converted, tmp_path, monkeypatch, moves):
    whole = shutil.copytree(converted, tmp_path / "whole")
    merge(whole, infos=INFOS, workers=1)
    truth = checksums(whole)

    real, done = type(root).replace, []

    def stop(self, target):
        if publish.WORK in self.parts and "new" in self.parts:
            if len(done) == moves:
                raise Killed
            done.append(self)
        return real(self, target)

    monkeypatch.setattr(type(root), "replace", stop)
    with pytest.raises(Killed):
        merge(root, infos=INFOS, workers=1)
    monkeypatch.undo()
    assert (root / publish.WORK / "new").is_dir()
    with publish.publication(root):
        pass
    assert checksums(root) == truth


def test_files_of_a_killed_run_are_not_moved_over_a_set_converted_since(root, monkeypatch):
    monkeypatch.setattr(publish.Publication, "_move", lambda *_, **__: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        merge(root, infos=INFOS, workers=1)
    monkeypatch.undo()
    write_converted(root, "beta", [Frame("other", "q9", "train", 77)], name="new")
    with publish.publication(root):
        pass
    assert names_in(root, "beta/annotations/train.beta.json") == {"beta/other"}
    assert not (root / "beta/annotations/excluded.beta.json").exists()
    assert names_in(root, "alpha/annotations/val.alpha.json") != {"alpha/a01b"}


def test_a_set_converted_during_the_run_stops_it(root, monkeypatch):
    real = publish.Publication.publish

    def late(self, obsolete, read):
        write_converted(root, "beta", [Frame("other", "q9", "train", 77)], name="new")
        before.update(checksums(root))
        real(self, obsolete, read)

    before: dict[str, str] = {}
    monkeypatch.setattr(publish.Publication, "publish", late)
    with pytest.raises(DataError, match="beta was converted again while the collection was made"):
        merge(root, infos=INFOS, workers=1)
    after = checksums(root)
    assert after == {name: value for name, value in before.items() if not name.startswith(publish.WORK)}


def test_two_runs_at_a_time_are_refused(root):
    with publish.publication(root), pytest.raises(DataError, match="another run of prepare is working"):
        merge(root, infos=INFOS, workers=1)


def _drop(key):
    def spoil(root):
        path = root / "beta/annotations/train.beta.json"
        document = load(root, "beta/annotations/train.beta.json")
        del document["images"][0][key]
        path.write_text(json.dumps(document))
    return spoil


def _edit(change):
    def spoil(root):
        path = root / "beta/annotations/train.beta.json"
        document = load(root, "beta/annotations/train.beta.json")
        change(document)
        path.write_text(json.dumps(document))
    return spoil


def _copy_to_val(root):
    document = load(root, "beta/annotations/train.beta.json")
    (root / "beta/annotations/val.beta.json").write_text(json.dumps(document))


def _no_files(root):
    for path in (root / "beta/annotations").iterdir():
        path.unlink()


@pytest.mark.parametrize(("spoil", "words"), [
    (_drop("phash"), "the keys ['phash'] are missing"),
    (_drop("group"), "the keys ['group'] are missing"),
    (_edit(lambda d: d["images"][0].update(phash="12")), "16 hexadecimal digits was expected, found '12'"),
    (_edit(lambda d: d["images"][0].update(file_name="x/1.png")), "names below beta/ were expected, found 'x/1.png'"),
    (_edit(lambda d: d["annotations"][0].update(image_id=99)), "image_id 99 is not among the 12 images"),
    (_edit(lambda d: d["categories"][0].update(id=3)), "category ids 1, 2, ... were expected, found [3]"),
    (_edit(lambda d: d["categories"][0].update(name="x")), "the categories ['x'] of the set's other files"),
    (_copy_to_val, "every image on one side was expected, found beta/images/b0.png twice"),
    (_no_files, "with an image was expected, found none"),
    (lambda root: (root / "beta/annotations/train.beta.json").write_text("{"), "is not valid JSON"),
    (lambda root: (root / "beta/manifest.json").write_text("{"), "the manifest of a converted set was expected"),
    (lambda root: (root / "manifest.json").write_text("{"), "the manifest of a collection was expected"),
])
def test_damaged_sets_are_named_and_nothing_is_written(root, spoil, words):
    spoil(root)
    before = checksums(root)
    with pytest.raises(DataError) as caught:
        merge(root, infos=INFOS, workers=1)
    assert words in str(caught.value)
    assert str(root) in str(caught.value) or "beta/images" in str(caught.value)
    assert checksums(root) == before


def test_nothing_to_merge_is_said(tmp_path):
    with pytest.raises(DataError, match="at least one converted set was expected, found none; convert"):
        merge(tmp_path, infos=INFOS)
    with pytest.raises(DataError, match="found nothing there"):
        merge(tmp_path / "absent", infos=INFOS)
    assert list(tmp_path.iterdir()) == []
    write_converted(tmp_path, "beta", beta())
    with pytest.raises(DataError, match="found none of those asked for"):
        merge(tmp_path, ["alpha"], infos=INFOS)


def test_only_converted_sets_are_taken_for_sets(root):
    (root / "notes").mkdir()
    (root / ".hidden").mkdir()
    (root / ".hidden/manifest.json").write_text("{}")
    assert converted_slugs(root) == ["alpha", "beta", "gamma"]


def test_leaving_out_at_training_time_gives_the_lists_of_the_collection(root):
    """The datasets of training leave an application out by themselves; the lists made here are the check of it."""
    merge(root, infos=INFOS, workers=1)
    joined = joined_groups(root)
    assert any({"alpha/p3", "beta/q1"} <= set(groups) for groups in joined)
    for side in ("train", "val"):
        document = load(root, f"{side}.agnostic.json")
        for image in document["images"]:
            # Written by the conversion of a real set.
            image["application"] = INFOS[image["dataset"]].application
        write_coco(root / f"{side}.named.json", document)
        images = read_coco(root / f"{side}.named.json", root).images
        for family in ("breast", "ovarian"):
            kept, left_out = exclude(images, [family], joined)
            names = {image.file_name.replace("/images/", "/").removesuffix(".png") for image in kept}
            assert names == names_in(root, f"{side}.without_{family}.json")
            lost = sum(left_out.sets.values()) + sum(left_out.duplicates.values())
            assert lost == len(images) - len(kept)
            assert set(left_out.sets) == {"alpha" if family == "breast" else "gamma"}
