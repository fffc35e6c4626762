"""Writing predicted masks of a DICOM scan as a DICOM Segmentation object (Part 3 of the standard, A.51)."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import ConfigError, DataError
from ultrasam.io.files import write_atomic
from ultrasam.io.outputs import Stack
from ultrasam.io.scan_base import Scan

Code = tuple[str, str, str]

# "Tissue" is what the standard's own examples say of a segment whose nature is not known. SNOMED CT.
TISSUE: Code = ("85756007", "SCT", "Tissue")
# What every ultrasound file must have for its segments to be found again (Part 3, A.51: they are referenced).
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")
# May be empty in a file, and are missing in many; a segmentation must have them (type 2).
_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
          "StudyTime", "ReferringPhysicianName")  # fmt: skip
_SERIES = 100
# Ultrasound Image Storage.
_SINGLE_FRAME = "1.2.840.10008.5.1.4.1.1.6.1"


@dataclass(frozen=True)
class Segment:
    """What one object is.

    Attributes:
        label: its name for readers.
        category: code of the kind of thing (value, scheme, meaning), for instance a tissue or an abnormal structure.
        kind: code of the thing itself, in the same form.
    """

    label: str = "object"
    category: Code = TISSUE
    kind: Code = TISSUE


def write_dicom_seg(
    path: str | Path,
    masks: Mapping[int, Stack],
    scan: Scan,
    segments: Sequence[Segment] | None = None,
    *,
    algorithm: str = "UltraSam",
    description: str = "",
) -> None:
    """Write a binary segmentation that refers to the scan's file and to the frames with masks.

    Args:
        path: the file.
        masks: frame to (N, H, W) bool; an object has the same place in all frames and is one segment; objects may
            overlap.
        scan: an opened DICOM file.
        segments: one an object; numbered "object 1" and so on by default.
        algorithm: name of what made the masks, for instance of the weights.
        description: of the content, up to 64 characters.

    Raises:
        ConfigError: the package highdicom is not installed.
        DataError: the scan is not DICOM or lacks what a reference needs, or no mask has a pixel.
    """
    try:
        import highdicom
    except ImportError as error:
        raise ConfigError("DICOM SEG needs the package highdicom; run pip install 'ultrasam[seg]'") from error
    import pydicom

    import ultrasam

    if not isinstance(scan.header, pydicom.Dataset):
        raise DataError(f"{scan.name} is no DICOM file, and a DICOM SEG refers to one; write PNG or NIfTI instead")
    stacks = _checked(masks, scan)
    count = max(len(stack) for stack in stacks.values())
    named = list(segments) if segments is not None else [Segment(f"object {number + 1}") for number in range(count)]
    if len(named) != count:
        raise DataError(f"{path}: {count} objects need {count} segments, found {len(named)}")
    family = highdicom.AlgorithmIdentificationSequence(
        name=algorithm[:64], version=ultrasam.__version__, family=_code(("123110", "DCM", "Artificial Intelligence"))
    )
    try:
        source = _source(scan)
        placed = _has_planes(source)
        if placed:
            pixels, kinds = _all_frames(stacks, scan, count), named
        else:
            # highdicom takes several frames of a source only if they lie somewhere in space. Here every frame of every
            # object is first a segment of its own of one frame, and is then told apart by its reference.
            pixels, kinds = _as_channels(stacks, count), [segment for segment in named for _ in stacks]
            source.SOPClassUID = _SINGLE_FRAME
            source.pop("NumberOfFrames", None)
            source.pop("FrameOfReferenceUID", None)
            # The size of a pixel is the source's, to which all frames refer; alone it would need a slice thickness.
            source.pop("PixelSpacing", None)
        with warnings.catch_warnings():
            # Patients' names are copied as they are, whatever their form.
            warnings.filterwarnings("ignore", message="The string .* is unlikely to represent the intended person name")
            found = highdicom.seg.Segmentation(
                source_images=[source],
                pixel_array=pixels,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_description(number, segment, family) for number, segment in enumerate(kinds, 1)],
                series_instance_uid=highdicom.UID(),
                series_number=_SERIES,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="UltraSam",
                manufacturer_model_name="UltraSam",
                software_versions=ultrasam.__version__,
                device_serial_number="0",
                content_description=description[:64] or None,
                content_label="SEGMENTATION",
            )
        if not placed:
            _refer(found, list(stacks), count, scan.header)
        buffer = io.BytesIO()
        found.save_as(buffer, enforce_file_format=True)
    except (AttributeError, ValueError, TypeError, KeyError, IndexError) as error:
        raise DataError(f"{scan.path or scan.name}: a DICOM file that a segmentation can refer to was expected, found: "
                        f"{error}") from error  # fmt: skip
    write_atomic(path, buffer.getvalue())


def _description(number: int, segment: Segment, family: Any) -> Any:
    import highdicom

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label[:64],
        segmented_property_category=_code(segment.category),
        segmented_property_type=_code(segment.kind),
        # The prompts are a person's, the border is the network's.
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=family,
    )


def _code(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(*code)


def _source(scan: Scan) -> Any:
    """Return the header with the attributes that a segmentation copies from it."""
    source = copy.deepcopy(scan.header)
    missing = [name for name in _REQUIRED if not source.get(name)]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    for name in _EMPTY:
        if name not in source:
            setattr(source, name, None)
    return source


def _has_planes(source: Any) -> bool:
    """Whether the frames lie somewhere in space, which of ultrasound only volumes do."""
    frames = source.get("PerFrameFunctionalGroupsSequence") or [source]
    shared = (source.get("SharedFunctionalGroupsSequence") or [source])[0]
    oriented = any("PlaneOrientationSequence" in item or "ImageOrientationPatient" in item
                   for item in (shared, frames[0]))  # fmt: skip
    placed = all("PlanePositionSequence" in item or "ImagePositionPatient" in item for item in frames)
    return "FrameOfReferenceUID" in source and oriented and placed


def _checked(masks: Mapping[int, Stack], scan: Scan) -> dict[int, Stack]:
    """Return the masks of frames that have any, in order."""
    for frame, stack in masks.items():
        if not 0 <= frame < scan.frames or stack.shape[1:] != scan.size:
            raise DataError(f"{scan.name} has {scan.frames} frames of {scan.size} (height, width), found masks of "
                            f"frame {frame} and size {stack.shape[1:]}")  # fmt: skip
    found = {frame: masks[frame] for frame in sorted(masks) if masks[frame].any()}
    if not found:
        raise DataError(f"{scan.name}: all masks are empty, and a DICOM SEG needs a pixel; correct the prompts")
    depth = max(len(stack) for stack in masks.values())
    return {frame: np.pad(stack, ((0, depth - len(stack)), (0, 0), (0, 0))) for frame, stack in found.items()}


def _all_frames(stacks: Mapping[int, Stack], scan: Scan, count: int) -> NDArray[np.uint8]:
    """Return (frames, height, width, objects) 0 and 1."""
    pixels = np.zeros((scan.frames, *scan.size, count), np.uint8)
    for frame, stack in stacks.items():
        pixels[frame] = np.moveaxis(stack, 0, -1)
    return pixels


def _as_channels(stacks: Mapping[int, Stack], count: int) -> NDArray[np.uint8]:
    """Return (1, height, width, objects x frames) 0 and 1; all frames of an object follow each other."""
    pictures = [stack[number] for number in range(count) for stack in stacks.values()]
    return np.stack(pictures, axis=-1)[None].astype(np.uint8)


def _refer(found: Any, frames: Sequence[int], count: int, source: Any) -> None:
    """Turn segments that are one frame each into frames of segments that refer to the source's frames.

    Args:
        found: a segmentation with the segments of `_as_channels`.
        frames: of the source, of the channels of one object.
        count: number of objects.
        source: data set that is referred to.
    """
    multiframe = "NumberOfFrames" in source
    for item in _items(found):
        if item.get("ReferencedSOPInstanceUID") == source.SOPInstanceUID:
            item.ReferencedSOPClassUID = source.SOPClassUID
    for item in found.PerFrameFunctionalGroupsSequence:
        channel = int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber) - 1
        number, place = divmod(channel, len(frames))
        item.SegmentIdentificationSequence[0].ReferencedSegmentNumber = number + 1
        if multiframe:
            content = item.FrameContentSequence[0]
            content.StackID, content.InStackPositionNumber = "1", frames[place] + 1
            content.DimensionIndexValues = [number + 1, frames[place] + 1]
            # All frames share one object of references, as they came from one frame.
            item.DerivationImageSequence = copy.deepcopy(item.DerivationImageSequence)
            for derivation in item.DerivationImageSequence:
                for reference in derivation.SourceImageSequence:
                    reference.ReferencedFrameNumber = frames[place] + 1
        else:
            item.FrameContentSequence[0].DimensionIndexValues = [number + 1]
    described = [found.SegmentSequence[number * len(frames)] for number in range(count)]
    for number, segment in enumerate(described, 1):
        segment.SegmentNumber = number
    found.SegmentSequence = described
    if multiframe:
        index = copy.deepcopy(found.DimensionIndexSequence[0])
        # In-Stack Position Number of the Frame Content Sequence.
        index.DimensionIndexPointer, index.FunctionalGroupPointer = 0x00209057, 0x00209111
        index.DimensionDescriptionLabel = "In-Stack Position Number"
        found.DimensionIndexSequence = [found.DimensionIndexSequence[0], index]


def _items(dataset: Any) -> Iterator[Any]:
    """Yield all items of all sequences, at any depth."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _items(item)
