"""The head of prompted classification: one flat list of objects, whatever the batch, the padding and the chunk."""

import pytest
import torch

from ultrasam.modeling.build import build_sam
from ultrasam.modeling.prompt_encoder import Prompts
from ultrasam.modeling.prompted_classifier import (
    ObjectTokens,
    PromptedClassifierHead,
    decoded_tokens,
    object_tokens,
)
from ultrasam.modeling.transformer import TwoWayTransformer

SIDE = 4
BOX, POINT = torch.tensor([5.0, 6.0, 40.0, 50.0]), torch.tensor([[20.0, 30.0]])


@pytest.fixture(scope="module")
def sam():
    torch.manual_seed(0)
    return build_sam("vit_tiny", 64).eval()


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(1)
    return PromptedClassifierHead(TwoWayTransformer(mlp_dim=64), 3, chunk=16).eval()


@pytest.fixture(scope="module")
def embeddings():
    return torch.randn(2, 256, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


def prompts(*kinds, images):
    """A box ("b"), a point ("p") or three points ("m") for each object."""
    points = {"b": None, "p": POINT, "m": POINT + torch.arange(3)[:, None]}
    return Prompts.build(
        [points[kind] for kind in kinds],
        [None if points[kind] is None else torch.ones(len(points[kind])) for kind in kinds],
        [BOX if kind == "b" else None for kind in kinds],
        torch.tensor(images),
    )


def scores(sam, head, embeddings, prompts, **options):
    with torch.no_grad():
        objects = object_tokens(sam, embeddings, prompts, **options)
        code = sam.prompt_encoder.dense_position_code()
        return head(objects, 2 * embeddings, code, embeddings.mean(dim=(2, 3)))


def test_decoded_tokens_are_those_that_masks_are_made_from(sam, embeddings):
    """The mask decoder's own heads, put on these tokens, give its own predicted IoU."""
    asked = prompts("b", "p", "m", images=[0, 1, 1])
    with torch.no_grad():
        tokens = decoded_tokens(sam, embeddings, asked)
        _, iou = sam.decode(embeddings, asked, multimask=True)
        found = sam.mask_decoder.iou_prediction_head(tokens[:, 0])[:, 1:]
    assert tokens.shape == (3, 5, 256)
    torch.testing.assert_close(found, iou, atol=1e-5, rtol=1e-5)


def test_batch_padding_and_chunk_change_nothing(sam, head, embeddings):
    kinds, images = "bpmbp", [0, 0, 1, 1, 0]
    together = scores(sam, head, embeddings, prompts(*kinds, images=images))
    alone = [
        scores(sam, head, embeddings[image : image + 1], prompts(kind, images=[0]))
        for kind, image in zip(kinds, images, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    small = PromptedClassifierHead(head.transformer, 3, chunk=2).eval()
    small.load_state_dict(head.state_dict())
    chunked = scores(sam, small, embeddings, prompts(*kinds, images=images), chunk=2)
    torch.testing.assert_close(chunked, together, atol=1e-5, rtol=1e-5)


def test_chunks_give_the_same_gradient(sam, head, embeddings):
    asked = prompts(*"bpmb", images=[0, 1, 1, 0])
    with torch.no_grad():
        objects = object_tokens(sam, embeddings, asked)
    code = sam.prompt_encoder.dense_position_code()
    gradients = []
    for chunk in (8, 1):
        head.zero_grad()
        head.chunk = chunk
        head(objects, embeddings, code, embeddings.mean(dim=(2, 3))).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in head.parameters()])
    head.chunk = 16
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients[0])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_every_input_matters(sam, head, embeddings):
    first = prompts("b", images=[0])
    code = sam.prompt_encoder.dense_position_code()
    with torch.no_grad():
        objects = object_tokens(sam, embeddings, first)
        vector = embeddings.mean(dim=(2, 3))
        plain = head(objects, embeddings, code, vector)
        others = [
            head(object_tokens(sam, embeddings, prompts("p", images=[0])), embeddings, code, vector),
            head(objects, embeddings.flip(-1), code, vector),
            head(objects, embeddings, code, vector + 1),
            head(ObjectTokens(objects.tokens + 1, objects.exists, objects.image_index), embeddings, code, vector),
        ]
    assert all((other - plain).abs().max() > 1e-4 for other in others)


def test_without_prompt_all_objects_of_an_image_are_alike(sam, head, embeddings):
    asked = prompts("b", "p", "m", images=[0, 0, 1])
    hidden = scores(sam, head, embeddings, asked, with_prompt=False)
    torch.testing.assert_close(hidden[0], hidden[1])
    assert (hidden[0] - hidden[2]).abs().max() > 1e-4
    shown = scores(sam, head, embeddings, asked)
    assert (shown[0] - shown[1]).abs().max() > 1e-4


def test_without_object_encoder_the_prompt_tokens_are_all(sam, embeddings):
    asked = prompts("b", "m", images=[0, 1])
    objects = object_tokens(sam, None, asked)
    assert objects.tokens.shape == (2, 4, 256)
    assert objects.exists.tolist() == [[True, True, False, False], [True] * 4]
    assert object_tokens(sam, embeddings, asked).tokens.shape == (2, 9, 256)


def test_without_global_vector(sam, embeddings):
    torch.manual_seed(3)
    plain = PromptedClassifierHead(TwoWayTransformer(mlp_dim=64), 4, global_dim=0).eval()
    assert plain.classify.in_features == 256
    asked = prompts("b", images=[1])
    assert scores(sam, plain, embeddings, asked).shape == (1, 4)


def test_no_objects(sam, head, embeddings):
    none = Prompts.build([], [], [], torch.zeros(0, dtype=torch.long))
    for options in ({}, {"with_prompt": False}):
        assert scores(sam, head, embeddings, none, **options).shape == (0, 3)
