"""The network equals the ``segment-anything`` package on random weights for every kind of prompt."""

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, TwoWayTransformer
from segment_anything.modeling import MaskDecoder as TheirDecoder
from segment_anything.modeling import PromptEncoder as TheirPromptEncoder
from segment_anything.modeling import Sam as TheirSam

from ultrasam.modeling.image_encoder import ATTENTION_PATHS, ImageEncoder
from ultrasam.modeling.mask_decoder import MaskDecoder
from ultrasam.modeling.prompt_encoder import PromptEncoder, Prompts
from ultrasam.modeling.sam import Preprocessing, Sam
from ultrasam.modeling.transformer import TwoWayTransformer as OurTransformer

SIZE, PATCH, DIM, DEPTH, HEADS = 160, 16, 48, 3, 3
CELLS = SIZE // PATCH


@pytest.fixture(scope="module")
def both():
    torch.manual_seed(0)
    theirs = TheirSam(
        ImageEncoderViT(
            img_size=SIZE, patch_size=PATCH, embed_dim=DIM, depth=DEPTH, num_heads=HEADS, out_chans=256,
            use_rel_pos=True, window_size=4, global_attn_indexes=(1,), qkv_bias=True,
            norm_layer=lambda d: torch.nn.LayerNorm(d, eps=1e-6),
        ),
        TheirPromptEncoder(
            embed_dim=256, image_embedding_size=(CELLS, CELLS), input_image_size=(SIZE, SIZE), mask_in_chans=16
        ),
        TheirDecoder(
            num_multimask_outputs=3, transformer_dim=256, iou_head_depth=3, iou_head_hidden_dim=256,
            transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
        ),
    ).eval()
    for name, parameter in theirs.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    ours = Sam(
        ImageEncoder(SIZE, PATCH, DIM, DEPTH, HEADS, window=4, global_blocks=(1,)),
        PromptEncoder(256, SIZE, CELLS),
        MaskDecoder(OurTransformer()),
        Preprocessing(square=SIZE),
        "vit_tiny",
    ).eval()
    state = {k: v for k, v in theirs.state_dict().items() if k not in ("pixel_mean", "pixel_std")}
    ours.load_state_dict(state, strict=True)
    return theirs, ours


@pytest.fixture(scope="module")
def embedding(both):
    torch.manual_seed(1)
    with torch.no_grad():
        return both[0].image_encoder(torch.randn(2, 3, SIZE, SIZE))


@pytest.mark.parametrize("path", ["auto", *ATTENTION_PATHS])
def test_image_encoder_equals_theirs_on_every_attention_path(both, path):
    theirs, ours = both
    torch.manual_seed(2)
    images = torch.randn(2, 3, SIZE, SIZE)
    ours.image_encoder.set_attention_path(path)
    with torch.no_grad():
        expected, found = theirs.image_encoder(images), ours.image_encoder(images)
    ours.image_encoder.set_attention_path("auto")
    assert (found - expected).abs().max() < 1e-4
    assert expected.abs().max() > 0.5


@pytest.mark.parametrize("path", ["mask", "folded"])
def test_attention_paths_have_the_gradients_of_the_plain_one(both, path):
    encoder = both[1].image_encoder
    torch.manual_seed(3)
    images = torch.randn(1, 3, SIZE, SIZE)
    weights = torch.randn(1, 256, CELLS, CELLS)
    grads = {}
    for name in ("plain", path):
        encoder.set_attention_path(name)
        encoder.zero_grad()
        (encoder(images) * weights).sum().backward()
        grads[name] = {k: p.grad.clone() for k, p in encoder.named_parameters()}
    encoder.set_attention_path("auto")
    encoder.zero_grad()
    for key, expected in grads["plain"].items():
        scale = expected.abs().max().clamp(min=1e-6)
        assert ((grads[path][key] - expected).abs().max() / scale) < 1e-3, key


def test_other_image_sizes_interpolate_the_position_table(both):
    encoder = both[1].image_encoder
    with torch.no_grad():
        same = encoder.position_table(CELLS, CELLS)
        out = encoder(torch.randn(1, 3, 96, 208))
    assert torch.equal(same, encoder.pos_embed)
    assert out.shape == (1, 256, 6, 13)


def their_decode(theirs, embedding, image, points=None, labels=None, box=None, mask=None, multimask=True):
    pair = None if points is None else (torch.tensor([points]).float(), torch.tensor([labels]))
    boxes = None if box is None else torch.tensor([box]).float()
    with torch.no_grad():
        sparse, dense = theirs.prompt_encoder(points=pair, boxes=boxes, masks=mask)
        return theirs.mask_decoder(
            image_embeddings=embedding[image : image + 1],
            image_pe=theirs.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )


def mask_prompt(seed):
    return torch.randn(1, 1, 4 * CELLS, 4 * CELLS, generator=torch.Generator().manual_seed(seed))


CASES = {
    "point": dict(points=[[30.0, 40.0]], labels=[1]),
    "points": dict(points=[[30.0, 40.0], [80.5, 90.0], [150.0, 3.0]], labels=[1, 0, 1]),
    "negative": dict(points=[[12.0, 40.0]], labels=[0]),
    "box": dict(box=[10.0, 20.0, 90.0, 130.0]),
    "box and points": dict(points=[[50.0, 60.0], [20.0, 30.0]], labels=[1, 0], box=[10.0, 20.0, 90.0, 130.0]),
    "mask": dict(mask=mask_prompt(1)),
    "mask and point": dict(points=[[50.0, 60.0]], labels=[1], mask=mask_prompt(2)),
    "mask and box": dict(box=[10.0, 20.0, 90.0, 130.0], mask=mask_prompt(3)),
    "all": dict(points=[[50.0, 60.0]], labels=[0], box=[10.0, 20.0, 90.0, 130.0], mask=mask_prompt(4)),
}


def our_prompts(cases, images):
    masks = torch.cat([c.get("mask", torch.zeros(1, 1, 4 * CELLS, 4 * CELLS)) for c in cases])
    has = torch.tensor(["mask" in c for c in cases])
    return Prompts.build(
        [None if "points" not in c else torch.tensor(c["points"]) for c in cases],
        [None if "labels" not in c else torch.tensor(c["labels"]) for c in cases],
        [None if "box" not in c else torch.tensor(c["box"]) for c in cases],
        torch.tensor(images),
        masks if bool(has.any()) else None,
        has if bool(has.any()) else None,
    )


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_prompt_equals_theirs(both, embedding, name, multimask):
    theirs, ours = both
    expected, expected_iou = their_decode(theirs, embedding, 1, multimask=multimask, **CASES[name])
    with torch.no_grad():
        found, iou = ours.decode(embedding, our_prompts([CASES[name]], [1]), multimask)
    assert found.shape == expected.shape == (1, 3 if multimask else 1, 4 * CELLS, 4 * CELLS)
    assert (found - expected).abs().max() < 1e-4
    assert (iou - expected_iou).abs().max() < 1e-4


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_all_kinds_mixed_in_one_batch_equal_one_at_a_time(both, embedding, chunk):
    theirs, ours = both
    names = list(CASES)
    images = [i % 2 for i in range(len(names))]
    with torch.no_grad():
        found, iou = ours.decode(embedding, our_prompts([CASES[n] for n in names], images), True, chunk)
    for row, name in enumerate(names):
        expected, expected_iou = their_decode(theirs, embedding, images[row], **CASES[name])
        assert (found[row] - expected[0]).abs().max() < 1e-4, name
        assert (iou[row] - expected_iou[0]).abs().max() < 1e-4, name


def test_no_objects_cost_nothing_and_have_the_right_shape(both, embedding):
    empty = Prompts.build([], [], [], torch.zeros(0, dtype=torch.long))
    logits, iou = both[1].decode(embedding, empty, True)
    assert logits.shape == (0, 3, 4 * CELLS, 4 * CELLS)
    assert iou.shape == (0, 3)


def test_linear_upscaling_equals_the_transposed_convolutions(both):
    decoder = both[1].mask_decoder
    torch.manual_seed(5)
    cells, kernels = torch.randn(2, 30, 256), torch.randn(2, 3, 32)
    with torch.no_grad():
        found = decoder.paint(cells, kernels, 5, 6)
        expected = decoder.paint_plain(cells, kernels, 5, 6)
    assert (found - expected).abs().max() < 1e-4


def test_residual_forms_differ_and_are_checked(both, embedding):
    ours = both[1]
    prompts = our_prompts([CASES["box"]], [0])
    with torch.no_grad():
        single = ours.decode(embedding, prompts, True)[0]
        ours.set_mlp_residual("double")
        double = ours.decode(embedding, prompts, True)[0]
        ours.set_mlp_residual("single")
    assert (single - double).abs().max() > 1e-2
    with pytest.raises(ValueError, match="single"):
        ours.set_mlp_residual("triple")
