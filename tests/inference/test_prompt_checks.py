"""What is refused before the network sees it, and that nothing else is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrasam.errors import PromptError
from ultrasam.inference.prompt import Prompt, check_prompt

HEIGHT, WIDTH = 300, 480

REFUSED = [
    (dict(), "empty"),
    (dict(points=[[480, 20]]), r"\(480, 20\).*480 x 300"),
    (dict(points=[[5, 5], [20, 300]]), r"point 2 of 2.*\(20, 300\).*y from 0 to 299"),
    (dict(points=[[-0.5, 20]]), r"\(-0\.5, 20\)"),
    (dict(points=[[float("nan"), 20]]), r"\(nan, 20\)"),
    (dict(points=[[float("inf"), 20]]), r"\(inf, 20\)"),
    (dict(points=[[50, 60]], labels=[0]), r"negative.*\(50, 60\)"),
    (dict(points=[[0.5, 0.25]]), r"between 0 and 1.*multiply x by 480 and y by 300"),
    (dict(box=[0.1, 0.2, 0.5, 1.0]), r"0\.1, 0\.2, 0\.5, 1.*between 0 and 1"),
    (dict(box=[100, 20, 50, 60]), r"100, 20, 50, 60 is reversed"),
    (dict(box=[100, 60, 150, 20]), "reversed"),
    (dict(box=[100, 20, 100, 60]), "100, 20, 100, 60 is empty"),
    (dict(box=[100, 20, 150, 301]), r"100, 20, 150, 301.*y from 0 to 300"),
    (dict(box=[-1, 20, 150, 30]), "-1, 20, 150, 30"),
    (dict(box=[1, 20, 150, float("nan")]), "nan has a value that is no number"),
    (dict(box=[1, 20, 150]), r"four numbers.*\(3,\)"),
    (dict(box=[[1, 20, 150, 200]]), r"\(1, 4\)"),
    (dict(points=[[1, 2, 3]]), r"\(1, 3\)"),
    (dict(points=[]), "shape"),
    (dict(points=[[5, 5], [6, 6]], labels=[1]), "2 points need 2 labels.*shape \\(1,\\)"),
    (dict(points=[[5, 5]], labels=[2]), "found 2"),
    (dict(points=[[5, 5]], labels=[-1]), "found -1"),
    (dict(points=[[5, 5]], labels=[0.5]), "found 0.5"),
    (dict(points=[[5, 5]], labels=[float("nan")]), "found nan"),
    (dict(labels=[1]), "no points"),
    (dict(points=[["a", "b"]]), "must be numbers.*'a'"),
    (dict(points=[[1, 2], [3]]), "rows of equal length"),
    (dict(box="1,2,3,4"), "must be numbers.*1,2,3,4"),
    (dict(logits=torch.zeros(1, 8, 8)), r"\(1, 8, 8\)"),
    (dict(logits=torch.zeros(8, 8, dtype=torch.bool)), "bool"),
]


@pytest.mark.parametrize(("arguments", "says"), REFUSED)
def test_refused_with_the_value(arguments, says):
    with pytest.raises(PromptError, match=says) as caught:
        check_prompt(Prompt.of(**arguments), HEIGHT, WIDTH)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(points=[479.9, 299.9]),
        dict(points=[0, 0]),
        dict(points=[[0, 0], [1, 1]], labels=[1, 0]),
        dict(points=[[1, 0]]),
        dict(points=[[0.5, 2]]),
        dict(box=[0, 0, 480, 300]),
        dict(box=[0, 0, 1, 1]),
        dict(box=[0.5, 0.5, 1.5, 1.5]),
        dict(points=[[50, 60]], labels=[0], box=[1, 2, 3, 4]),
        dict(points=[[50, 60]], labels=[0], logits=torch.zeros(8, 8)),
        dict(points=[[50, 60]], labels=[True]),
        dict(logits=torch.zeros(8, 8)),
    ],
)
def test_accepted(arguments):
    check_prompt(Prompt.of(**arguments), HEIGHT, WIDTH)


def test_fractions_are_pixels_in_an_image_of_one_pixel():
    check_prompt(Prompt.of(points=[0.5, 0.5]), 1, 1)


def test_types_and_shapes():
    prompt = Prompt.of((3, 4), box=(1, 2, 3, 4))
    assert prompt.points.tolist() == [[3, 4]] and prompt.points.dtype == np.float32
    assert prompt.labels.tolist() == [1] and prompt.labels.dtype == np.int64
    assert prompt.box.dtype == np.float32 and prompt.logits is None
    assert prompt.to_dict() == {"points": [[3, 4]], "labels": [1], "box": [1, 2, 3, 4]}


numbers = st.one_of(
    st.floats(-50, 600, width=32), st.integers(-5, 500), st.sampled_from([float("nan"), float("inf"), -float("inf")])
)


def is_sound(points, labels, box, height, width):
    """The rules of the documentation, written a second time, with comparisons of single numbers."""
    def fractions(values):
        return all(value <= 1 for value in values) and any(value != int(value) for value in values)

    if not points and box is None:
        return False
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            return False
    if points and 1 not in labels and box is None:
        return False
    if points and fractions([value for point in points for value in point]):
        return False
    if box is None:
        return True
    x1, y1, x2, y2 = box
    return 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height and not fractions(box)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(numbers, numbers, st.integers(0, 1)), max_size=4),
    st.none() | st.tuples(numbers, numbers, numbers, numbers),
    st.integers(2, 500),
    st.integers(2, 500),
)
def test_follows_the_rules_on_any_numbers(marked, box, height, width):
    points, labels = [(x, y) for x, y, _ in marked], [label for _, _, label in marked]
    prompt = Prompt.of(points or None, labels or None, box)
    if is_sound(points, labels, box, height, width):
        check_prompt(prompt, height, width)
    else:
        with pytest.raises(PromptError):
            check_prompt(prompt, height, width)


def test_prompts_need_no_torch():
    import subprocess
    import sys

    code = "import sys; from ultrasam.inference import Prompt, check_prompt; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
