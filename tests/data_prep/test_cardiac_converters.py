"""CAMUS, CardiacUDC, EchoCP and the EchoNets from raw files to COCO, on miniatures of the published layouts."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import nibabel
import numpy as np
import pytest
from converting import run_for_pixels as run

from data_prep.catalogue import find_converter
from ultrasam.errors import DataError

# Voxels of 0.2 mm along x (columns) and 0.3 mm along y (rows); axes to the left and back, or to the right and front.
LPS, RAS = np.diag([-0.2, -0.3, 1, 1]), np.diag([0.2, 0.3, 1, 1])


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 256, shape, dtype=np.uint8)


def save_nifti(path: Path, frames: np.ndarray, affine: np.ndarray = LPS) -> None:
    """Write (frames, rows, columns) as the x, y, z of a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(frames.transpose(2, 1, 0), affine), path)


def save_video(path: Path, count: int, side: int = 48) -> None:
    """Write frames whose brightness is 60 + 10 times their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30)
        stream.width = stream.height = side
        stream.pix_fmt = "yuvj420p"
        for number in range(count):
            pixels = np.full((side, side, 3), 60 + 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def shown(pixels: np.ndarray) -> int:
    """Return the number of the frame that a picture of `save_video` shows."""
    return round((float(pixels.mean()) - 60) / 10)


def save_csv(path: Path, header: str, *lines: tuple) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header.split(","), *lines])


# CAMUS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def camus(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Two patients, 2CH of two frames (the second of patient0002 is unlabelled) and 4CH of one."""
    raw = tmp_path / "raw/CAMUS_public"
    images, labels = noise(1, 2, 60, 80), np.zeros((2, 60, 80), np.uint8)
    images[:, :, :12] = 0
    images[:, 15:35, 30:50] = 0
    labels[:, 12:38, 27:53] = 2
    labels[:, 15:35, 30:50] = 1
    labels[:, 40:55, 4:40] = 3
    for patient in ("patient0001", "patient0002"):
        folder = raw / "database_nifti" / patient
        for view, count in (("2CH", 2), ("4CH", 1)):
            save_nifti(folder / f"{patient}_{view}_half_sequence.nii.gz", images[:count])
            kept = labels[:count].copy()
            kept[1:] *= patient == "patient0001"
            save_nifti(folder / f"{patient}_{view}_half_sequence_gt.nii.gz", kept)
            for phase in ("ED", "ED_gt"):
                save_nifti(folder / f"{patient}_{view}_{phase}.nii.gz", images[:1])
    (raw / "database_split").mkdir()
    (raw / "database_split/subgroup_training.txt").write_text("patient0001\n")
    (raw / "database_split/subgroup_testing.txt").write_text("patient0002\n")
    return tmp_path / "raw", images, labels


def test_camus_frames_views_patients_and_names_of_regions(camus, tmp_path):
    source, images, labels = camus
    found, manifest = run("camus", source, tmp_path / "out")
    assert sorted(found) == ["patient0001_2CH_00000", "patient0001_2CH_00001", "patient0001_4CH_00000",
                             "patient0002_2CH_00000", "patient0002_4CH_00000"]
    image, pixels, masks = found["patient0001_2CH_00001"]
    np.testing.assert_array_equal(pixels[..., 0], images[1])
    assert [name for name, _ in masks] == ["left_ventricle", "left_ventricular_myocardium", "left_atrium"]
    np.testing.assert_array_equal(masks[1][1], labels[1] == 2)
    assert (image["group"], image["frame"], image["view"]) == ("camus/patient0001", 1, "apical two-chamber")
    assert image["official_split"] == "training"
    assert image["spacing_mm"] == pytest.approx([0.3, 0.2])
    assert found["patient0002_4CH_00000"][0]["official_split"] == "testing"
    assert manifest["counts"]["groups"] == 2


def test_camus_labels_lose_what_is_outside_the_sector_but_not_black_blood(camus, tmp_path):
    source, images, labels = camus
    found, manifest = run("camus", source, tmp_path / "out")
    masks = dict(found["patient0001_2CH_00000"][2])
    blood = labels[0] == 1
    assert (images[0][blood] == 0).all()
    np.testing.assert_array_equal(masks["left_ventricle"], blood)
    atrium = labels[0] == 3
    atrium[:, :12] = False
    np.testing.assert_array_equal(masks["left_atrium"], atrium)
    assert manifest["changes"]["pixels_outside_fov"] == 5 * 15 * 8


def test_camus_patient_on_two_lists_is_refused(camus, tmp_path):
    (camus[0] / "CAMUS_public/database_split/subgroup_validation.txt").write_text("patient0001")
    with pytest.raises(DataError, match="patient0001 was expected on one list"):
        run("camus", camus[0], tmp_path / "out")


def test_camus_missing_and_damaged_labels_are_named_one_by_one(camus, tmp_path, capsys):
    folder = camus[0] / "CAMUS_public/database_nifti/patient0001"
    (folder / "patient0001_4CH_half_sequence_gt.nii.gz").unlink()
    damaged = folder / "patient0001_2CH_half_sequence_gt.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:150])
    found, manifest = run("camus", camus[0], tmp_path / "out", keep_going=True)
    assert sorted(found) == ["patient0002_2CH_00000", "patient0002_4CH_00000"]
    assert [item["missing"] for item in manifest["failures"]] == [False, True]
    message = capsys.readouterr().err
    assert "patient0001_4CH_half_sequence_gt.nii.gz: the file is not there" in message
    assert "patient0001_2CH_half_sequence_gt.nii.gz: a readable volume was expected" in message


# CardiacUDC ----------------------------------------------------------------------------------------------------------

# Where the chambers lie on the screen of an apical view: rows, columns.
LV, RV, LA, RA = (slice(8, 26), slice(36, 56)), (slice(8, 26), slice(10, 30)), (slice(32, 50), slice(36, 56)), (
    slice(32, 50), slice(10, 30))


def painted(**chambers: tuple[slice, slice]) -> np.ndarray:
    """Return a 56 x 66 label frame, keywords v1, v2, ... being values."""
    frame = np.zeros((56, 66), np.uint8)
    for value, place in chambers.items():
        frame[place] = int(value[1:])
    return frame


def outlined(frame: np.ndarray) -> np.ndarray:
    """Return only the outermost pixels of every value's area, one pixel wide."""
    inner = np.zeros(frame.shape, bool)
    inner[1:-1, 1:-1] = True
    for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        inner &= np.roll(frame, shift, (0, 1)) == frame
    return np.where(inner, 0, frame)


def region(place: tuple[slice, slice]) -> np.ndarray:
    return painted(v1=place) > 0


FOUR = painted(v1=LV, v2=LA, v3=RA, v4=RV)


def save_udc(folder: Path, stem: str, labels: np.ndarray, affine: np.ndarray = LPS, *, seed: int = 3) -> np.ndarray:
    """Write a video and its labels as they look on the screen; return the video."""
    frames = noise(seed, *labels.shape)
    step = -1 if affine is RAS else 1
    save_nifti(folder / f"{stem}_image.nii.gz", frames[:, ::step, ::step], affine)
    save_nifti(folder / f"{stem}_label.nii.gz", labels[:, ::step, ::step], affine)
    return frames


def test_cardiac_udc_labels_mean_what_the_view_says(tmp_path):
    raw = tmp_path / "raw/cardiacUDC_dataset"
    two = painted(v1=LV, v2=RV)[None]
    save_udc(raw / "Site_G_20", "patient-1-1", two)
    save_udc(raw / "Site_G_20", "patient-1-2", painted(v1=LA)[None])
    save_udc(raw / "Site_G_20", "patient-1-3", two)
    save_udc(raw / "Site_G_29", "patient-1-4", FOUR[None])
    found, _ = run("cardiac_udc", tmp_path / "raw", tmp_path / "out")
    for view in "13":
        masks = dict(found[f"Site_G_20_patient-1-{view}_00000"][2])
        assert masks.keys() == {"left_ventricle", "right_ventricle"}
        np.testing.assert_array_equal(masks["right_ventricle"], region(RV))
    ((name, mask),) = found["Site_G_20_patient-1-2_00000"][2]
    assert name == "pulmonary_artery"
    np.testing.assert_array_equal(mask, region(LA))
    image, _, masks = found["Site_G_29_patient-1-4_00000"]
    assert image["view"] == "apical four-chamber"
    for name, place in (("left_ventricle", LV), ("left_atrium", LA), ("right_atrium", RA), ("right_ventricle", RV)):
        np.testing.assert_array_equal(dict(masks)[name], region(place))


def test_cardiac_udc_groups_are_patients_of_a_site_joined_where_a_folder_repeats_them(tmp_path):
    raw = tmp_path / "raw"
    for folder, stem in (("Site_G_20", "patient-1-4"), ("Site_G_20", "patient-1-3"), ("Site_G_20", "patient-2-4"),
                         ("Site_R_52", "patient-2-4"), ("label_all_frame", "patient-1-4")):
        save_udc(raw / folder, stem, FOUR[None] if stem.endswith("4") else painted(v1=LV)[None])
    save_nifti(raw / "Site_R_73/patient-9-4_image.nii.gz", noise(1, 1, 56, 66))
    found, _ = run("cardiac_udc", raw, tmp_path / "out")
    assert {name: image["group"] for name, (image, _, _) in found.items()} == {
        "Site_G_20_patient-1-4_00000": "cardiac_udc/patient-1",
        "Site_G_20_patient-1-3_00000": "cardiac_udc/patient-1",
        "label_all_frame_patient-1-4_00000": "cardiac_udc/patient-1",
        "Site_G_20_patient-2-4_00000": "cardiac_udc/Site_G_20/patient-2",
        "Site_R_52_patient-2-4_00000": "cardiac_udc/Site_R_52/patient-2",
    }


def test_cardiac_udc_outlines_are_filled_and_slips_of_the_pen_dropped(tmp_path):
    labels = np.stack([outlined(FOUR), np.zeros_like(FOUR), FOUR])
    assert 0 < (labels[0] > 0).sum() < 0.3 * (FOUR > 0).sum()
    labels[1, 30, 30:33] = 2
    labels[2, 53, 60:62] = 3
    save_udc(tmp_path / "raw/label_all_frame", "normal-3-4", labels)
    found, manifest = run("cardiac_udc", tmp_path / "raw", tmp_path / "out")
    assert sorted(found) == ["label_all_frame_normal-3-4_00000", "label_all_frame_normal-3-4_00002"]
    for _, _, masks in found.values():
        np.testing.assert_array_equal(dict(masks)["right_atrium"], region(RA))
        assert len(masks) == 4
    assert manifest["changes"]["components_dropped"] == 1


def test_cardiac_udc_outlines_that_share_a_stretch_are_filled_too(tmp_path):
    ventricle, atrium = painted(v1=(slice(8, 26), LV[1])), painted(v2=(slice(25, 44), LV[1]))
    line = outlined(ventricle)
    line[outlined(atrium) > 0] = 2
    assert not (line[25] == 1).any()
    save_udc(tmp_path / "raw/label_all_frame", "patient-3-4", line[None])
    found, _ = run("cardiac_udc", tmp_path / "raw", tmp_path / "out")
    masks = dict(found["label_all_frame_patient-3-4_00000"][2])
    np.testing.assert_array_equal(masks["left_atrium"], atrium == 2)
    ventricle[25] = 0
    np.testing.assert_array_equal(masks["left_ventricle"], ventricle == 1)


@pytest.mark.parametrize(("affine", "reversed_axes"), [(LPS, None), (RAS, ["rows", "columns"])])
def test_cardiac_udc_pictures_stand_as_a_viewer_shows_them(tmp_path, affine, reversed_axes):
    frames = save_udc(tmp_path / "raw/Site_G_20", "patient-1-4", FOUR[None], affine)
    found, _ = run("cardiac_udc", tmp_path / "raw", tmp_path / "out")
    image, pixels, masks = found["Site_G_20_patient-1-4_00000"]
    np.testing.assert_array_equal(pixels[..., 0], frames[0])
    np.testing.assert_array_equal(dict(masks)["left_ventricle"], region(LV))
    assert image.get("reversed_axes") == reversed_axes
    assert image["spacing_mm"] == pytest.approx([0.3, 0.2])


def _open_line(frame):
    line = outlined(frame)
    line[8:26, 55] = 0
    return line


def _other_order(_):
    return painted(v1=LV, v2=RV, v3=LA, v4=RA)


def _fifth(frame):
    return np.where(frame == 4, 6, frame)


@pytest.mark.parametrize(("spoil", "words"), [
    (_open_line, "found an open line"), (_other_order, "another order"), (_fifth, r"found also \[6\]"),
])
def test_cardiac_udc_frames_that_do_not_fit_fail_alone(tmp_path, capsys, spoil, words):
    labels = np.stack([FOUR, FOUR])
    labels[1] = spoil(FOUR)
    save_udc(tmp_path / "raw/label_all_frame", "patient-5-4", labels)
    found, manifest = run("cardiac_udc", tmp_path / "raw", tmp_path / "out", keep_going=True)
    assert list(found) == ["label_all_frame_patient-5-4_00000"]
    (failure,) = manifest["failures"]
    assert words.replace("\\", "") in failure["reason"]
    with pytest.raises(DataError, match="1 of 2 images"):
        run("cardiac_udc", tmp_path / "raw", tmp_path / "other")


def test_cardiac_udc_unknown_views_say_that_the_layout_is_unsure(tmp_path):
    save_udc(tmp_path / "raw/Site_G_20", "patient-1-7", FOUR[None])
    with pytest.raises(DataError, match=r"patient-1-7_label.nii.gz: a name like .* known from descriptions only"):
        run("cardiac_udc", tmp_path / "raw", tmp_path / "out")


# EchoCP --------------------------------------------------------------------------------------------------------------

# The chambers touch: one component if their labels were merged.
TOUCHING = {"left_ventricle": (slice(8, 26), slice(30, 50)), "right_ventricle": (slice(8, 26), slice(10, 30)),
            "left_atrium": (slice(26, 44), slice(30, 50)), "right_atrium": (slice(26, 44), slice(10, 30))}
ORDERS = [("left_ventricle", "right_ventricle", "left_atrium", "right_atrium"),
          ("left_ventricle", "left_atrium", "right_atrium", "right_ventricle")]


def chambers(order: tuple[str, ...]) -> np.ndarray:
    return painted(**{f"v{value}": TOUCHING[name] for value, name in enumerate(order, start=1)})


@pytest.mark.parametrize("order", ORDERS)
def test_echocp_touching_chambers_stay_four_objects_named_by_their_places(tmp_path, order):
    raw = tmp_path / "raw/EchoCP_dataset"
    labels = np.stack([np.zeros((56, 66), np.uint8), chambers(order)])
    frames = save_udc(raw, "001_r", labels, RAS)
    save_udc(raw, "001_v", labels[1:], LPS)
    save_udc(raw, "002_r", (labels[1:] == 1).astype(np.uint8), LPS)
    found, manifest = run("echocp", tmp_path / "raw", tmp_path / "out")
    assert sorted(found) == ["001_r_00001", "001_v_00000", "002_r_00000"]
    image, pixels, masks = found["001_r_00001"]
    np.testing.assert_array_equal(pixels[..., 0], frames[1])
    assert len(masks) == 4
    for name, mask in masks:
        np.testing.assert_array_equal(mask, region(TOUCHING[name]))
    assert (image["group"], image["frame"], image["action"]) == ("echocp/001", 1, "rest")
    assert found["001_v_00000"][0]["group"] == "echocp/001"
    assert found["001_v_00000"][0]["action"] == "valsalva"
    assert [name for name, _ in found["002_r_00000"][2]] == ["left_ventricle"]
    assert manifest["counts"]["groups"] == 2


def test_echocp_order_of_chambers_that_cannot_be_told_is_refused(tmp_path):
    raw = tmp_path / "raw"
    save_udc(raw, "001_r", np.stack([chambers(ORDERS[0]), chambers(ORDERS[1])]))
    with pytest.raises(DataError, match=r"order of the chambers were expected, found 1 for .* and 1 for"):
        run("echocp", raw, tmp_path / "out")


# EchoNet-Dynamic -----------------------------------------------------------------------------------------------------


def test_echonet_dynamic_traces_skip_the_long_axis_and_round(tmp_path):
    raw = tmp_path / "raw/EchoNet-Dynamic"
    save_video(raw / "Videos/0XA.avi", 6)
    save_video(raw / "Videos/0XB.avi", 3)
    save_csv(raw / "FileList.csv", "FileName,EF,Split", ("0XA", "55", "TRAIN"), ("0XB", "60", "TEST"))
    # Vertices round to x 11 to 30 and y 10 to 26; cut off they would be 10 to 30 and 10 to 25.
    crossing = [(10.6, 10.4, 30.4, 10.4), (10.6, 18.0, 30.4, 18.0), (10.6, 25.6, 30.4, 25.6)]
    save_csv(raw / "VolumeTracings.csv", "FileName,X1,Y1,X2,Y2,Frame",
             *(("0XA.avi", *line, frame) for frame in (4, 0) for line in [(40, 2, 5, 45), *crossing]),
             *(("0XB.avi", *line, 2) for line in [(40, 2, 5, 45), *crossing]))
    found, manifest = run("echonet_dynamic", tmp_path / "raw", tmp_path / "out")
    assert sorted(found) == ["0XA_00000", "0XA_00004", "0XB_00002"]
    truth = np.zeros((48, 48), bool)
    truth[10:27, 11:31] = True
    for name, (image, pixels, masks) in found.items():
        assert shown(pixels) == image["frame"] == int(name[-5:])
        ((category, mask),) = masks
        assert category == "left_ventricle"
        np.testing.assert_array_equal(mask, truth)
        assert image["group"] == f"echonet_dynamic/{name[:3]}"
        assert image["official_split"] == {"0XA": "train", "0XB": "test"}[name[:3]]
        assert image["split"] in ("train", "val")
    assert manifest["counts"]["masks"] == 3


def test_echonet_dynamic_missing_videos_and_frames_are_named(tmp_path):
    raw = tmp_path / "raw"
    save_video(raw / "Videos/0XA.avi", 3)
    save_csv(raw / "FileList.csv", "FileName,Split", ("0XA", "TRAIN"), ("0XB", "TRAIN"))
    square = [(9, 9, 30, 9), (10, 10, 30, 10), (10, 30, 30, 30)]
    save_csv(raw / "VolumeTracings.csv", "FileName,X1,Y1,X2,Y2,Frame",
             *((f"{name}.avi", *line, frame)
               for name, frame in (("0XA", 1), ("0XA", 3), ("0XB", 0)) for line in square))
    found, manifest = run("echonet_dynamic", raw, tmp_path / "out", keep_going=True)
    assert list(found) == ["0XA_00001"]
    assert [item["key"] for item in manifest["failures"]] == ["0XA_00003", "0XB_00000"]
    assert "frame 3 (counted from 0) was expected, the file has 3 frames" in manifest["failures"][0]["reason"]


@pytest.mark.parametrize(("line", "words"), [
    (("0XA.avi", 1, 2, 3, "", 4), "line 2: numbers were expected"),
    (("0XA.avi", 1, 2, 3, 4, "x"), "0XA: Frame: a whole number was expected, found 'x'"),
    (("0XA.avi", 1, 2, 3, 4), "line 2 is shorter than the header"),
])
def test_echonet_dynamic_faulty_tables_are_refused(tmp_path, line, words):
    save_csv(tmp_path / "raw/FileList.csv", "FileName,Split", ("0XA", "TRAIN"))
    save_csv(tmp_path / "raw/VolumeTracings.csv", "FileName,X1,Y1,X2,Y2,Frame", line)
    with pytest.raises(DataError, match=words):
        run("echonet_dynamic", tmp_path / "raw", tmp_path / "out")


# EchoNet-Pediatric ---------------------------------------------------------------------------------------------------

SQUARE = [(10.4, 12.6), (30.4, 12.6), (30.4, 28.0), (10.4, 28.0)]


def save_pediatric(raw: Path, view: str, lengths: dict[str, int], frames: dict[str, list]) -> None:
    """Write a view's videos and tables, with the square traced in every frame; text frames have no coordinates."""
    folder = raw / "pediatric_echo_avi/pediatric_echo_avi" / view
    for name, length in lengths.items():
        save_video(folder / f"Videos/{name}.avi", length)
    save_csv(folder / "FileList.csv", "FileName,EF,Split", *((f"{name}.avi", 60, 7) for name in lengths))
    save_csv(folder / "VolumeTracings.csv", "FileName,X,Y,Frame",
             *((f"{name}.avi", *(("", "") if isinstance(frame, str) else point), frame)
               for name, listed in frames.items() for frame in listed for point in SQUARE))


@pytest.mark.parametrize(("frames", "base", "attribute"), [
    ([1, 5], 1, 1), ([0, 4], 0, 0), ([1, 4], 0, "0 (assumed)"),
])
def test_echonet_pediatric_frames_are_counted_from_what_the_data_show(tmp_path, frames, base, attribute):
    save_pediatric(tmp_path / "raw", "A4C", {"CR1-CR2-01": 8, "CR3-CR4-01": 5},
                   {"CR1-CR2-01": [3, "No Systolic"], "CR3-CR4-01": frames})
    found, _ = run("echonet_pediatric", tmp_path / "raw", tmp_path / "out")
    expected = {("CR1-CR2-01", 3 - base), *(("CR3-CR4-01", frame - base) for frame in frames)}
    assert set(found) == {f"A4C_{name}_{frame:05d}" for name, frame in expected}
    truth = np.zeros((48, 48), bool)
    truth[13:29, 10:31] = True
    for image, pixels, masks in found.values():
        assert shown(pixels) == image["frame"]
        assert image["frame_base"] == attribute
        ((name, mask),) = masks
        assert name == "left_ventricle"
        np.testing.assert_array_equal(mask, truth)


def test_echonet_pediatric_joins_the_views_of_a_patient_and_tells_them_apart(tmp_path):
    raw = tmp_path / "raw"
    save_pediatric(raw, "A4C", {"CR1-CR2-01": 4}, {"CR1-CR2-01": [2, "No Diastolic"]})
    save_pediatric(raw, "PSAX", {"CR1-CR2-01": 3, "CR9-CR2-01": 4}, {"CR1-CR2-01": [3], "CR9-CR2-01": [1]})
    found, manifest = run("echonet_pediatric", raw, tmp_path / "out")
    # The short axis shows that frames are counted from 1; this holds for both tables.
    assert {name: (image["group"], image["view"]) for name, (image, _, _) in found.items()} == {
        "A4C_CR1-CR2-01_00001": ("echonet_pediatric/CR1", "apical four-chamber"),
        "PSAX_CR1-CR2-01_00002": ("echonet_pediatric/CR1", "parasternal short axis"),
        "PSAX_CR9-CR2-01_00000": ("echonet_pediatric/CR9", "parasternal short axis"),
    }
    assert {image["official_split"] for image, _, _ in found.values()} == {"fold 7"}
    assert manifest["counts"]["failed"] == 0


def test_echonet_pediatric_other_texts_in_place_of_frames_are_refused(tmp_path):
    save_pediatric(tmp_path / "raw", "A4C", {"CR1-CR2-01": 4}, {"CR1-CR2-01": [1]})
    table = tmp_path / "raw/pediatric_echo_avi/pediatric_echo_avi/A4C/VolumeTracings.csv"
    table.write_text(table.read_text() + "CR1-CR2-01.avi,3,4,Unknown\n")
    with pytest.raises(DataError, match="found 'Unknown'"):
        run("echonet_pediatric", tmp_path / "raw", tmp_path / "out")


@pytest.mark.parametrize("slug", ["camus", "cardiac_udc", "echocp", "echonet_dynamic", "echonet_pediatric"])
def test_cardiac_sets_and_what_they_say_to_an_empty_folder(slug, tmp_path):
    info = find_converter(slug).info
    assert info.application == ("Patent Foramen Ovale" if slug == "echocp" else "cardiac")
    with pytest.raises(DataError, match="expected"):
        list(find_converter(slug).records(tmp_path))
