"""Every kind of picture that users bring, written here by Pillow, tifffile or OpenCV."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from ultrasam.errors import DataError
from ultrasam.io import images
from ultrasam.io.images import image_size, read_image, read_mask, read_mask_colours, write_png

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
U16 = np.array([[0, 255, 256], [300, 1000, 65535]], dtype=np.uint16)
U16_SCALED = np.array([[0, 1, 1], [1, 4, 255]], dtype=np.uint8)


def save(folder: Path, name: str, image: Image.Image, **options) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


def grey_rgb(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=-1)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.PNG", "bénin (3) é.png", "名 前.tiff"])
def test_lossless_formats_and_names(tmp_path: Path, name: str) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path, name, Image.fromarray(RGB))), RGB)
    np.testing.assert_array_equal(read_image(save(tmp_path, name, Image.fromarray(GREY))), grey_rgb(GREY))
    assert image_size(tmp_path / name) == (6, 9)


def test_jpeg_is_near_and_symlinks_are_followed(tmp_path: Path) -> None:
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    path = save(tmp_path, "a.jpg", Image.fromarray(smooth), quality=95)
    link = tmp_path / "link.jpg"
    link.symlink_to(path)
    assert np.abs(read_image(link).astype(int) - grey_rgb(smooth)).max() <= 4
    np.testing.assert_array_equal(read_image(str(path)), read_image(link))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = GREY > 127
    path = save(tmp_path, "a.png", Image.fromarray(bits))
    assert Image.open(path).mode == "1"
    np.testing.assert_array_equal(read_image(path), grey_rgb(bits * np.uint8(255)))
    np.testing.assert_array_equal(read_mask(path), bits * np.uint8(255))


def test_alpha_is_laid_over_black(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
    rgba = np.dstack([RGB, alpha])
    expected = RGB * (alpha[..., None] / 255)
    found = read_image(save(tmp_path, "a.png", Image.fromarray(rgba)))
    assert np.abs(found - expected).max() <= 1
    la = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    found = read_image(save(tmp_path, "b.png", la))
    assert np.abs(found - grey_rgb(GREY) * (alpha[..., None] / 255)).max() <= 1


def palette_image(transparent: int | None = None) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    index = RNG.integers(0, 3, (5, 7), dtype=np.uint8)
    colours = np.array([[0, 0, 0], [128, 0, 0], [10, 200, 30]], dtype=np.uint8)
    image = Image.fromarray(index).convert("P")
    image.putdata(index.reshape(-1).tolist())
    image.putpalette(colours.reshape(-1).tolist())
    if transparent is not None:
        image.info["transparency"] = transparent
    return image, index, colours


def test_palette(tmp_path: Path) -> None:
    image, index, colours = palette_image()
    path = save(tmp_path, "a.png", image)
    assert Image.open(path).mode == "P"
    np.testing.assert_array_equal(read_image(path), colours[index])
    np.testing.assert_array_equal(read_mask(path, palette="index"), index)
    np.testing.assert_array_equal(read_mask_colours(path), colours[index])
    luminance = np.array([0, 0.299 * 128, 0.299 * 10 + 0.587 * 200 + 0.114 * 30])
    assert np.abs(read_mask(path) - luminance[index]).max() <= 1


def test_transparent_palette_entry_is_black(tmp_path: Path) -> None:
    image, index, colours = palette_image(transparent=2)
    path = save(tmp_path, "a.png", image)
    colours[2] = 0
    np.testing.assert_array_equal(read_image(path), colours[index])
    assert (read_mask(path)[index == 2] == 0).all()


def test_transparent_grey_and_colour_of_png_are_black(tmp_path: Path) -> None:
    grey = Image.fromarray(np.array([[7, 9], [200, 7]], dtype=np.uint8))
    found = read_image(save(tmp_path, "a.png", grey, transparency=200))
    np.testing.assert_array_equal(found[..., 0], [[7, 9], [0, 7]])


def test_cmyk_jpeg(tmp_path: Path) -> None:
    flat = np.full((16, 16, 3), (200, 40, 90), dtype=np.uint8)
    path = save(tmp_path, "a.jpg", Image.fromarray(flat).convert("CMYK"), quality=100)
    assert Image.open(path).mode == "CMYK"
    assert np.abs(read_image(path).astype(int) - flat).max() <= 3


@pytest.mark.parametrize("writer", ["pillow", "cv2", "tifffile", "big-endian"])
def test_sixteen_bits_are_scaled_and_never_wrapped(tmp_path: Path, writer: str) -> None:
    path = tmp_path / ("a.png" if writer in ("pillow", "cv2") else "a.tif")
    if writer == "pillow":
        Image.fromarray(U16).save(path)
    elif writer == "cv2":
        path.write_bytes(cv2.imencode(".png", U16)[1].tobytes())
    else:
        tifffile.imwrite(path, U16, byteorder=">" if writer == "big-endian" else "<")
    np.testing.assert_array_equal(read_image(path), grey_rgb(U16_SCALED))
    mask = read_mask(path)
    assert mask.dtype == np.uint16
    np.testing.assert_array_equal(mask, U16)
    assert image_size(path) == (2, 3)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float32", "float64"])
def test_other_numbers_of_tiff_are_scaled_by_their_range(tmp_path: Path, dtype: str) -> None:
    low, high = {
        "int8": (-100, 100),
        "int16": (-3000, 3000),
        "uint32": (0, 4e9),
        "int32": (-(2**31), 2e9),
    }.get(dtype, (-0.25, 1.0))
    values = np.linspace(low, high, 12).reshape(3, 4).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values)
    expected = np.rint((values.astype(float) - low) / (high - low) * 255)
    assert np.abs(read_image(tmp_path / "a.tif")[..., 0] - expected).max() <= 1
    assert image_size(tmp_path / "a.tif") == (3, 4)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_colour_is_scaled_as_a_whole_and_not_cut_to_its_high_byte(
    tmp_path: Path, name: str
) -> None:
    values = np.array([[[100, 200, 300], [356, 228, 164]]], dtype=np.uint16)
    if name == "a.png":
        (tmp_path / name).write_bytes(cv2.imencode(".png", values[..., ::-1])[1].tobytes())
    else:
        tifffile.imwrite(tmp_path / name, values, photometric="rgb")
    expected = np.rint((values - 100.0) / 256 * 255)
    np.testing.assert_array_equal(read_image(tmp_path / name), expected)
    with pytest.raises(DataError, match="2 colours"):
        read_mask(tmp_path / name)
    with pytest.raises(DataError, match="8 bits a channel"):
        read_mask_colours(tmp_path / name)


def test_float_colour_tiff(tmp_path: Path) -> None:
    values = RNG.random((4, 5, 3), dtype=np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    expected = (values - values.min()) / (values.max() - values.min()) * 255
    assert np.abs(read_image(tmp_path / "a.tif") - expected).max() <= 0.51


def test_one_value_gives_black_and_labels_stay(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((3, 4), 0.7, dtype=np.float32))
    assert not read_image(tmp_path / "a.tif").any()
    tifffile.imwrite(tmp_path / "b.tif", np.array([[0, 1], [2, 700]], dtype=np.float32))
    np.testing.assert_array_equal(read_mask(tmp_path / "b.tif"), [[0, 1], [2, 700]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_counted(tmp_path: Path, bad: float) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 1], [bad, 2]], dtype=np.float32))
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=r"a\.tif: 1 of 4 values are NaN or infinite"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("values", [[0, 0.5], [-1, 0], [0, 70000]])
def test_masks_of_other_numbers_are_refused(tmp_path: Path, values: list[float]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([values], dtype=np.float32))
    with pytest.raises(DataError, match="whole numbers from 0 to 65535"):
        read_mask(tmp_path / "a.tif")


def test_grey_masks_in_any_number_of_channels(tmp_path: Path) -> None:
    opaque = np.dstack([grey_rgb(GREY), np.full((6, 9), 255, np.uint8)])
    for name, array in [("l", GREY), ("rgb", grey_rgb(GREY)), ("rgba", opaque)]:
        mask = read_mask(save(tmp_path, f"{name}.png", Image.fromarray(array)))
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, GREY)


def test_coloured_mask_asks_for_a_colour_table(tmp_path: Path) -> None:
    painted = np.zeros((4, 4, 3), dtype=np.uint8)
    painted[1, 1] = (255, 0, 0)
    path = save(tmp_path, "a.png", Image.fromarray(painted))
    with pytest.raises(
        DataError, match=r"a\.png: a mask must be grey, but this one has 2 colours.*read_mask_colours"
    ):
        read_mask(path)
    np.testing.assert_array_equal(read_mask_colours(path), painted)


def test_mask_drawn_in_alpha_only_is_refused(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), dtype=np.uint8)
    rgba[1:3, 1:3, 3] = 255
    with pytest.raises(DataError, match="alpha channel only"):
        read_mask(save(tmp_path, "a.png", Image.fromarray(rgba)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_exif_orientation(tmp_path: Path, name: str, orientation: int) -> None:
    """The stored picture is made so that the upright one has its bright quarter top left and is 20 x 40."""
    upright = np.zeros((40, 20), dtype=np.uint8)
    upright[:20, :10] = 250
    upright[:20, 10:] = 100
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    path = save(tmp_path, name, Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert image_size(path) == (40, 20)
    found = read_image(path)
    assert found.shape == (40, 20, 3)
    assert np.abs(found[..., 0].astype(int) - upright).mean() < 4
    if name == "a.png":
        np.testing.assert_array_equal(read_mask(path), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_deep_colour(tmp_path: Path, orientation: int) -> None:
    values = RNG.integers(0, 65536, (3, 5, 3), dtype=np.uint16)
    tifffile.imwrite(
        tmp_path / "deep.tif", values, photometric="rgb", extratags=[(274, "H", 1, orientation, True)]
    )
    low = ((values.astype(float) - values.min()) / float(values.max() - values.min()) * 255).round()
    exif = Image.Exif()
    exif[274] = orientation
    plain = save(tmp_path, "plain.png", Image.fromarray(low.astype(np.uint8)), exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.tif"), read_image(plain))
    assert image_size(tmp_path / "deep.tif") == read_image(plain).shape[:2]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_exif_of_png_before_and_after_the_pixels(tmp_path: Path, late: bool, deep: bool) -> None:
    values = np.array([[[0, 10, 20], [30, 40, 255]]], dtype=np.uint16 if deep else np.uint8)
    data = cv2.imencode(".png", values[..., ::-1])[1].tobytes()
    exif = Image.Exif()
    exif[274] = 6
    at = len(data) - 12 if late else 33
    (tmp_path / "a.png").write_bytes(data[:at] + chunk(b"eXIf", exif.tobytes()[6:]) + data[at:])
    assert image_size(tmp_path / "a.png") == (2, 1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), values.swapaxes(0, 1))


def png_header(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rows + chunk(b"IEND", b"")


def jpeg_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def png_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
BROKEN = {
    "zero bytes": (b"", "is empty"),
    "lfs": (POINTER, "Git-LFS pointer.*git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s12--ab.png\n", "git annex get"),
    "html": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
    "text": (b"file,ef\n1,2\n", "not an image in a known format"),
    "truncated JPEG": (jpeg_bytes()[:700], "damaged or truncated"),
    "truncated PNG": (png_bytes()[:1500], "damaged or truncated"),
    "half header": (png_bytes()[:20], "not an image|damaged or truncated"),
    "broken PNG": (png_bytes()[:60] + b"\0\1\2\3" + png_bytes()[64:], "damaged or truncated"),
    "bomb": (png_header(60000, 60000), "enormous size|claims"),
    "large": (png_header(10000, 9500), "claims 9500 x 10000 pixels"),
    "TIFF of nothing": (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "not an image|damaged"),
}


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_broken_files_are_named(tmp_path: Path, kind: str, read) -> None:
    data, message = BROKEN[kind]
    path = tmp_path / "my scan.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [read_image, read_mask, image_size])
def test_missing_files_and_folders(tmp_path: Path, read) -> None:
    with pytest.raises(DataError, match=r"nowhere\.png does not exist"):
        read(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"folder|damaged|read"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["zero bytes", "lfs", "html", "text"])
def test_size_of_broken_files(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(BROKEN[kind][0])
    with pytest.raises(DataError, match=BROKEN[kind][1]):
        image_size(tmp_path / "a.png")


def test_size_reads_the_header_only(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes()[:60])
    assert image_size(path) == (64, 64)


def test_several_frames_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6, 8), dtype=np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match="holds 5 frames"):
        read_image(tmp_path / "a.tif")
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="holds 2 frames"):
        read_image(tmp_path / "a.gif")


@pytest.mark.parametrize(
    "array", [GREY, RGB, np.dstack([RGB, GREY]), U16, GREY > 99], ids=lambda a: f"{a.dtype}{a.ndim}"
)
def test_png_comes_back(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "new folder" / "ö.png"
    write_png(path, array)
    with Image.open(path) as image:
        stored = np.array(image)
    expected = array * np.uint8(255) if array.dtype == bool else array
    np.testing.assert_array_equal(stored, expected)
    write_png(path, array[::-1])
    assert sorted(p.name for p in path.parent.iterdir()) == ["ö.png"]


@pytest.mark.parametrize(
    "array", [np.zeros((3, 3)), np.zeros((3, 3, 2), np.uint8), np.zeros((3, 3, 3), np.uint16)]
)
def test_other_arrays_are_not_written(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(DataError, match="a PNG is written from"):
        write_png(tmp_path / "a.png", array)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file_and_leaves_no_rest(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.png"
    write_png(path, GREY)
    before = path.read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match=r"a\.png cannot be written .*No space left"):
        write_png(path, RGB)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_limit_is_below_the_one_of_pillow() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert images.MAX_PIXELS <= Image.MAX_IMAGE_PIXELS


@pytest.mark.shared
def test_real_files_read_with_the_size_of_their_header(shared: Path) -> None:
    lines = (shared / "data" / "PAIRS.tsv").read_text(encoding="utf-8").splitlines()
    names = [cell for line in lines[1::20] for cell in line.split("\t") if cell.endswith((".png", ".jpg"))]
    paths = [path for path in (shared / "data" / name for name in names) if path.is_file()]
    assert len(paths) > 20
    for path in paths:
        assert read_image(path).shape == (*image_size(path), 3)
