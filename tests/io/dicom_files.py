"""DICOM files of ultrasound that tests write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)


def ultrasound(path: Path, frames: np.ndarray, photometric: str = "MONOCHROME2", *, region: bool = True,
               syntax: str = ExplicitVRLittleEndian, data: bytes | None = None, **more: Any) -> Path:
    """Write (F, H, W) grey or (F, H, W, 3) colour frames with all that a study has; one frame gives a single image."""
    several = len(frames) > 1
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage if several else UltrasoundImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Modality, dataset.PatientID, dataset.PatientName = "US", "P1", "Doe^J"
    colour = frames.ndim == 4
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = 8 * frames.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    if several:
        dataset.NumberOfFrames = len(frames)
        dataset.FrameTime = 40
    if region:
        item = Dataset()
        item.RegionSpatialFormat = 1
        item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
        item.PhysicalDeltaX, item.PhysicalDeltaY = 0.01, 0.02
        dataset.SequenceOfUltrasoundRegions = [item]
    dataset.PixelData = frames.tobytes() if data is None else data
    for name, value in more.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path
