"""DICOM SEG read back by pydicom and by highdicom: pixels, codes, and references to frames."""

from __future__ import annotations

import builtins

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_files import ultrasound

from ultrasam.errors import ConfigError, DataError
from ultrasam.io.outputs_dicom import Segment, write_dicom_seg
from ultrasam.io.scan import open_scan, scan_from_array, scan_from_bytes

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 12, 17), dtype=np.uint8)


def masks() -> np.ndarray:
    made = np.zeros((2, 12, 17), bool)
    made[0, 2:8, 3:11] = True
    made[1, 6:10, 8:16] = True  # overlaps the first
    return made


def by_reference(path):
    """Read with pydicom alone: (segment, number of the source's frame or None) to pixels."""
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    found = {}
    for item, picture in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        key = (item.SegmentIdentificationSequence[0].ReferencedSegmentNumber, source.get("ReferencedFrameNumber"))
        assert key not in found
        found[key] = picture.astype(bool)
    return dataset, found


def test_a_single_frame(tmp_path):
    scan = open_scan(ultrasound(tmp_path / "ä (1).dcm", FRAMES[:1], PixelSpacing=[0.2, 0.1]))
    write_dicom_seg(tmp_path / "seg.dcm", {0: masks()}, scan, algorithm="tiny")
    dataset, found = by_reference(tmp_path / "seg.dcm")
    assert set(found) == {(1, None), (2, None)}
    np.testing.assert_array_equal(found[1, None], masks()[0])
    np.testing.assert_array_equal(found[2, None], masks()[1])
    reference = dataset.ReferencedSeriesSequence[0]
    assert reference.SeriesInstanceUID == scan.header.SeriesInstanceUID
    assert reference.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == scan.header.SOPInstanceUID
    assert (dataset.StudyInstanceUID, dataset.PatientID) == (scan.header.StudyInstanceUID, "P1")
    assert dataset.SeriesInstanceUID != scan.header.SeriesInstanceUID and dataset.Modality == "SEG"
    assert dataset.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "tiny"
    read = highdicom.seg.segread(tmp_path / "seg.dcm")
    pixels = read.get_pixels_by_source_instance([scan.header.SOPInstanceUID])
    np.testing.assert_array_equal(pixels[0], np.moveaxis(masks(), 0, -1))


@pytest.mark.parametrize("whole", [False, True])
def test_frames_of_a_cine(tmp_path, whole):
    path = ultrasound(tmp_path / "cine.dcm", FRAMES, FrameOfReferenceUID="1.2.3") if whole else \
        ultrasound(tmp_path / "cine.dcm", FRAMES)
    scan = scan_from_bytes(path.read_bytes(), "cine.dcm")
    segments = [Segment("lesion", ("49755003", "SCT", "Morphologically Abnormal Structure"),
                        ("108369006", "SCT", "Neoplasm")), Segment("cyst")]
    given = {3: masks(), 1: masks()[:, ::-1], 4: np.zeros_like(masks()), 2: masks()[:1]}
    write_dicom_seg(tmp_path / "seg.dcm", given, scan, segments)
    dataset, found = by_reference(tmp_path / "seg.dcm")
    assert set(found) == {(1, 2), (1, 3), (1, 4), (2, 2), (2, 4)}  # frames count from 1, empty ones are left out
    for (segment, number), picture in found.items():
        np.testing.assert_array_equal(picture, given[number - 1][segment - 1])
    assert [item.SegmentNumber for item in dataset.SegmentSequence] == [1, 2]
    assert [item.SegmentLabel for item in dataset.SegmentSequence] == ["lesion", "cyst"]
    assert dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Neoplasm"
    assert "FrameOfReferenceUID" not in dataset
    uids = {item.ReferencedSOPClassUID for frame in dataset.PerFrameFunctionalGroupsSequence
            for item in frame.DerivationImageSequence[0].SourceImageSequence}
    uids |= {item.ReferencedSOPClassUID for item in dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert uids == {scan.header.SOPClassUID}
    pointers = [item.DimensionIndexPointer for item in dataset.DimensionIndexSequence]
    assert pointers == [0x0062000B, 0x00209057]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        content = frame.FrameContentSequence[0]
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert list(content.DimensionIndexValues) == [
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber, source.ReferencedFrameNumber]
    read = highdicom.seg.segread(tmp_path / "seg.dcm")
    pixels = read.get_pixels_by_source_frame(scan.header.SOPInstanceUID, [2, 4])
    np.testing.assert_array_equal(pixels, np.stack([np.moveaxis(given[1], 0, -1), np.moveaxis(given[3], 0, -1)]))


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch):
    scan = open_scan(ultrasound(tmp_path / "a.dcm", FRAMES[:1]))
    out = tmp_path / "seg.dcm"
    with pytest.raises(DataError, match="all masks are empty"):
        write_dicom_seg(out, {0: np.zeros((1, 12, 17), bool)}, scan)
    with pytest.raises(DataError, match=r"1 frames of \(12, 17\).* found masks of frame 1"):
        write_dicom_seg(out, {1: masks()}, scan)
    with pytest.raises(DataError, match="2 objects need 2 segments, found 1"):
        write_dicom_seg(out, {0: masks()}, scan, [Segment()])
    with pytest.raises(DataError, match="is no DICOM file"):
        write_dicom_seg(out, {0: masks()}, scan_from_array(FRAMES[0]))
    bare = open_scan(ultrasound(tmp_path / "b.dcm", FRAMES[:1], StudyInstanceUID=""))
    with pytest.raises(DataError, match=r"b\.dcm: .* found: no StudyInstanceUID"):
        write_dicom_seg(out, {0: masks()}, bare)
    real = builtins.__import__

    def without(name, *arguments, **named):
        if name.startswith("highdicom"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"highdicom; run pip install 'ultrasam\[seg\]'"):
        write_dicom_seg(out, {0: masks()}, scan)
    assert not out.exists()
