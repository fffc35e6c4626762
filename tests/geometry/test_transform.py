"""The square transform against Segment Anything, closed forms and round trips."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.transform import SquareTransform

SIZES = [
    (300, 900),
    (900, 300),
    (1, 1024),
    (1024, 1),
    (16, 16),
    (533, 958),
    (1024, 1024),
    (1500, 2000),
    (3, 2000),
]
SIDES = st.integers(1, 3000)


@given(SIDES, SIDES)
def test_pad_takes_the_size_of_segment_anything(height: int, width: int) -> None:
    transform = SquareTransform.fit(height, width, 1024)
    expected = ResizeLongestSide.get_preprocess_shape(height, width, 1024)
    assert transform.resized_size == tuple(max(1, side) for side in expected)
    assert max(transform.resized_size) == 1024


def test_squash_fills_the_square() -> None:
    transform = SquareTransform.fit(300, 900, 256, mode="squash")
    assert transform.resized_size == (256, 256)
    np.testing.assert_allclose(transform.points(np.array([900.0, 300.0])), [256, 256])
    assert transform.logits_back(torch.randn(2, 64, 64)).shape == (2, 300, 900)


@settings(max_examples=50)
@given(SIDES, SIDES, st.integers(1, 1500), st.sampled_from(["pad", "squash"]), st.randoms())
def test_points_and_boxes_come_back(height: int, width: int, square: int, mode: str, random) -> None:
    transform = SquareTransform.fit(height, width, square, mode=mode)
    points = np.array([[random.uniform(0, width), random.uniform(0, height)] for _ in range(5)])
    there = transform.points(points)
    assert (there >= 0).all()
    assert (there[:, 0] <= transform.resized_size[1] + 1e-9).all()
    assert (there[:, 1] <= transform.resized_size[0] + 1e-9).all()
    np.testing.assert_allclose(transform.points_back(there), points, rtol=1e-12, atol=1e-9)
    boxes = np.concatenate([points, points + 3], axis=1)
    np.testing.assert_allclose(transform.boxes(boxes)[:, 2:], transform.points(points + 3))
    np.testing.assert_allclose(transform.boxes_back(transform.boxes(boxes)), boxes, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_points_are_those_of_segment_anything(size: tuple[int, int]) -> None:
    height, width = size
    points = np.array([[0, 0], [width - 1, height - 1], [width, height], [width / 3, height / 2]])
    transform = SquareTransform.fit(height, width, 1024)
    if min(ResizeLongestSide.get_preprocess_shape(height, width, 1024)) == 0:
        pytest.skip("Segment Anything makes an image of no rows of it")
    expected = ResizeLongestSide(1024).apply_coords(points, size)
    np.testing.assert_allclose(transform.points(points), expected)
    torch.testing.assert_close(transform.points(torch.from_numpy(points)), torch.from_numpy(expected))


def test_types_of_coordinates() -> None:
    transform = SquareTransform.fit(100, 200, 1024)
    assert transform.points(np.array([[1, 2]])).dtype == np.float32
    assert transform.points(np.array([[1, 2]], dtype=np.float32)).dtype == np.float32
    assert transform.points(torch.tensor([[1, 2]])).dtype == torch.float32
    assert transform.points(np.zeros((0, 3, 2))).shape == (0, 3, 2)
    assert np.isnan(transform.boxes(np.full((2, 4), np.nan))).all()
    given_points = np.array([[10.0, 20.0]])
    transform.points(given_points)
    assert given_points.tolist() == [[10.0, 20.0]]
    with pytest.raises(DataError, match="last dimension must be 2"):
        transform.points(np.zeros((2, 4)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "area"])
def test_image_has_the_resized_size_and_keeps_a_flat_grey(size: tuple[int, int], interpolation: str) -> None:
    transform = SquareTransform.fit(*size, 512, interpolation=interpolation)
    resized = transform.image(np.full((*size, 3), 77, dtype=np.uint8))
    assert resized.dtype == np.uint8
    assert resized.shape == (*transform.resized_size, 3)
    assert (resized == 77).all()


def test_area_reduction_is_the_mean_of_the_covered_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    reduced = SquareTransform.fit(64, 64, 16, interpolation="area").image(image)
    mean = image.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced - mean).max() <= 0.51


def test_a_bright_spot_of_the_image_lands_where_its_point_lands() -> None:
    image = np.zeros((300, 900, 3), dtype=np.uint8)
    image[200:210, 700:710] = 255
    transform = SquareTransform.fit(300, 900, 1024)
    y, x = np.nonzero(transform.image(image)[..., 0] > 127)
    np.testing.assert_allclose(
        (x.mean() + 0.5, y.mean() + 0.5), transform.points(np.array([705.0, 205.0])), atol=0.5
    )


def test_images_of_another_size_are_refused() -> None:
    transform = SquareTransform.fit(300, 900, 1024)
    with pytest.raises(DataError, match=r"\(300, 900\) \(height, width\), found \(900, 300\)"):
        transform.image(np.zeros((900, 300, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="found"):
        transform.mask(np.zeros((299, 900), dtype=bool))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_mask_takes_the_pixel_under_each_centre(height: int, width: int, square: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    transform = SquareTransform.fit(height, width, square)
    resized = transform.mask(mask)
    rows, columns = transform.resized_size
    assert resized.dtype == bool
    assert resized.shape == (rows, columns)
    # The exact position as a fraction, so that rounding has no say.
    for y in range(0, rows, 7):
        for x in range(0, columns, 5):
            assert (
                resized[y, x]
                == mask[(2 * y + 1) * height // (2 * rows), (2 * x + 1) * width // (2 * columns)]
            )


def test_mask_enlarged_by_a_whole_factor_repeats_its_pixels() -> None:
    mask = np.random.default_rng(0).random((16, 16)) < 0.5
    np.testing.assert_array_equal(SquareTransform.fit(16, 16, 64).mask(mask), mask.repeat(4, 0).repeat(4, 1))


class _Sam:
    """What Sam.postprocess_masks needs of its object."""

    class image_encoder:
        img_size = 1024


@pytest.mark.parametrize("size", [(300, 900), (900, 300), (533, 958), (16, 16), (1, 1024), (640, 480)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_logits_come_back_as_in_segment_anything(size: tuple[int, int], dtype: torch.dtype) -> None:
    logits = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(3)).to(dtype)
    transform = SquareTransform.fit(*size, 1024)
    expected = Sam.postprocess_masks(_Sam, logits.float()[None], transform.resized_size, size)[0]
    found = transform.logits_back(logits)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_many_masks_come_back_as_one_by_one() -> None:
    logits = torch.randn(35, 16, 16, generator=torch.Generator().manual_seed(0))
    transform = SquareTransform.fit(20, 30, 64)
    torch.testing.assert_close(
        transform.logits_back(logits), torch.cat([transform.logits_back(one[None]) for one in logits])
    )
    assert transform.logits_back(logits[:0]).shape == (0, 20, 30)
    assert transform.masks_back_released(logits[:0]).dtype == torch.bool


def test_gradients_flow_through_logits_back() -> None:
    logits = torch.zeros(2, 8, 8, requires_grad=True)
    SquareTransform.fit(10, 20, 32).logits_back(logits).sum().backward()
    # All weight stays in the image: rows of the padding receive nothing.
    assert logits.grad is not None
    assert logits.grad.sum().item() == pytest.approx(2 * 10 * 20, rel=1e-5)
    assert (logits.grad[:, 6:] == 0).all()


def disc_logits(square: int, low: int, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed distance to a disc at the low resolution, and the disc at full resolution."""
    centre = square / 2 + 1.3
    full = torch.arange(square) + 0.5
    truth = torch.hypot(full[None] - centre, full[:, None] - centre) <= radius
    coarse = (torch.arange(low) + 0.5) * (square / low)
    return radius - torch.hypot(coarse[None] - centre, coarse[:, None] - centre), truth


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(
    ("radius", "at_least", "released"), [(20, 0.987, 0.78), (60, 0.999, 0.91), (150, 0.9993, 0.97)]
)
def test_a_disc_comes_back_whole_and_the_released_order_inflates_it(
    radius: float, at_least: float, released: float
) -> None:
    logits, truth = disc_logits(1024, 256, radius)
    transform = SquareTransform.fit(1024, 1024, 1024)
    assert iou(transform.logits_back(logits[None])[0] > 0, truth) >= at_least
    inflated = transform.masks_back_released(logits[None])[0]
    assert inflated.dtype == torch.bool
    assert iou(inflated, truth) == pytest.approx(released, abs=0.02)
    assert inflated.sum() > truth.sum()


def test_released_order_by_hand() -> None:
    """One positive logit of 4 x 4: every pixel that its bilinear weight reaches is foreground."""
    logits = torch.full((1, 4, 4), -1.0)
    logits[0, 1, 1] = 1e-3
    found = SquareTransform.fit(8, 8, 8).masks_back_released(logits)[0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:5, 1:5] = True
    assert torch.equal(found, expected)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="at least 1 pixel, found image 0 x 5"):
        SquareTransform.fit(0, 5, 64)
    with pytest.raises(ConfigError, match="'pad' or 'squash', found 'crop'"):
        SquareTransform.fit(5, 5, 64, mode="crop")
    with pytest.raises(ConfigError, match="'area' or 'bicubic', found 'cubic'"):
        SquareTransform.fit(5, 5, 64, interpolation="cubic")
    with pytest.raises(ConfigError, match="inside its square"):
        SquareTransform((5, 5), (65, 64), 64)
    with pytest.raises(DataError, match=r"\(masks, height, width\), found \(1, 2, 3, 3\)"):
        SquareTransform.fit(5, 5, 64).logits_back(torch.zeros(1, 2, 3, 3))
