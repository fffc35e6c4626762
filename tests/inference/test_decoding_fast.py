"""The fast decoder equals the network's own forward pass."""

import pytest
import torch
from tiny_models import random_sam

from ultrasam.inference import decoding
from ultrasam.inference.decoding import Decoder
from ultrasam.modeling.prompt_encoder import Prompts

KINDS = {
    "box": ([None], [[10.0, 20, 90, 70]]),
    "point": ([[[30.0, 40, 1]]], [None]),
    "boxes": ([None] * 5, [[10.0 + k, 20, 90, 70 + k] for k in range(5)]),
    "padded": (
        [[[30.0, 40, 1]], [[30.0, 40, 1], [50, 60, 0], [70, 20, 1]], None, [[5.0, 6, 1]]],
        [None, None, [1.0, 2, 30, 40], [4.0, 4, 99, 99]],
    ),
    "mask only": ([None, None], [None, None]),
    "many points": ([[[float(k), 2.0 * k, k % 2] for k in range(1, 14)]], [None]),
}


def prompts_of(kind, masks=None, has_mask=None):
    points, boxes = KINDS[kind]
    xy = [None if rows is None else torch.tensor(rows)[:, :2] for rows in points]
    labels = [None if rows is None else torch.tensor(rows)[:, 2].long() for rows in points]
    index = torch.zeros(len(points), dtype=torch.long)
    return Prompts.build(xy, labels, [None if b is None else torch.tensor(b) for b in boxes], index, masks, has_mask)


@pytest.fixture(params=["vit_tiny", "tiny_vit"], scope="module")
def sam(request):
    return random_sam(request.param, 128 if request.param == "vit_tiny" else 64)


@pytest.fixture(params=["single", "double"])
def network(sam, request):
    sam.set_mlp_residual(request.param)
    yield sam
    sam.set_mlp_residual("single")


@pytest.fixture
def embedding(sam):
    cells = sam.prompt_encoder.embedding_size
    return torch.randn(1, 256, cells, cells, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("masked", ["no", "all", "some"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_networks_own_decoding(network, embedding, kind, masked):
    count, side = len(KINDS[kind][0]), network.low_res_size
    masks = 5 * torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(4))
    has_mask = torch.arange(count) % 2 == 0
    prompts = prompts_of(kind, None if masked == "no" else masks, has_mask if masked == "some" else None)
    decoder = Decoder(network, embedding)
    for multimask in (False, True):
        with torch.no_grad():
            logits, iou = network.decode(embedding, prompts, multimask)
        mine, my_iou = decoder.decode(prompts, multimask, best=False)
        torch.testing.assert_close(mine, logits, rtol=1e-4, atol=2e-6)
        torch.testing.assert_close(my_iou, iou, rtol=1e-4, atol=2e-6)
        one, its_iou = decoder.decode(prompts, multimask, best=True)
        chosen = iou.argmax(dim=1)
        torch.testing.assert_close(one[:, 0], logits[range(count), chosen], rtol=1e-4, atol=2e-6)
        torch.testing.assert_close(its_iou[:, 0], iou.amax(dim=1), rtol=1e-4, atol=2e-6)


def test_the_residual_form_matters(sam, embedding):
    # The comparison above would not see a form that is ignored on both sides.
    prompts = prompts_of("box")
    answers = []
    for form in ("single", "double"):
        sam.set_mlp_residual(form)
        answers.append(Decoder(sam, embedding).decode(prompts, True, False)[0])
    sam.set_mlp_residual("single")
    assert (answers[0] - answers[1]).abs().max() > 1e-3


def test_chunks_do_not_change_the_answer(sam, embedding, monkeypatch):
    prompts = prompts_of("boxes")
    whole = Decoder(sam, embedding).decode(prompts, True, True)
    for number in (1, 2):
        monkeypatch.setattr(decoding, "CHUNK_BYTES", number * embedding[0].numel() * 4)
        part = Decoder(sam, embedding).decode(prompts, True, True)
        torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(decoding, "STRIP_CELLS", 2 * embedding.shape[-1] + 1)
    torch.testing.assert_close(Decoder(sam, embedding).decode(prompts, True, True), whole, rtol=1e-5, atol=1e-6)


def test_an_answer_is_not_written_over_by_the_next_one(sam, embedding):
    decoder, other = Decoder(sam, embedding), Decoder(sam, embedding + 1)
    first = decoder.decode(prompts_of("boxes"), False, True)[0]
    kept = first.clone()
    other.decode(prompts_of("padded"), True, True)
    decoder.decode(prompts_of("padded"), True, True)
    assert torch.equal(first, kept)
    assert torch.equal(decoder.decode(prompts_of("boxes"), False, True)[0], kept)


def test_no_objects_and_no_gradient(sam, embedding):
    side = sam.low_res_size
    logits, iou = Decoder(sam, embedding).decode(prompts_of("boxes").select(slice(0, 0)), True, False)
    assert logits.shape == (0, 3, side, side) and iou.shape == (0, 3)
    logits, _ = Decoder(sam, embedding.clone().requires_grad_()).decode(prompts_of("box"), True, False)
    assert not logits.requires_grad


def test_decoding_in_two_threads_at_once(sam, embedding):
    from concurrent.futures import ThreadPoolExecutor

    decoder, kinds = Decoder(sam, embedding), ["boxes", "padded"] * 6
    alone = {kind: decoder.decode(prompts_of(kind), True, True)[0] for kind in KINDS}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda kind: decoder.decode(prompts_of(kind), True, True)[0], kinds))
    assert all(torch.equal(logits, alone[kind]) for logits, kind in zip(found, kinds, strict=True))
