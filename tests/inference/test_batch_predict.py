"""Many images in one call answer as one at a time."""

import numpy as np
import pytest
import torch
from tiny_models import fan, noise, tiny_model

from ultrasam.errors import ConfigError, PromptError
from ultrasam.inference.prompt import Prompt

IMAGES = [noise(90, 120, 1), fan()[0], noise(128, 64, 2), noise(40, 41, 3)]
PROMPTS = [
    [Prompt.of([[40, 50]]), Prompt.of(box=[20, 10, 90, 70])],
    [Prompt.of(box=[130, 50, 200, 150])],
    [],
    [Prompt.of([[4, 5], [30, 30]], [1, 0])],
]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_equals_one_image_at_a_time(batch_size):
    model = tiny_model()
    together = model.predict_batch(IMAGES, PROMPTS, batch_size)
    assert [len(masks) for masks in together] == [2, 1, 0, 1]
    for image, prompts, masks in zip(IMAGES, PROMPTS, together, strict=True):
        alone = model.session(image).predict(prompts=prompts)
        torch.testing.assert_close(alone.logits, masks.logits, rtol=1e-5, atol=1e-6)
        assert np.array_equal(alone.masks, masks.masks) and alone.masks.shape[1:] == image.shape[:2]
        np.testing.assert_allclose(alone.scores, masks.scores, rtol=1e-5)


def test_embeddings_do_not_depend_on_the_batch(monkeypatch):
    from ultrasam.inference import model as module

    model = tiny_model()
    alone = model.encode(IMAGES)
    # As on a GPU, several at a time.
    monkeypatch.setattr(module, "batch_of", lambda device: 3)
    for one, row in zip(alone, model.encode(IMAGES), strict=True):
        torch.testing.assert_close(one.features, row.features, rtol=1e-4, atol=1e-5)
        assert one.transform == row.transform and row.features.untyped_storage().nbytes() == row.features.nbytes


def test_wrong_arguments_are_refused_before_any_work(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(model.sam, "encode", lambda images: pytest.fail("nothing is to be encoded"), raising=False)
    with pytest.raises(PromptError, match="4 images need 4 lists of prompts, found 3"):
        model.predict_batch(IMAGES, PROMPTS[:3])
    with pytest.raises(PromptError, match=r"\(50, 5\).*41 x 40"):
        model.predict_batch(IMAGES, [*PROMPTS[:3], [Prompt.of([[50, 5]])]])
    with pytest.raises(ConfigError, match="batch_size"):
        model.predict_batch(IMAGES, PROMPTS, 0)
