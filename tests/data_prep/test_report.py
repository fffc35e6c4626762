"""The report on miniatures: numbers counted by hand, and a page that needs nothing but itself."""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from data_prep.catalogue import catalogue
from data_prep.cli import main
from data_prep.report.command import add_parser
from data_prep.report.figure import figure2_rows
from data_prep.report.paper import APPLICATIONS, MASKS_IN_TEXT, masks_by_application
from data_prep.report.summary import summarize
from ultrasam.errors import DataError
from ultrasam.geometry.rle import encode_mask

VOID = {"meta", "img", "br"}


def report(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    options = parser.parse_args(["report", *map(str, arguments)])
    return options.run(options) or 0


def write_set(root: Path, slug: str, sides: dict[str, list[dict]], **more: object) -> None:
    """Write a converted set by hand; an image is {name, size, group, masks: [(category, mask)]}."""
    splits: dict[str, dict] = {}
    names = sorted({name for images in sides.values() for image in images for name, _ in image["masks"]}) or ["x"]
    for split, images in sides.items():
        records, annotations = [], []
        for number, image in enumerate(images, start=1):
            height, width = image.get("size", (40, 60))
            path = root / slug / "images" / f"{image['name']}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((height, width), 90, np.uint8)).save(path)
            records.append({"id": number, "file_name": f"{slug}/images/{path.name}", "width": width,
                            "height": height, "dataset": slug, "group": f"{slug}/{image['group']}", "split": split})
            for name, mask in image["masks"]:
                annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, "bbox": [0, 0, 1, 1],
                                    "category_id": names.index(name) + 1, "area": int(mask.sum()),
                                    "segmentation": encode_mask(mask)})
        categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
        folder = root / slug / "annotations"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{split}.{slug}.json").write_text(
            json.dumps({"images": records, "annotations": annotations, "categories": categories}))
        splits[split] = {"images": len(records), "masks": len(annotations),
                         "groups": len({image["group"] for image in images}),
                         "by_category": Counter(name for image in images for name, _ in image["masks"])}
    counts = {name: sum(part[name] for part in splits.values()) for name in ("images", "masks", "groups")}
    (root / slug / "manifest.json").write_text(
        json.dumps({"dataset": slug, "name": slug, "counts": counts, "splits": splits, **more}))


def box(size: tuple[int, int], top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def picture(name: str, group: str = "g", *categories: str) -> dict:
    return {"name": name, "group": group,
            "masks": [(category, box((40, 60), 5, 5, 15, 25)) for category in categories]}


class Page(HTMLParser):
    """A page's tags, checked to be closed in order, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Spare the tests that are not about it the drawing of the figure, which takes most of the time."""
    if "drawn" not in request.fixturenames:
        empty = {"figure2.png": b"", "figure2.svg": b""}
        monkeypatch.setattr("data_prep.report.command.draw_figure2", lambda summary: empty)


@pytest.fixture
def drawn():
    """Ask for the figure."""


@pytest.fixture
def converted(mini, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--source", str(mini.source), "--out", str(out), "--workers", "1"]
    assert main(["convert", "bus_bra", *arguments, "--validation-fraction", "0.3"]) == 0
    capsys.readouterr()
    return out


def line_of(text: str, start: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(start)).split("  ")


def test_the_table_has_the_numbers_of_the_miniature_and_of_the_paper(converted, capsys):
    assert report(converted) == 0
    lines = capsys.readouterr().out.splitlines()
    sides = [len(json.loads((converted / f"bus_bra/annotations/{split}.bus_bra.json").read_text())["images"])
             for split in ("train", "val", "test")]
    assert sum(sides) == 17
    cells = [cell.strip() for cell in line_of("\n".join(lines), "bus_bra") if cell.strip()]
    assert cells == [
        "bus_bra", "breast lesions", "17", "1,875", "-1,858", "17", "1,875", "-1,858", "10",
        "/".join(map(str, sides)), "CC BY 4.0, cite the p...",
        "not as published: 17 of 1,875 images, 17 of 1,875 masks, 10 of 1,064 groups",
    ]
    total = [cell.strip() for cell in line_of("\n".join(lines), "converted") if cell.strip()]
    assert total[:9] == ["converted", "1 set", "17", "1,875", "-1,858", "17", "1,875", "-1,858", "10"]
    assert sum(line.endswith("not converted") for line in lines) == len(catalogue()) - 1
    assert lines[-1] == f"wrote report.html, figure2.png, figure2.svg to {converted / 'report'}"


def test_the_page_needs_nothing_else_and_shows_the_images(converted):
    assert report(converted, "--sample", 4) == 0
    page = Page((converted / "report/report.html").read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    images = page.all("img")
    assert len(images) == 4
    for image in images:
        assert image["src"].startswith("data:image/jpeg;base64,")
        assert image["alt"].partition(":")[2].strip() in ("benign", "malignant")
    assert {image["alt"].partition(": ")[2] for image in images} == {"benign", "malignant"}
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [attributes["href"] for attributes in page.all("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    assert {"set-bus_bra", "composition", "applications", "sizes", "sets", "missing", "licences"} <= anchors
    assert "holes are filled" in page.texts
    assert "one object per mask, however many components it has" in page.texts
    style = page.texts[page.texts.index(next(text for text in page.texts if "prefers-color-scheme" in text))]
    assert "@media print" in style
    assert "url(" not in style and "@import" not in style


def test_the_same_data_give_the_same_bytes(converted, tmp_path, drawn):
    written = []
    for name in ("first", "second"):
        assert report(converted, "--out", tmp_path / name) == 0
        written.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert written[0] == written[1]
    assert sorted(written[0]) == ["figure2.png", "figure2.svg", "report.html"]
    assert not (converted / "report").exists()


def test_figure_2_is_a_picture_and_a_drawing(converted, drawn):
    assert report(converted) == 0
    data = (converted / "report/figure2.png").read_bytes()
    assert b"matplotlib" not in data.lower()
    painted = Image.open(io.BytesIO(data)).convert("RGB")
    colours = {colour for _, colour in painted.getcolors(painted.width * painted.height)}
    assert {(0, 0x72, 0xB2), (0xB9, 0xC0, 0xC9)} <= colours
    assert ElementTree.parse(converted / "report/figure2.svg").getroot().tag.endswith("svg")


def test_stu_hospital_is_breast_here_and_other_in_the_paper(tmp_path):
    write_set(tmp_path, "stu_hospital", {"train": [picture("a", "1", "lesion"), picture("b", "2", "lesion", "lesion")]})
    rows = {name: numbers for name, *numbers in figure2_rows(summarize(tmp_path, 0))}
    assert rows["breast lesions"][0] == 3
    assert rows["other"] == [0, 42]


def test_rules_changes_failures_and_hostile_names_stand_on_the_page(tmp_path):
    failures = [{"key": f"m{number}", "reason": "gone", "missing": True} for number in range(30)]
    failures.append({"key": "b<script>alert(1)</script>", "reason": "a & b", "missing": False})
    write_set(tmp_path, "own<set>", {"train": [picture("a", "1", "<b>cyst</b>")]}, licence="CC & Co", failures=failures,
              rules={"min_area": 9, "clip_to_fov": True, "later_rule": 3},
              changes={"components_dropped": 1234, "pixels_filled": 0, "later_count": 5})
    assert report(tmp_path) == 0
    page = Page((tmp_path / "report/report.html").read_text(encoding="utf-8"))
    assert not page.all("script")
    for text in ("components of fewer than 9 pixels are dropped", "labels outside the field of view are cleared",
                 "<b>cyst</b> ", "own<set> ", "1,234 components dropped as too small", "5 later count",
                 "later rule: 3", "CC & Co", "31 images failed and were left out", "b<script>alert(1)</script>: a & b",
                 "and 11 more, see manifest.json"):
        assert text in page.texts, text
    assert not any("pixels of holes" in text for text in page.texts)
    order = [text for text in page.texts if text.endswith((": gone", ": a & b"))]
    assert order[0].startswith("b<script>"), "one unusable file must not drown in missing ones"


def test_a_set_of_ones_own_counts_but_is_not_compared(tmp_path, capsys):
    write_set(tmp_path, "clinic", {"train": [picture("a", "1", "cyst")], "test": [picture("b", "2", "cyst", "cyst")]})
    write_set(tmp_path, "stu_hospital", {"train": [picture("a", "1", "lesion")]})
    assert report(tmp_path) == 0
    text = capsys.readouterr().out
    own = [cell.strip() for cell in line_of(text, "clinic") if cell.strip()]
    assert own == ["clinic", "own data", "2", "-", "-", "3", "-", "-", "2", "1/0/1", "converted"]
    total = [cell.strip() for cell in line_of(text, "converted") if cell.strip()]
    assert total[:9] == ["converted", "2 sets", "3", "42", "-41", "4", "42", "-41", "3"]
    (tmp_path / "stu_hospital/manifest.json").unlink()
    assert report(tmp_path) == 0
    total = [cell.strip() for cell in line_of(capsys.readouterr().out, "converted") if cell.strip()]
    assert total[:9] == ["converted", "1 set", "2", "-", "-", "3", "-", "-", "2"]


def test_images_that_two_sets_share_are_counted_once(tmp_path):
    if "microseg" not in catalogue():
        pytest.skip("microseg is not in the catalogue")
    for slug in ("mup", "microseg"):
        write_set(tmp_path, slug, {"train": [picture("a", "1", "prostate")]})
    summary = summarize(tmp_path, 0)
    assert summary.total("images") == summary.total("masks") == 1
    state = {row.slug: row.state for row in summary.converted}
    assert state["microseg"] == "same images as mup"


def test_merged_files_are_counted_and_torn_groups_named(tmp_path, capsys):
    write_set(tmp_path, "clinic", {"train": [picture("a", "1", "cyst"), picture("b", "1", "cyst", "cyst")],
                                   "val": [picture("c", "2", "cyst")]})
    for split in ("train", "val"):
        merged = json.loads((tmp_path / f"clinic/annotations/{split}.clinic.json").read_text())
        (tmp_path / f"{split}.agnostic.json").write_text(json.dumps(merged))
    assert report(tmp_path) == 0
    assert "two sides" not in capsys.readouterr().out
    summary = summarize(tmp_path, 0)
    part = summary.merged.splits["train"]
    assert (part.images, part.masks, part.groups, part.sets) == (2, 3, 1, 1)
    assert summary.merged.torn == ()
    merged["images"][0]["group"] = "clinic/1"
    (tmp_path / "val.agnostic.json").write_text(json.dumps(merged))
    assert report(tmp_path) == 0
    assert "1 groups are on two sides of the merged files (first: clinic/1)" in capsys.readouterr().out


def test_the_merged_collection_is_told_as_its_manifest_says(tmp_path, capsys):
    write_set(tmp_path, "clinic", {"train": [picture("a", "1", "cyst")], "val": [picture("c", "2", "cyst")]},
              excluded={"images": 7})
    for split in ("train", "val"):
        (tmp_path / f"{split}.agnostic.json").write_bytes(
            (tmp_path / f"clinic/annotations/{split}.clinic.json").read_bytes())
    manifest = {
        "near_duplicates": {"pairs": 3, "pairs_by_sets": {"clinic": 3}, "joined_groups": [["clinic/2", "clinic/9"]]},
        "excluded": [{"images": 5, "masks": 6}, {"images": 2, "masks": 2}], "not_taken": {"twin": "not asked for"},
        "files": {"train.agnostic.json": {"images": 1, "masks": 1},
                  "train.without_breast.json": {"images": 1234, "masks": 9, "left_out_images": {"x": 4, "y": 5}}},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert report(tmp_path) == 0
    texts = Page((tmp_path / "report/report.html").read_text(encoding="utf-8")).texts
    for text in ("3 pairs of near duplicates in different groups join 2 groups into 1 (clinic: 3)",
                 "7 images with 8 masks are on no side, because they show what is on the test side",
                 "twin was not taken: not asked for", "no group is on two sides", "images on no side"):
        assert text in texts, text
    start = texts.index("train.without_breast.json")
    assert texts[start:start + 4] == ["train.without_breast.json", "1,234", "9", "9"]
    manifest["near_duplicates"]["joined_groups"] = [["clinic/1", "clinic/2"]]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert report(tmp_path) == 0
    assert "1 groups are on two sides of the merged files (first: clinic/1)" in capsys.readouterr().out


def test_files_that_do_not_fit_the_manifest_are_named(tmp_path, capsys):
    write_set(tmp_path, "clinic", {"train": [picture("a", "1", "cyst")], "test": [picture("b", "2", "cyst")]})
    (tmp_path / "clinic/annotations/test.clinic.json").unlink()
    assert report(tmp_path) == 0
    text = capsys.readouterr().out
    assert "files and manifest differ" in text
    assert "clinic: test.clinic.json: 0 images found, the manifest says 1" in text


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda root: (root / "clinic/manifest.json").unlink(), "run python -m data_prep convert first"),
    (lambda root: (root / "clinic/manifest.json").write_text("{"), "clinic/manifest.json: a readable JSON"),
    (lambda root: (root / "clinic/manifest.json").write_text("[]"), "clinic/manifest.json: a JSON object"),
    (lambda root: (root / "clinic/manifest.json").write_text('{"counts": {}}'), "its 'counts' are not there"),
    (lambda root: (root / "clinic/annotations/train.clinic.json").write_text("{}"), "train.clinic.json: a COCO file"),
    (lambda root: (root / "clinic/images/a.png").unlink(), "clinic/images/a.png"),
    (lambda root: Image.new("L", (9, 7)).save(root / "clinic/images/a.png"), "(7, 9)"),
])
def test_damage_is_named_and_the_earlier_report_stays(tmp_path, spoil, words):
    write_set(tmp_path, "clinic", {"train": [picture("a", "1", "cyst")]})
    assert report(tmp_path) == 0
    before = (tmp_path / "report/report.html").read_bytes()
    spoil(tmp_path)
    with pytest.raises(DataError) as caught:
        report(tmp_path)
    assert words in str(caught.value)
    assert (tmp_path / "report/report.html").read_bytes() == before
    assert len(list((tmp_path / "report").iterdir())) == 3


def test_without_samples_no_image_is_opened(tmp_path):
    write_set(tmp_path, "clinic", {"train": [picture("a", "1", "cyst")]})
    (tmp_path / "clinic/images/a.png").unlink()
    assert report(tmp_path, "--sample", 0) == 0
    assert not Page((tmp_path / "report/report.html").read_text(encoding="utf-8")).all("img")


def test_a_folder_that_is_not_there_and_a_negative_sample_are_refused(tmp_path, capsys):
    with pytest.raises(DataError, match="a folder of converted datasets was expected"):
        report(tmp_path / "nothing")
    with pytest.raises(SystemExit):
        report(tmp_path, "--sample", -1)
    assert "at least 0" in capsys.readouterr().err


@pytest.mark.shared
def test_the_papers_numbers_are_those_of_its_table(shared):
    table = json.loads((shared / "reference/paper_tables.json").read_text())["table1_us43d"]
    infos = {slug: converter.info for slug, converter in catalogue().items()}
    ours = Counter((APPLICATIONS[slug], *info.table1) for slug, info in infos.items()
                   if info.table1 is not None and info.alias_of not in infos)
    theirs = Counter((row["application"], row["images"], row["masks"]) for row in table)
    assert not ours - theirs
    assert infos.keys() <= APPLICATIONS.keys()
    if infos.keys() == APPLICATIONS.keys():
        assert ours == theirs
        total = masks_by_application(infos.values())
        assert (total.total(), len(total)) == (279_765, 20)
        assert MASKS_IN_TEXT - total.total() == 2_556
