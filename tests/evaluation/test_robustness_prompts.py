"""Where the clicks of the robustness curves fall, on masks whose answer is known by hand."""

import numpy as np
import pytest

from ultrasam.errors import ConfigError
from ultrasam.evaluation.robustness_prompts import (
    POSITIONS,
    click_at,
    clicks_prompt,
    corrective_click,
    largest_part,
    object_generator,
)


def rectangle(*boxes, size=(60, 80)):
    """A mask of half-open boxes x1, y1, x2, y2."""
    mask = np.zeros(size, bool)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = True
    return mask


def generator(seed=0):
    return np.random.default_rng(seed)


def test_the_largest_error_is_clicked_where_it_is_deepest():
    truth = rectangle((10, 10, 51, 31))
    missed = rectangle((10, 10, 30, 31))
    # Missing: columns 30 to 50 and rows 10 to 30, whose middle is the only deepest pixel.
    assert corrective_click(missed, truth) == (40, 20, 1)
    # A larger superfluous part wins, and is clicked as outside.
    assert corrective_click(missed | rectangle((50, 32, 75, 57)), truth) == (62, 44, 0)
    assert corrective_click(missed | rectangle((60, 40, 75, 55)), truth) == (40, 20, 1)
    assert corrective_click(truth, truth) is None
    assert corrective_click(np.zeros_like(truth), np.zeros_like(truth)) is None


def test_parts_of_one_size():
    left, right = (5, 40, 14, 49), (60, 5, 69, 14)
    truth, nothing = rectangle(left, right), rectangle()
    # The first in reading order is the upper one, though it lies to the right.
    assert corrective_click(nothing, truth) == (64, 9, 1)
    # A missed part comes before a superfluous one, also where that is read first.
    assert corrective_click(rectangle(right), rectangle(left)) == (9, 44, 1)


def test_parts_that_touch_at_a_corner_are_one():
    pair = rectangle((10, 10, 15, 15), (15, 15, 20, 20))
    single = rectangle((40, 30, 46, 37))
    area, part = largest_part(pair | single)
    assert area == 50 and (part == pair).all()
    assert largest_part(rectangle()) is None


@pytest.mark.parametrize("seed", range(20))
def test_drawn_clicks_lie_where_they_should(seed):
    mask = rectangle((20, 10, 60, 50)) & ~rectangle((30, 20, 50, 40))
    x, y, label = click_at(mask, "random", generator(seed))
    assert mask[int(y), int(x)] and label == 1
    x, y, label = click_at(mask, "border", generator(seed))
    neighbours = [mask[int(y) + b, int(x) + a] for a, b in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    assert mask[int(y), int(x)] and not all(neighbours) and label == 1


def test_places_without_a_draw():
    ring = rectangle((20, 10, 61, 51)) & ~rectangle((31, 21, 50, 40))
    assert click_at(ring, "centroid", generator()) == (40, 30, 1) and not ring[30, 40]
    assert click_at(rectangle((20, 10, 41, 51)), "deepest", generator()) == (30, 30, 1)
    with pytest.raises(ConfigError, match="deepest, centroid, random, border, found 'middle'"):
        click_at(ring, "middle", generator())
    assert POSITIONS[0] == "deepest"


def test_draws_belong_to_the_object():
    first = object_generator(3, "a/1/1", "box").uniform(size=4)
    assert (object_generator(3, "a/1/1", "box").uniform(size=4) == first).all()
    for other in ((4, "a/1/1", "box"), (3, "a/1/2", "box"), (3, "a/1/1", "random")):
        assert not np.isclose(object_generator(*other).uniform(size=4), first).any()


def test_prompt_of_clicks():
    prompt = clicks_prompt([(3.5, 4, 1), (7, 8, 0)])
    assert prompt.points.tolist() == [[3.5, 4], [7, 8]] and prompt.points.dtype == np.float32
    assert prompt.point_labels.tolist() == [1, 0] and prompt.box is None
