"""Result files: the masks of the page, numbers kept, all frames, and nothing left on the disk."""

import csv
import io
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ultrasam.geometry.rle import decode_mask, encode_mask
from ultrasam.io.scan import scan_from_array, scan_from_bytes
from ultrasam.web import downloads
from ultrasam.web.limits import Limits, WebError
from ultrasam.web.study import Item, Mark, Study

HEIGHT, WIDTH = 30, 40


def block(x1, y1, x2, y2):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y1:y2, x1:x2] = True
    return mask


LARGE, SMALL, OTHER = block(2, 2, 30, 20), block(5, 5, 9, 8), block(10, 10, 20, 15)


def mark(mask, **more):
    return Mark(((5.0, 6.0, 1),), more.pop("box", None), encode_mask(mask), 0.75, None, {})


def study_of(scan, *items):
    study = Study("key", scan, 0, Limits())
    for item in items:
        study.change(0, None, item)
    return study


@pytest.fixture
def still():
    """Objects 1 and 3 of an image, one on the other; 2 was deleted."""
    scan = scan_from_array(np.full((HEIGHT, WIDTH), 90, np.uint8), (0.5, 0.25), "Brust ü.png")
    first = Item(1, "Object 1", "cyst, simple", {0: mark(LARGE)})
    return study_of(scan, first, Item(3, "Left", "", {0: mark(SMALL, box=(5.0, 5.0, 9.0, 8.0))}))


@pytest.fixture
def loop():
    frames = np.random.default_rng(0).integers(0, 255, (4, HEIGHT, WIDTH), dtype=np.uint8)
    stream = io.BytesIO()
    np.save(stream, frames)
    scan = scan_from_bytes(stream.getvalue(), "loop.npy")
    first = Item(1, "Object 1", "cyst", {1: mark(LARGE), 3: mark(OTHER)})
    return study_of(scan, first, Item(2, "B", "", {3: mark(SMALL)}))


def test_label_image_keeps_numbers_and_shows_the_small_object(still):
    made = downloads.make(still, "labels", 0)
    assert made.name == "Brust ü_labels.png"
    labels = np.asarray(Image.open(io.BytesIO(made.data)))
    assert np.array_equal(labels, np.where(SMALL, 3, np.where(LARGE, 1, 0)))


def test_coco_holds_whole_masks(still):
    found = json.loads(downloads.make(still, "coco", 0, "weights").data)
    assert [note["object"] for note in found["annotations"]] == [1, 3]
    masks = [decode_mask(note["segmentation"]) for note in found["annotations"]]
    assert np.array_equal(masks[0], LARGE) and np.array_equal(masks[1], SMALL)
    names = {category["id"]: category["name"] for category in found["categories"]}
    assert [names[note["category_id"]] for note in found["annotations"]] == ["cyst, simple", "object"]
    assert found["annotations"][1]["prompt"]["box"] == [5, 5, 9, 8]
    assert found["info"]["model"] == "weights" and "diagnosis" in found["info"]["description"]


def test_measures_have_a_row_for_each_object_only(still):
    rows = list(csv.DictReader(io.StringIO(downloads.make(still, "measures", 0).data.decode())))
    assert [(row["object"], row["name"]) for row in rows] == [("1", "cyst, simple"), ("3", "object")]
    assert float(rows[0]["area_mm2"]) == LARGE.sum() * 0.125


def test_files_of_frames(loop):
    offered = [offer["kind"] for offer in downloads.offers(loop.scan)]
    assert offered == ["zip", "labels", "overlay", "coco", "measures", "volume"]
    made = downloads.make(loop, "labels", 3)
    assert made.name == "loop_frame0003_labels.png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(made.data))), np.where(SMALL, 2, np.where(OTHER, 1, 0)))
    with pytest.raises(WebError, match="on this frame"):
        downloads.make(loop, "overlay", 0)
    import nibabel

    volume = nibabel.Nifti1Image.from_bytes(__import__("gzip").decompress(downloads.make(loop, "volume", 0).data))
    labels = np.asarray(volume.dataobj).transpose(2, 1, 0)
    assert np.array_equal(labels[1], LARGE) and not labels[0].any() and set(np.unique(labels[3])) == {0, 1, 2}


def test_the_archive_has_everything(loop):
    made = downloads.make(loop, "zip", 0)
    with zipfile.ZipFile(io.BytesIO(made.data)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [
            "README.txt", "loop_coco.json", "loop_frame0001_labels.png", "loop_frame0001_overlay.png",
            "loop_frame0003_labels.png", "loop_frame0003_overlay.png", "loop_labels.nii.gz", "loop_measures.csv",
        ]  # fmt: skip
        assert "Not for diagnosis" in archive.read("README.txt").decode()


def dicom_bytes(frames):
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset

    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    found.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    found.SOPInstanceUID, found.StudyInstanceUID, found.SeriesInstanceUID = "1.2.3.4", "1.2.3", "1.2.3.5"
    found.Modality, found.PatientID, found.NumberOfFrames = "US", "PHANTOM", len(frames)
    found.Rows, found.Columns, found.SamplesPerPixel = HEIGHT, WIDTH, 1
    found.PhotometricInterpretation, found.BitsAllocated, found.BitsStored = "MONOCHROME2", 8, 8
    found.HighBit, found.PixelRepresentation, found.PixelData = 7, 0, frames.tobytes()
    stream = io.BytesIO()
    found.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def test_dicom_segmentation_has_segments_without_gaps():
    pytest.importorskip("highdicom", reason="DICOM SEG needs the extra 'seg'")
    import pydicom

    scan = scan_from_bytes(dicom_bytes(np.full((3, HEIGHT, WIDTH), 90, np.uint8)), "study.dcm")
    study = study_of(scan, Item(2, "Left", "cyst", {1: mark(LARGE)}), Item(5, "B", "", {2: mark(OTHER)}))
    made = downloads.make(study, "seg", 0, "weights")
    found = pydicom.dcmread(io.BytesIO(made.data))
    assert [(s.SegmentNumber, s.SegmentLabel) for s in found.SegmentSequence] == [(1, "Left, cyst"), (2, "B")]
    assert found.pixel_array.reshape(-1, HEIGHT, WIDTH).sum() == LARGE.sum() + OTHER.sum()


def test_what_cannot_be_written_is_said_in_the_archive():
    pytest.importorskip("highdicom", reason="DICOM SEG needs the extra 'seg'")
    data = dicom_bytes(np.full((1, HEIGHT, WIDTH), 90, np.uint8))
    scan = scan_from_bytes(data, "study.dcm")
    del scan.header.StudyInstanceUID
    made = downloads.make(study_of(scan, Item(1, "A", "", {0: mark(LARGE)})), "zip", 0)
    with zipfile.ZipFile(io.BytesIO(made.data)) as archive:
        assert "study_seg.dcm" not in archive.namelist() and "study_labels.png" in archive.namelist()
        assert "study_seg.dcm is left out: " in archive.read("README.txt").decode()


def test_refusals(still):
    with pytest.raises(WebError, match="no file of the kind") as caught:
        downloads.make(still, "../etc", 0)
    assert caught.value.status == 404
    empty = study_of(still.scan)
    with pytest.raises(WebError, match="Nothing is marked yet"):
        downloads.make(empty, "zip", 0)


def test_nothing_stays_on_the_disk(loop, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    downloads.make(loop, "zip", 0)
    assert not list(Path(tmp_path).iterdir())
