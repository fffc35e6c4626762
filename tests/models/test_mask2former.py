"""Mask2Former: steps with any number of objects, MMDetection's own losses and detections, pyramids, decoder weights."""

import copy

import numpy as np
import pytest
import torch
from mini_instances import SIDE, TINY, TINY_HEAD, TINY_VIT, ellipses
from mmdet.models.dense_heads.mask2former_head import Mask2FormerHead
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmdet.registry import MODELS
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import Compose
from mmengine.structures import InstanceData

from ultrasam.datasets.coco import CocoObject
from ultrasam.errors import CheckpointError, ConfigError
from ultrasam.geometry.rle import encode_mask, rle_area, rle_box
from ultrasam.geometry.transform import SquareTransform
from ultrasam.models.feature_pyramid import FeaturePyramid
from ultrasam.models.mask2former import detections
from ultrasam.models.mask2former_head import HeadSizes, build_head, load_decoder

CLASSES = ("benign", "malignant")
SAM = dict(type="SamBackbone", **TINY["SamBackbone"])


def detector(seed=0, backbone=SAM, **changes):
    torch.manual_seed(seed)
    arguments = dict(backbone=backbone, classes=CLASSES, head=TINY_HEAD, pyramid_channels=32, **changes)
    model = MODELS.build(dict(type="Mask2FormerDetector", **arguments))
    model.init_weights()
    return model


def packed(seed, count, side=SIDE, training=True, size=(40, 64)):
    """One image with ``count`` objects, as the pipeline packs it."""
    rng = np.random.default_rng(seed)
    masks = ellipses(rng, count, size)
    objects = [
        CocoObject(n + 1, n % 2, rle, rle_box(rle), rle_area(rle)) for n, rle in enumerate(map(encode_mask, masks))
    ]
    image = rng.integers(0, 100, (*size, 3), dtype=np.uint8)
    image[masks.any(axis=0)] += 100
    results = dict(
        img=image, masks=masks, objects=objects, img_path=f"{seed}.png", img_id=seed, dataset="mini", flip=False,
        group=str(seed), sample_idx=seed, ori_shape=size, height=size[0], width=size[1], classes=CLASSES,
        boxes=np.zeros((count, 4), np.float32),
    )  # fmt: skip
    fit = dict(type="FitSquare", square=side, target_size=side if training else None)
    return Compose([fit, dict(type="PackInstances")])(results)


def batch_of(*counts, **options):
    items = [packed(number, count, **options) for number, count in enumerate(counts)]
    return [item["inputs"] for item in items], [item["data_samples"] for item in items]


def total(losses):
    return sum(value for name, value in losses.items() if "loss" in name)


@pytest.mark.parametrize("counts", [(0,), (1,), (40,), (0, 0), (3, 0, 40)])
def test_a_step_with_any_number_of_objects(counts):
    model = detector()
    losses = model.loss(*batch_of(*counts))
    assert len(losses) == 3 * (TINY_HEAD["decoder_layers"] + 1)
    loss = total(losses)
    assert torch.isfinite(loss)
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, "a process of a distributed run would wait for these"
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    if not any(counts):
        assert all(float(value.detach()) == 0.0 for name, value in losses.items() if "cls" not in name)


def test_a_step_in_bfloat16():
    model, batch = detector(), batch_of(2, 0)
    torch.manual_seed(1)
    exact = model.loss(*batch)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(*batch)
    assert {value.dtype for value in losses.values()} == {torch.float32}
    total(losses).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert float(total(losses).detach()) == pytest.approx(float(total(exact).detach()), rel=0.1)


@pytest.mark.parametrize("kind", ["vit", "tiny_vit"])
def test_training_lowers_the_loss(kind):
    lite = dict(type="SamBackbone", preprocessing=dict(interpolation="bilinear"), **TINY_VIT)
    model = detector(backbone=SAM) if kind == "vit" else detector(backbone=lite, pyramid="simple")
    batch = batch_of(1, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    values = []
    for _ in range(12):
        torch.manual_seed(0)
        loss = total(model.loss(*batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert min(values[-3:]) < 0.8 * values[0]


def test_losses_are_those_of_mmdetection():
    """The same head, with MMDetection's treatment of the truth."""
    model = detector()
    inputs, samples = batch_of(2, 0, 3)
    features = model.extract_feat(inputs)
    torch.manual_seed(3)
    ours = model.panoptic_head.loss(features, samples)
    theirs_samples = copy.deepcopy(samples)
    for sample in theirs_samples:
        found = sample.gt_instances
        masks = BitmapMasks(found.masks.numpy().astype(np.uint8), SIDE, SIDE)
        sample.gt_instances = InstanceData(labels=found.labels, masks=masks)
    model.panoptic_head.__class__ = Mask2FormerHead
    torch.manual_seed(3)
    theirs = model.panoptic_head.loss(features, theirs_samples)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (128, 100)])
def test_detections_are_those_of_mmdetection(size):
    torch.manual_seed(0)
    fit = SquareTransform.fit(*size, SIDE)
    logits, masks = torch.randn(6, 4), torch.nn.functional.interpolate(torch.randn(1, 6, 4, 4) - 0.3, (16, 16))[0]
    fusion = MaskFormerFusionHead(3, 0, dict(panoptic_on=False, instance_on=True, max_per_image=10))
    meta = dict(img_shape=fit.resized_size, ori_shape=size, batch_input_shape=(SIDE, SIDE))
    enlarged = torch.nn.functional.interpolate(masks[None], (SIDE, SIDE), mode="bilinear", align_corners=False)
    sample = type("Sample", (), {"metainfo": meta})
    theirs = fusion.predict(logits[None], enlarged, [sample], rescale=True)[0]["ins_results"]
    ours = detections(logits, masks, fit, 10)
    order = theirs.scores.argsort(descending=True, stable=True)
    order = order[theirs.masks[order].flatten(1).any(dim=1)]
    torch.testing.assert_close(ours.scores, theirs.scores[order])
    assert torch.equal(ours.labels, theirs.labels[order]) and torch.equal(ours.masks, theirs.masks[order])
    assert torch.equal(ours.bboxes, theirs.bboxes[order])


def test_detections_leave_out_empty_masks_and_survive_few_queries():
    fit = SquareTransform.fit(40, 64, SIDE)
    masks = torch.full((2, 16, 16), -1.0)
    assert len(detections(torch.randn(2, 3), masks, fit, 100)) == 0
    masks[1, :4, :4] = 1.0
    found = detections(torch.randn(2, 3), masks, fit, 100)
    assert len(found) == 2 and found.masks.shape == (2, 40, 64) and found.masks[:, :15, :15].all()
    assert sorted(found.labels.tolist()) == [0, 1]


def test_batches_of_any_size_give_the_same_detections():
    model = detector().eval()
    inputs, samples = batch_of(1, 2, 0, training=False)
    together = model.predict(inputs, copy.deepcopy(samples))
    for number in range(3):
        (alone,) = model.predict(inputs[number : number + 1], copy.deepcopy(samples[number : number + 1]))
        one, other = alone.pred_instances, together[number].pred_instances
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)
        assert one.masks.shape[1:] == (40, 64) and torch.equal(one.labels, other.labels)
        assert (one.masks == other.masks).float().mean() > 0.999


class Saved:
    """Counts the bytes that a forward pass keeps for the backward pass."""

    def __enter__(self):
        self.bytes = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.count, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def count(self, tensor):
        self.bytes += tensor.numel() * tensor.element_size()
        return tensor

    def __exit__(self, *exception):
        self.hooks.__exit__(*exception)


def test_a_frozen_encoder_needs_no_gradient_memory(tmp_path):
    kept = {}
    for name, changes in {
        "trained": {}, "frozen": dict(frozen=True), "cached": dict(frozen=True, cache_dir=str(tmp_path)),
    }.items():  # fmt: skip
        model = detector(backbone={**SAM, **changes})
        with Saved() as encoder:
            maps = model.backbone.extract(batch_of(1)[0])
        assert all((part.grad_fn is None) == bool(changes) for part in maps)
        with Saved() as step:
            total(model.loss(*batch_of(1))).backward()
        kept[name] = encoder.bytes, step.bytes
        assert any(p.grad is not None for p in model.backbone.parameters()) == (not changes)
    assert kept["frozen"][0] == kept["cached"][0] == 0 < kept["trained"][0]
    # The pyramid's first layers keep the maps for their own weights, which the trained encoder counts as its own.
    assert kept["frozen"][1] <= kept["trained"][1] - 0.9 * kept["trained"][0]


@pytest.mark.parametrize("stride", [16, 4])
def test_pyramids_have_four_scales(stride):
    grid = SIDE // stride
    maps = [torch.randn(2, 24, grid, grid) for _ in range(4)]
    for source in ("taps", "last"):
        scales = FeaturePyramid([24] * 4, stride, source, 8)(maps)
        assert [tuple(part.shape) for part in scales] == [(2, 8, SIDE // s, SIDE // s) for s in (4, 8, 16, 32)]


def test_each_scale_comes_from_its_tap():
    maps = [torch.randn(1, 8, 4, 4, requires_grad=True) for _ in range(4)]
    for source, expected in (("taps", [0, 1, 2, 3]), ("last", [3, 3, 3, 3])):
        for scale, part in enumerate(FeaturePyramid([8] * 4, 16, source, 8)(maps)):
            found = torch.autograd.grad(part.sum() + part.square().sum(), maps, allow_unused=True)
            assert [n for n, grad in enumerate(found) if grad is not None] == [expected[scale]]


def test_pyramid_errors():
    with pytest.raises(ConfigError, match="needs 4 maps, the backbone gives 1"):
        FeaturePyramid([8], 16, "taps")
    with pytest.raises(ConfigError, match="one of taps, last"):
        FeaturePyramid([8], 16, "fpn")
    with pytest.raises(ConfigError, match="cannot become one of stride 4"):
        FeaturePyramid([8], 12, "last")


def test_the_published_arrangement_keeps_one_resolution():
    model = detector(pyramid="none")
    features = model.extract_feat(batch_of(1)[0])
    assert {tuple(part.shape[1:]) for part in features} == {(48, SIDE // 16, SIDE // 16)}
    _, masks = model._forward(*batch_of(1))
    assert masks.shape[-2:] == (SIDE // 16, SIDE // 16)
    total(model.loss(*batch_of(1, 0))).backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(pyramid="fpn"), "pyramid must be one of taps, simple, none"),
        (dict(classes=("a", "a")), "different names"),
        (dict(classes="ab"), "different names"),
        (dict(head=dict(querys=3)), "head of Mask2FormerDetector"),
        (dict(head=dict(channels=36)), "multiple of 4 x heads"),
        (dict(max_per_image=0), "at least 1"),
        (dict(backbone=dict(type="SamBackbone", **TINY_VIT), pyramid="none"), "gives 1"),
        (dict(backbone=dict(type="SamBackbone", **TINY_VIT)), "needs 4 maps"),
    ],
)
def test_errors_of_the_configuration(changes, message):
    arguments = dict(type="Mask2FormerDetector", backbone=SAM, classes=CLASSES, head=TINY_HEAD)
    with pytest.raises(ConfigError, match=message):
        MODELS.build({**arguments, **changes})


def test_errors_of_the_data():
    model = detector()
    inputs, samples = batch_of(2)
    samples[0].gt_instances.labels[1] = 2
    with pytest.raises(ConfigError, match=r"object of class 2 \(from 0\), the model has 2 classes"):
        model.loss(inputs, samples)
    with pytest.raises(ConfigError, match=r"needs masks of .* the pipeline gives none"):
        model.loss(*batch_of(2, training=False))
    with pytest.raises(ConfigError, match="was resized to"):
        model.predict(*batch_of(1, side=32, training=False))


def test_card_names_what_a_prediction_needs():
    card = detector().card()
    assert card["classes"] == list(CLASSES) and card["preprocessing"]["square"] == SIDE
    assert card["backbone"]["taps"] == [0, 1, 2, 3] and card["architecture"] == "mask2former"


def decoder_file(path, classes=80, channels=(256, 512, 1024, 2048), **sizes):
    torch.manual_seed(7)
    head = build_head(channels, (4, 8, 16, 32), classes, HeadSizes(**{**TINY_HEAD, **sizes}))
    state = {f"panoptic_head.{name}": value for name, value in head.state_dict().items()}
    torch.save({"meta": {"epoch": 50}, "state_dict": state | {"backbone.conv1.weight": torch.zeros(1)}}, path)
    return state


def test_decoder_starts_from_coco(tmp_path):
    path = tmp_path / "coco.pth"
    state = decoder_file(path)
    model = detector(decoder_weights=str(path))
    own = model.panoptic_head.state_dict()
    same = {name for name in own if own[name].shape == state[f"panoptic_head.{name}"].shape
            and torch.equal(own[name], state[f"panoptic_head.{name}"])}  # fmt: skip
    kept = set(own) - same - {"loss_cls.class_weight"}
    assert kept == {
        "cls_embed.weight", "cls_embed.bias", "pixel_decoder.lateral_convs.0.conv.weight",
        *(f"pixel_decoder.input_convs.{n}.conv.weight" for n in range(3)),
    }  # fmt: skip
    assert set(load_decoder(model.panoptic_head, str(path))) == kept
    model.panoptic_head.query_feat.weight.data.zero_()
    model.init_weights()
    assert model.panoptic_head.query_feat.weight.eq(0).all(), "weights that were loaded since are not overwritten"


def test_decoder_of_other_sizes_is_refused(tmp_path):
    path = tmp_path / "coco.pth"
    decoder_file(path, queries=7)
    with pytest.raises(CheckpointError, match=r"2 of \d+ weights are missing or of another shape, 0 unknown"):
        detector(decoder_weights=str(path))
    torch.save({"state_dict": {"backbone.conv1.weight": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match=r"no weights named panoptic_head\.\*"):
        detector(decoder_weights=str(path))


def test_published_decoder_has_the_names_and_shapes_of_the_default_sizes():
    """Those of mask2former_r50_8xb2-lsj-50e_coco_20220506_191028-41b088b6.pth."""
    with torch.device("meta"):
        head = build_head((256, 512, 1024, 2048), (4, 8, 16, 32), 80, HeadSizes())
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert shapes["query_embed.weight"] == shapes["query_feat.weight"] == (100, 256)
    assert shapes["level_embed.weight"] == (3, 256) and shapes["cls_embed.weight"] == (81, 256)
    inputs = [shapes[f"pixel_decoder.input_convs.{n}.conv.weight"] for n in range(3)]
    assert inputs == [(256, 2048, 1, 1), (256, 1024, 1, 1), (256, 512, 1, 1)]
    assert shapes["pixel_decoder.lateral_convs.0.conv.weight"] == (256, 256, 1, 1)
    assert {name.split(".")[3] for name in shapes if name.startswith("pixel_decoder.encoder.layers.")} == set("012345")
    assert {name.split(".")[2] for name in shapes if name.startswith("transformer_decoder.layers.")} == set("012345678")
    assert shapes["mask_embed.4.weight"] == (256, 256)
    assert "transformer_decoder.layers.0.cross_attn.attn.in_proj_weight" in shapes
    assert {name for name in shapes if name.startswith("transformer_decoder.post_norm.")}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_losses():
    model = detector()
    model.panoptic_head.num_points = 4096
    inputs, samples = batch_of(2, 0)
    expected = {name: float(value.detach()) for name, value in model.loss(inputs, copy.deepcopy(samples)).items()}
    model.cuda()
    data = model.data_preprocessor({"inputs": inputs, "data_samples": samples})
    losses = model.loss(**{"batch_inputs": data["inputs"], "batch_data_samples": data["data_samples"]})
    total(losses).backward()
    for name, value in losses.items():
        # The points are drawn anew.
        assert float(value.detach()) == pytest.approx(expected[name], rel=0.2, abs=0.1), name
