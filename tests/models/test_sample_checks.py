"""The pipeline must resize as the weights were trained, and give targets of the network's size."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mini_batches import LOW, SIZE, packed, small_detector

from ultrasam.datasets.transforms import FitSquare
from ultrasam.errors import ConfigError
from ultrasam.geometry.transform import SquareTransform
from ultrasam.modeling.sam import Preprocessing
from ultrasam.models.sample_checks import check_transforms, resize_mode


def data_of(fit, size=(60, 96)):
    return {key: [value] for key, value in packed(0, 1, size=size, fit=fit).items()}


WRONG = [
    (FitSquare(SIZE, mode="squash", target_size=LOW), "mode='squash'"),
    (FitSquare(SIZE, interpolation="area", target_size=LOW), "interpolation='area'"),
    (FitSquare(64, target_size=LOW), "square=64"),
]


@pytest.mark.parametrize(("fit", "found"), WRONG)
@pytest.mark.parametrize("mode", ["loss", "predict", "tensor"])
def test_another_preprocessing_is_refused_in_every_mode(fit, found, mode):
    detector = small_detector()
    batch = detector.data_preprocessor(data_of(fit))
    with pytest.raises(ConfigError) as error:
        detector(**batch, mode=mode)
    text = str(error.value)
    assert "0.png" in text and found in text and "\n" not in text
    assert "preprocessing has square=128, mode='pad', interpolation='bilinear'" in text


def test_one_wrong_image_of_a_batch_is_named():
    detector = small_detector()
    right, wrong = packed(3, 1), packed(4, 1, fit=WRONG[0][0])
    batch = {key: [right[key], wrong[key]] for key in right}
    with pytest.raises(ConfigError, match=r"^4\.png of \(60, 96\) was resized to \(128, 128\)"):
        detector.test_step(batch)


def test_weights_that_want_a_squashed_square():
    detector = small_detector(preprocessing={"mode": "squash", "scaling": "min_max"})
    detector.test_step(data_of(WRONG[0][0]))
    with pytest.raises(ConfigError, match=r"mode='pad'.*has square=128, mode='squash'"):
        detector.test_step(data_of(FitSquare(SIZE)))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 1100),
    st.sampled_from(["pad", "squash"]), st.sampled_from(["pad", "squash"]),
)  # fmt: skip
def test_right_sizes_are_never_refused(height, width, square, mode, other):
    fit = SquareTransform.fit(height, width, square, mode)
    samples = [SimpleNamespace(transform=fit)]
    check_transforms(samples, Preprocessing(square=square, mode=mode))
    expected = SquareTransform.fit(height, width, square, other).resized_size
    if np.abs(np.subtract(expected, fit.resized_size)).max() <= 1:
        # Where both modes give the same image there is nothing to refuse.
        check_transforms(samples, Preprocessing(square=square, mode=other))
    else:
        assert resize_mode(fit) == mode
        with pytest.raises(ConfigError, match=f"an image of .*mode='{mode}'.*has .*mode='{other}'"):
            check_transforms(samples, Preprocessing(square=square, mode=other))


def test_sizes_that_the_released_system_truncates_are_accepted():
    truncated = SquareTransform((533, 958), (569, 1023), 1024)
    check_transforms([SimpleNamespace(transform=truncated)], Preprocessing())
    with pytest.raises(ConfigError, match=r"\(567, 1022\)"):
        check_transforms([SimpleNamespace(transform=SquareTransform((533, 958), (567, 1022), 1024))], Preprocessing())


@pytest.mark.parametrize("size", [16, None])
def test_targets_of_another_size_are_refused(size):
    detector = small_detector()
    data = detector.data_preprocessor(data_of(FitSquare(SIZE, target_size=size)), True)
    with pytest.raises(ConfigError, match=f"have 32 pixels a side, the pipeline gives {size}; set target_size=32"):
        detector(**data, mode="loss")
    detector(**data, mode="predict")
