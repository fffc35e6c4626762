"""Automatic masks: records of segment_anything's generator on equal weights, and what is ours beyond it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling import MaskDecoder as TheirDecoder
from segment_anything.modeling import PromptEncoder as TheirPromptEncoder
from segment_anything.modeling import Sam as TheirSam
from segment_anything.modeling import TwoWayTransformer as TheirTransformer
from segment_anything.utils import amg
from segment_anything.utils.transforms import ResizeLongestSide
from torchvision.ops import nms

from ultrasam.errors import ConfigError
from ultrasam.geometry.rle import decode_mask
from ultrasam.geometry.transform import SquareTransform
from ultrasam.inference import automatic_geometry as geometry
from ultrasam.inference.automatic import AutomaticMasks
from ultrasam.inference.automatic_paint import Painter
from ultrasam.inference.model import UltraSam
from ultrasam.modeling.image_encoder import ImageEncoder
from ultrasam.modeling.mask_decoder import MaskDecoder
from ultrasam.modeling.prompt_encoder import PromptEncoder, Prompts
from ultrasam.modeling.sam import Preprocessing, Sam
from ultrasam.modeling.transformer import TwoWayTransformer

SIZE, DIM, DEPTH, HEADS = 128, 24, 2, 2
CELLS = SIZE // 16


@pytest.fixture(scope="module")
def both():
    """Their network and ours with the same random weights; logits as large as those of trained networks."""
    torch.manual_seed(0)
    theirs = TheirSam(
        ImageEncoderViT(
            img_size=SIZE, patch_size=16, embed_dim=DIM, depth=DEPTH, num_heads=HEADS, out_chans=256,
            use_rel_pos=True, window_size=4, global_attn_indexes=(1,), qkv_bias=True,
            norm_layer=lambda d: torch.nn.LayerNorm(d, eps=1e-6),
        ),
        TheirPromptEncoder(
            embed_dim=256, image_embedding_size=(CELLS, CELLS), input_image_size=(SIZE, SIZE), mask_in_chans=16
        ),
        TheirDecoder(
            num_multimask_outputs=3, transformer_dim=256, iou_head_depth=3, iou_head_hidden_dim=256,
            transformer=TheirTransformer(depth=2, embedding_dim=256, mlp_dim=64, num_heads=8),
        ),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for mlp in theirs.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight *= 60
        theirs.mask_decoder.iou_prediction_head.layers[-1].weight *= 40
    sam = Sam(
        ImageEncoder(SIZE, 16, DIM, DEPTH, HEADS, window=4, global_blocks=(1,)),
        PromptEncoder(256, SIZE, CELLS),
        MaskDecoder(TwoWayTransformer(mlp_dim=64)),
        Preprocessing(square=SIZE),
        "vit_tiny",
    )
    state = {k: v for k, v in theirs.state_dict().items() if k not in ("pixel_mean", "pixel_std")}
    sam.load_state_dict(state, strict=True)
    return theirs, sam.eval().requires_grad_(False)


def model_of(sam, passes=(), mask_prompt=True):
    return UltraSam(SimpleNamespace(sam=sam, passes=passes, mask_prompt=mask_prompt, card={}))


@pytest.fixture
def equal_pixels(monkeypatch):
    """Let their predictor resize with OpenCV as ours does; PIL's reduction differs by some grey levels."""

    def resized(self, image):
        return SquareTransform.fit(*image.shape[:2], self.target_length).image(image)

    monkeypatch.setattr(ResizeLongestSide, "apply_image", resized)


def picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8)))


def assert_same(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert set(ours) == set(theirs)
        assert ours["point_coords"] == theirs["point_coords"]
        assert ours["crop_box"] == theirs["crop_box"]
        assert ours["bbox"] == theirs["bbox"]
        assert ours["predicted_iou"] == pytest.approx(theirs["predicted_iou"], abs=1e-4)
        assert ours["stability_score"] == pytest.approx(theirs["stability_score"], abs=2e-3)
        assert (ours["segmentation"] ^ theirs["segmentation"]).sum() <= 2
        assert ours["area"] == ours["segmentation"].sum()


def answers(points):
    """Made-up answers to points (N, 2) of the square: three ragged discs around the nearest of some places."""
    places = torch.tensor([[20.0, 24.0], [90.0, 30.0], [40.0, 90.0], [100.0, 104.0], [64.0, 60.0]])
    points = points.double()
    gaps = (points[:, None] - places).norm(dim=-1)
    nearest, index = gaps.min(dim=1)
    centres = places[index] + 0.12 * (points - places[index])
    cells = (torch.arange(4 * CELLS) + 0.5) * SIZE / (4 * CELLS)
    x, y = cells[None, None, :] - centres[:, :1, None], cells[None, :, None] - centres[:, 1:, None]
    ragged = 2.5 * torch.sin(0.9 * cells)[None, None, :] * torch.cos(0.7 * cells)[None, :, None]
    radii = torch.tensor([9.0, 16.0, 30.0])
    logits = 0.35 * (radii[None, :, None, None] - torch.hypot(x, y)[:, None]) + ragged[:, None]
    return logits.float(), (1 - 0.012 * nearest[:, None] - torch.tensor([0.04, 0.0, 0.09])).float()


@pytest.fixture
def made_up(monkeypatch, equal_pixels):
    """Put these answers in the place of both decoders, where random weights give noise all over the image."""

    def predict_torch(self, point_coords, point_labels, multimask_output, return_logits):
        assert multimask_output and return_logits and point_labels.eq(1).all()
        logits, iou = answers(point_coords[:, 0])
        return self.model.postprocess_masks(logits, self.input_size, self.original_size), iou, logits

    monkeypatch.setattr(SamPredictor, "predict_torch", predict_torch)
    monkeypatch.setattr(AutomaticMasks, "_decode", lambda self, decoder, coords: answers(coords))


CROPS = dict(crop_n_layers=1, crop_n_points_downscale_factor=2)


@pytest.mark.parametrize(
    ("size", "kept", "options"),
    [
        ((SIZE, SIZE), 5, dict(stability_score_thresh=0.4)),
        ((96, 200), 9, dict(stability_score_thresh=0.0, pred_iou_thresh=0.0)),
        ((160, 120), 5, dict(stability_score_thresh=0.4, min_mask_region_area=40)),
        ((160, 120), 3, dict(stability_score_thresh=0.4, pred_iou_thresh=0.8, min_mask_region_area=400)),
        ((200, 300), 5, dict(stability_score_thresh=0.4, pred_iou_thresh=0.8, min_mask_region_area=20, **CROPS)),
        ((320, 260), 5, dict(stability_score_thresh=0.4, pred_iou_thresh=0.8, box_nms_thresh=0.95, **CROPS)),
    ],
    ids=["square", "no limits", "small regions", "large regions", "crops", "enlarged crops"],
)
def test_records_are_those_of_segment_anything(both, made_up, size, kept, options):
    theirs, sam = both
    image = np.zeros((*size, 3), np.uint8)
    options = dict(points_per_side=9, points_per_batch=7, **options)
    expected = SamAutomaticMaskGenerator(theirs, **options).generate(image)
    found, tally = AutomaticMasks(model_of(sam), clip=False, **options).run(image)
    assert len(expected) >= kept, "this test needs masks that survive"
    assert_same(found, expected)
    assert tally.kept == len(found)


def test_the_decoder_answers_as_theirs(both, equal_pixels):
    theirs, sam = both
    image = picture(96, 200)
    options = dict(points_per_side=4, points_per_batch=7, stability_score_offset=0.5, box_nms_thresh=1.0)
    options |= dict(pred_iou_thresh=0.0, stability_score_thresh=0.0)
    expected = SamAutomaticMaskGenerator(theirs, **options).generate(image)
    found = AutomaticMasks(model_of(sam), clip=False, **options).generate(image)
    assert len(expected) == 48
    assert len({record["area"] for record in expected}) > 20
    assert_same(found, expected)


def test_defaults_are_those_of_segment_anything():
    import inspect

    theirs = inspect.signature(SamAutomaticMaskGenerator).parameters
    ours = inspect.signature(AutomaticMasks).parameters
    assert [*ours] == [*theirs, "clip"]
    assert all(ours[name].default == theirs[name].default for name in theirs if name != "model")


def test_output_modes_hold_the_same_masks(both):
    options = dict(
        points_per_side=3, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1.0, clip=False
    )
    image = picture(80, 120, 1)
    model = model_of(both[1])
    masks, loose, coco = (
        [record["segmentation"] for record in AutomaticMasks(model, output_mode=mode, **options).generate(image)]
        for mode in ("binary_mask", "uncompressed_rle", "coco_rle")
    )
    assert len(masks) > 1
    for mask, runs, rle in zip(masks, loose, coco, strict=True):
        assert np.array_equal(amg.rle_to_mask(runs), mask)
        assert np.array_equal(decode_mask(rle), mask)


def test_single_mask_weights_give_one_candidate_a_point(both):
    sam = both[1]
    model = model_of(sam, ("single",))
    image = picture(SIZE, SIZE, 2)
    options = dict(points_per_side=4, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1.0, clip=False)
    records, tally = AutomaticMasks(model, **options).run(image)
    assert (tally.points, tally.candidates) == (16, 16)
    embedding = model.encode([image])[0]
    for record in records:
        (x, y) = record["point_coords"][0]
        coords = torch.tensor([[[x, y], [0, 0]]], dtype=torch.float32)
        prompts = Prompts(coords, torch.tensor([[1, -1]]), torch.zeros(1, dtype=torch.long))
        logits, iou = sam.decode(embedding.features, prompts, multimask=False)
        mask = embedding.transform.logits_back(logits[0])[0] > 0
        assert (mask.numpy() ^ record["segmentation"]).sum() <= 2
        assert record["predicted_iou"] == pytest.approx(iou.item(), abs=1e-4)


@pytest.mark.parametrize("mask_prompt", [True, False])
def test_refining_weights_give_three_masks_of_the_second_pass(both, mask_prompt):
    sam = both[1]
    model = model_of(sam, ("single", "multi"), mask_prompt)
    image = picture(SIZE, SIZE, 3)
    grid = [np.array([[0.4, 0.6]])]
    options = dict(points_per_side=None, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1.0, clip=False)
    records, tally = AutomaticMasks(model, point_grids=grid, **options).run(image)
    assert tally.candidates == 3
    features = model.encode([image])[0].features
    coords = torch.tensor([[[0.4 * SIZE, 0.6 * SIZE], [0, 0]]])
    prompts = Prompts(coords, torch.tensor([[1, -1]]), torch.zeros(1, dtype=torch.long))
    first, _ = sam.decode(features, prompts, multimask=False)
    if mask_prompt:
        prompts.masks = first
    _, iou = sam.decode(features, prompts, multimask=True)
    expected = sorted(iou[0].tolist(), reverse=True)
    assert [record["predicted_iou"] for record in records] == pytest.approx(expected, abs=1e-4)


def test_nothing_lies_outside_of_the_field_of_view(both, monkeypatch):
    field = np.zeros((SIZE, SIZE), bool)
    field[30:110, 20:100] = True
    monkeypatch.setattr("ultrasam.inference.automatic.find_field", lambda image: field)
    options = dict(points_per_side=8, pred_iou_thresh=0, stability_score_thresh=0, stability_score_offset=0.5)
    records, tally = AutomaticMasks(model_of(both[1]), **options).run(picture(SIZE, SIZE, 4))
    assert records and tally.points == 25
    for record in records:
        x, y = (int(value) for value in record["point_coords"][0])
        assert field[y, x]
        assert not record["segmentation"][~field].any()
        left, top, width, height = record["bbox"]
        assert record["area"] == 0 or (left >= 20 and top >= 30 and left + width < 100 and top + height < 110)


def test_stability_and_box_are_measured_within_the_field_of_view():
    torch.manual_seed(0)
    logits = torch.nn.functional.interpolate(torch.randn(3, 1, 6, 6) * 4, 32, mode="bicubic")[:, 0]
    transform = SquareTransform.fit(90, 150, 128)
    field = np.random.default_rng(0).random((90, 150)) < 0.7
    whole = transform.logits_back(logits)
    for limit in (None, field):
        allowed = torch.ones(90, 150, dtype=torch.bool) if limit is None else torch.from_numpy(field)
        for one, part in zip(Painter(transform, 1.0, limit).paint(logits, 0), whole, strict=True):
            high, low, mask = ((part > edge) & allowed for edge in (1.0, -1.0, 0.0))
            assert one.stability == pytest.approx((high.sum() / low.sum()).item(), abs=1e-3)
            assert (one.mask(90, 150, (0, 0)) ^ mask.numpy()).sum() <= 1
            assert one.mask(100, 160, (10, 10))[10:, 10:].sum() == one.mask(90, 150, (0, 0)).sum()


def test_all_at_once_is_one_by_one():
    """The form for a GPU, on the CPU."""
    torch.manual_seed(1)
    logits = torch.nn.functional.interpolate(torch.randn(5, 1, 6, 6) * 4, 32, mode="bicubic")[:, 0]
    logits[3] = -9
    field = np.random.default_rng(1).random((90, 150)) < 0.7
    for limit in (None, field):
        painter = Painter(SquareTransform.fit(90, 150, 128), 1.0, limit)
        for least in (0.0, 0.55):
            single, together = painter.paint(logits, least), painter._at_once(logits, least)
            assert [one is None for one in single] == [one is None for one in together]
            assert any(one is None for one in single) == (least > 0)
            for one, other in zip(single, together, strict=True):
                if one is not None and other is not None:
                    assert one.stability == pytest.approx(other.stability, abs=1e-3, nan_ok=True)
                    assert (one.mask(90, 150, (0, 0)) ^ other.mask(90, 150, (0, 0))).sum() <= 1


def test_empty_candidates_survive_only_without_a_limit():
    painter = Painter(SquareTransform.fit(40, 40, 64), 1.0, None)
    empty = torch.full((1, 16, 16), -5.0)
    assert painter.paint(empty, 0.5) == [None]
    (kept,) = painter.paint(empty, 0)
    assert np.isnan(kept.stability) and not kept.mask(40, 40, (0, 0)).any() and not kept.box.any()


def test_tally_says_why_there_is_nothing(both):
    records, tally = AutomaticMasks(model_of(both[1]), points_per_side=2, pred_iou_thresh=50.0).run(picture(64, 64))
    assert records == [] and tally.scored == 0 and tally.candidates == 12
    assert f"highest {tally.best_iou:.2f}" in tally.sentence() and tally.best_iou > -50


def test_grids_and_crops_are_theirs():
    for side in (1, 2, 5, 32):
        assert np.allclose(geometry.point_grid(side), amg.build_point_grid(side), atol=0)
    for size in ((480, 640), (77, 1001), (300, 300)):
        for layers in (0, 1, 3):
            boxes, indices = amg.generate_crop_boxes(size, layers, 512 / 1500)
            found = geometry.crop_boxes(*size, layers, 512 / 1500)
            assert [layer for layer, _ in found] == indices
            assert [list(box) for _, box in found] == boxes


def test_suppression_is_that_of_torchvision():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 50, (300, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 30, (300, 2))], axis=1)
    scores = rng.integers(0, 40, 300).astype(np.float32)
    for limit in (0.0, 0.3, 0.7, 1.0):
        expected = nms(torch.from_numpy(boxes).float(), torch.from_numpy(scores), limit).tolist()
        assert geometry.suppress(boxes, scores, limit) == expected
    assert geometry.suppress(np.zeros((0, 4), np.int64), np.zeros(0, np.float32), 0.5) == []


def test_small_regions_and_run_lengths_are_theirs():
    rng = np.random.default_rng(1)
    for trial in range(12):
        mask = np.kron(rng.random((9, 11)) < 0.1 * trial, np.ones((3, 3), bool)) ^ (rng.random((27, 33)) < 0.02)
        for area in (1, 5, 30, 10_000):
            holes, first = amg.remove_small_regions(mask, area, mode="holes")
            expected, second = amg.remove_small_regions(holes, area, mode="islands")
            found, changed = geometry.without_small_regions(mask, area)
            assert changed == (first or second)
            assert np.array_equal(found, expected)
        assert geometry.uncompressed_rle(mask) == amg.mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(points_per_side=None), "exactly one"),
        (dict(points_per_side=0), "points_per_side must be at least 1, found 0"),
        (dict(points_per_batch=0), "points_per_batch"),
        (dict(crop_n_layers=-1), "crop_n_layers"),
        (dict(points_per_side=2, crop_n_layers=2, crop_n_points_downscale_factor=4), "leaves no point"),
        (dict(output_mode="png"), "binary_mask, uncompressed_rle, coco_rle, found 'png'"),
        (dict(crop_overlap_ratio=1.0), "crop_overlap_ratio"),
        (dict(points_per_side=None, point_grids=[np.array([[0.5, 1.0]])]), "from 0 to below 1"),
        (dict(points_per_side=None, crop_n_layers=1, point_grids=[np.array([[0.5, 0.5]])]), "each of 2 layers"),
    ],
)
def test_options_out_of_range_are_refused(both, options, words):
    with pytest.raises(ConfigError, match=words):
        AutomaticMasks(model_of(both[1]), **options)
