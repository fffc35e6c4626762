"""The field of view: text outside of it is never mask, and cropped images answer in pixels of the whole image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import fan, noise, tiny_model

from ultrasam.errors import PromptError
from ultrasam.inference.model import Embedding
from ultrasam.inference.prompt import Prompt
from ultrasam.inference.session import Session

IMAGE, FAN, TEXT = fan()


class ScanOfArray:
    name, spacing = "screen.png", (0.1, 0.2)

    def __init__(self, image):
        self.image = image

    def read(self, frame=0):
        assert frame == 0
        return self.image


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def all_foreground(session):
    """What would be mask if the network called every pixel foreground."""
    side = session.model.sam.low_res_size
    return session.masks_of(torch.ones(1, side, side), np.ones(1, np.float32)).masks[0]


def test_text_outside_of_the_fan_is_never_mask(model):
    session = model.session(IMAGE)
    mask = all_foreground(session)
    # The search cuts the sharpest corners of the fan.
    assert not (mask & TEXT).any() and mask[FAN].mean() > 0.98
    # The rest of the surround is left as it is.
    assert mask[~FAN].mean() > 0.5
    assert all_foreground(model.session(IMAGE, clip=False)).all()


def test_cropped_images_have_no_mask_outside_of_the_field_of_view(model):
    session = model.open(ScanOfArray(IMAGE), crop=True)
    mask = all_foreground(session)
    assert np.array_equal(mask, session.field)
    assert mask[FAN].mean() > 0.98 and not (mask & TEXT).any() and mask.mean() < 0.7
    x1, y1, x2, y2 = session.window
    assert session.transform.original_size == (y2 - y1, x2 - x1) != IMAGE.shape[:2]
    assert session.spacing == (0.1, 0.2) and session.name == "screen.png" and session.image.shape == IMAGE.shape


def test_an_image_without_surround_is_left_alone(model):
    for crop in (False, True):
        session = model.open(ScanOfArray(noise()), crop=crop)
        assert session.field is None and session.window == (0, 0, 120, 90) and all_foreground(session).all()


def test_text_is_not_to_be_marked(model):
    y, x = np.argwhere(TEXT)[0]
    for session in (model.session(IMAGE), model.open(ScanOfArray(IMAGE), crop=True)):
        with pytest.raises(PromptError, match=rf"\({x}, {y}\) lies outside of the field of view"):
            session.predict(points=[[x, y]])
        with pytest.raises(PromptError, match="field of view"):
            session.predict(box=[x - 2, y - 2, x + 20, y + 5])
        # Negative points, and boxes that reach into the fan, say something about it.
        session.predict(box=[0, 0, 320, 240])
    model.session(IMAGE).predict(points=[[160, 100], [x, y]], labels=[1, 0])
    model.session(IMAGE, clip=False).predict(points=[[x, y]])


def test_what_is_cropped_away_cannot_be_marked(model):
    session = model.open(ScanOfArray(IMAGE), crop=True)
    with pytest.raises(PromptError, match="cropped away"):
        session.predict(points=[[160, 100], [1, 120]], labels=[1, 0])
    with pytest.raises(PromptError, match="field of view"):
        session.predict(points=[[1, 120]])


def test_a_cropped_image_answers_as_the_crop_alone(model):
    session = model.open(ScanOfArray(IMAGE), crop=True)
    x1, y1, x2, y2 = session.window
    alone = model.session(np.ascontiguousarray(IMAGE[y1:y2, x1:x2]), clip=False)
    shift = np.array([x1, y1])
    rough = np.zeros(IMAGE.shape[:2], bool)
    rough[80:130, 140:190] = True
    for points, labels, box, mask in (
        ([[160, 100]], None, None, None),
        ([[160, 100], [150, 60]], [1, 0], [130, 50, 200, 150], None),
        (None, None, [130, 50, 200, 150], rough),
    ):
        whole = session.predict(points=points, labels=labels, box=box, mask=mask)
        part = alone.predict(
            points=None if points is None else points - shift,
            labels=labels,
            box=None if box is None else box - np.tile(shift, 2),
            mask=None if mask is None else mask[y1:y2, x1:x2],
        )
        assert torch.equal(whole.logits, part.logits) and whole.masks.shape == (1, *IMAGE.shape[:2])
        expected = np.zeros_like(whole.masks)
        expected[:, y1:y2, x1:x2] = part.masks
        assert np.array_equal(whole.masks, expected & session.field)
        assert whole.prompts[0].box is None or whole.prompts[0].box.tolist() == box
    # Boxes may reach beyond the crop; the part inside is meant.
    beyond, inside = session.predict(box=[0, 0, 320, 240]), session.predict(box=[x1, y1, x2, y2])
    assert torch.equal(beyond.logits, inside.logits)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_coordinates_survive_the_way_to_the_square_and_back(data):
    model = tiny_model()
    height, width = data.draw(st.integers(20, 300)), data.draw(st.integers(20, 300))
    x1, y1 = data.draw(st.integers(0, width - 10)), data.draw(st.integers(0, height - 10))
    x2, y2 = data.draw(st.integers(x1 + 10, width)), data.draw(st.integers(y1 + 10, height))
    features = torch.zeros(1, 256, 8, 8)
    image = np.zeros((height, width, 3), np.uint8)
    session = Session(model, image, Embedding(features, model.fit(y2 - y1, x2 - x1)), origin=(x1, y1), clip=False)
    px, py = data.draw(st.integers(x1, x2 - 1)), data.draw(st.integers(y1, y2 - 1))
    left, top = data.draw(st.integers(x1, x2 - 1)), data.draw(st.integers(y1, y2 - 1))
    right, bottom = data.draw(st.integers(left + 1, x2)), data.draw(st.integers(top + 1, y2))
    square = session.square_prompts([Prompt.of([[px, py]], box=[left, top, right, bottom])])
    assert square.labels.tolist() == [[1, 2, 3]]
    assert square.coords.min() >= 0 and square.coords.max() <= model.sam.image_size
    back = session.transform.points_back(square.coords[0]).numpy() + np.array([x1, y1])
    assert np.abs(back - [[px, py], [left, top], [right, bottom]]).max() < 1e-3
    # A mask of the whole image comes back where it was, and only there.
    side = model.sam.low_res_size
    found = session.masks_of(torch.ones(1, side, side), np.ones(1, np.float32))
    assert found.boxes.tolist() == [[x1, y1, x2, y2]] and found.masks.sum() == (x2 - x1) * (y2 - y1)
