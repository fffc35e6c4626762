"""Multi-scale deformable attention: both of mmcv's routes against a loop over samples, and Mask2Former."""

import itertools
import math
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from ultrasam.engine import mmcv_ext

SHAPES = torch.tensor([[4, 5], [2, 3], [1, 1]])
STARTS = torch.tensor([0, 20, 26])


@pytest.fixture(scope="module")
def attention() -> ModuleType:
    mmcv_ext.install()
    import mmcv.ops.multi_scale_deform_attn as module

    return module


@pytest.fixture
def cuda_route(attention: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send mmcv's CPU route through the function that it uses on CUDA, which calls ``mmcv._ext``."""

    def through_extension(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        sizes = shapes[:, 0] * shapes[:, 1]
        starts = torch.cat((sizes.new_zeros(1), sizes.cumsum(0)[:-1]))
        function = attention.MultiScaleDeformableAttnFunction
        return function.apply(value, shapes, starts, locations, weights, 64)

    monkeypatch.setattr(attention, "multi_scale_deformable_attn_pytorch", through_extension)


def random_inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Values, sampling locations (some outside the maps) and attention weights."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 27, 2, 3, generator=generator, dtype=torch.float64)
    locations = torch.rand(2, 4, 2, 3, 2, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3
    weights = torch.rand(2, 4, 2, 3, 2, generator=generator, dtype=torch.float64)
    return value.to(dtype), locations.to(dtype), weights.to(dtype)


def by_loops(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Every sample's four pixels one by one."""
    batch, queries, heads, levels, points = weights.shape
    rows = []
    for b, q, m in itertools.product(range(batch), range(queries), range(heads)):
        total = value.new_zeros(value.shape[3])
        for level, p in itertools.product(range(levels), range(points)):
            height, width = SHAPES[level].tolist()
            x = locations[b, q, m, level, p, 0] * width - 0.5
            y = locations[b, q, m, level, p, 1] * height - 0.5
            for i, j in itertools.product((0, 1), (0, 1)):
                row, column = math.floor(y.item()) + i, math.floor(x.item()) + j
                if 0 <= row < height and 0 <= column < width:
                    part = (1 - (y - row).abs()) * (1 - (x - column).abs()) * weights[b, q, m, level, p]
                    total = total + part * value[b, int(STARTS[level]) + row * width + column, m]
        rows.append(total)
    return torch.stack(rows).view(batch, queries, -1)


def through_extension(attention: ModuleType, *tensors: Tensor) -> Tensor:
    value, locations, weights = tensors
    return attention.MultiScaleDeformableAttnFunction.apply(value, SHAPES, STARTS, locations, weights, 64)


def test_forward_and_backward_equal_a_loop_over_samples(attention: ModuleType) -> None:
    results = []
    for function in (lambda *t: through_extension(attention, *t), by_loops):
        leaves = [tensor.requires_grad_() for tensor in random_inputs()]
        output = function(*leaves)
        direction = torch.linspace(-1, 2, output.numel(), dtype=torch.float64).view_as(output)
        results.append((output.detach(), torch.autograd.grad(output, leaves, direction)))
    torch.testing.assert_close(results[0], results[1])


def test_extension_equals_mmcv_cpu_route(attention: ModuleType) -> None:
    value, locations, weights = random_inputs()
    expected = attention.multi_scale_deformable_attn_pytorch(value, SHAPES, locations, weights)
    torch.testing.assert_close(through_extension(attention, value, locations, weights), expected)


def test_gradcheck(attention: ModuleType) -> None:
    leaves = tuple(tensor[:1].clone().requires_grad_() for tensor in random_inputs())
    assert torch.autograd.gradcheck(lambda *tensors: through_extension(attention, *tensors), leaves)


def test_levels_may_lie_anywhere_among_the_values(attention: ModuleType) -> None:
    value, locations, weights = random_inputs()
    function = attention.MultiScaleDeformableAttnFunction
    expected = function.apply(value, SHAPES, STARTS, locations, weights, 64)
    padded = torch.cat((value.new_full((2, 5, 2, 3), 1e6), value), 1)
    torch.testing.assert_close(function.apply(padded, SHAPES, STARTS + 5, locations, weights, 64), expected)


def test_half_precision_values_keep_their_type_and_get_gradients(attention: ModuleType) -> None:
    value, locations, weights = random_inputs(torch.bfloat16)
    exact = by_loops(value.double(), locations.double(), weights.double())
    leaf = value.requires_grad_()
    output = through_extension(attention, leaf, locations, weights)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.double(), exact, atol=0.05, rtol=0.02)
    output.float().sum().backward()
    assert leaf.grad is not None and leaf.grad.dtype == torch.bfloat16


def attend_with_module(attention: ModuleType) -> list[Tensor]:
    """Output of mmcv's module and gradients by its parameters."""
    torch.manual_seed(0)
    module = attention.MultiScaleDeformableAttention(
        8, num_heads=2, num_levels=3, dropout=0.0, batch_first=True
    )
    torch.nn.init.normal_(module.sampling_offsets.weight, std=0.3)
    torch.nn.init.normal_(module.attention_weights.weight, std=0.3)
    query, features = torch.randn(2, 6, 8), torch.randn(2, 27, 8)
    output = module(
        query,
        value=features,
        reference_points=torch.rand(2, 6, 3, 2),
        spatial_shapes=SHAPES,
        level_start_index=STARTS,
    )
    output.square().sum().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)
    return [output.detach(), *(gradient for gradient in gradients if gradient is not None)]


def test_module_gives_the_same_on_both_routes(attention: ModuleType, request: pytest.FixtureRequest) -> None:
    expected = attend_with_module(attention)
    request.getfixturevalue("cuda_route")
    torch.testing.assert_close(attend_with_module(attention), expected)


def mask2former_config() -> dict[str, Any]:
    """Mask2Former at a hundredth of its size."""
    attention_cfg = dict(
        embed_dims=16, num_heads=2, num_levels=3, num_points=2, dropout=0.0, batch_first=True
    )
    encoder = dict(
        num_layers=1,
        layer_cfg=dict(self_attn_cfg=attention_cfg, ffn_cfg=dict(embed_dims=16, feedforward_channels=16)),
    )
    cross = dict(embed_dims=16, num_heads=2, dropout=0.0, batch_first=True)
    decoder = dict(
        return_intermediate=True,
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=cross, cross_attn_cfg=cross, ffn_cfg=dict(embed_dims=16, feedforward_channels=16)
        ),
        init_cfg=None,
    )
    positions = dict(num_feats=8, normalize=True)
    costs = [dict(type="ClassificationCost"), dict(type="CrossEntropyLossCost"), dict(type="DiceCost")]
    return dict(
        type="Mask2Former",
        data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32, pad_mask=True),
        backbone=dict(type="ResNet", depth=18, base_channels=8, norm_cfg=dict(type="BN"), norm_eval=False),
        panoptic_head=dict(
            type="Mask2FormerHead",
            in_channels=[8, 16, 32, 64],
            strides=[4, 8, 16, 32],
            feat_channels=16,
            out_channels=16,
            num_things_classes=2,
            num_stuff_classes=0,
            num_queries=5,
            num_transformer_feat_level=3,
            pixel_decoder=dict(
                type="MSDeformAttnPixelDecoder",
                num_outs=3,
                norm_cfg=dict(type="GN", num_groups=4),
                act_cfg=dict(type="ReLU"),
                encoder=encoder,
                positional_encoding=positions,
            ),
            enforce_decoder_input_project=False,
            positional_encoding=positions,
            transformer_decoder=decoder,
            loss_cls=dict(type="CrossEntropyLoss", class_weight=[1.0, 1.0, 0.1]),
            loss_mask=dict(type="CrossEntropyLoss", use_sigmoid=True),
            loss_dice=dict(type="DiceLoss", activate=True, naive_dice=True, eps=1.0),
        ),
        panoptic_fusion_head=dict(
            type="MaskFormerFusionHead", num_things_classes=2, num_stuff_classes=0, loss_panoptic=None
        ),
        train_cfg=dict(
            num_points=64,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(type="HungarianAssigner", match_costs=costs),
            sampler=dict(type="MaskPseudoSampler"),
        ),
        test_cfg=dict(panoptic_on=False, semantic_on=False, instance_on=True, max_per_image=5),
    )


@pytest.mark.usefixtures("attention")
@pytest.mark.parametrize("route", [None, "cuda_route"])
def test_mask2former_trains_and_predicts(route: str | None, request: pytest.FixtureRequest) -> None:
    import numpy as np
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmdet.utils import register_all_modules
    from mmengine.config import ConfigDict
    from mmengine.structures import InstanceData

    register_all_modules()
    if route:
        request.getfixturevalue(route)
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(mask2former_config()))
    masks = np.zeros((2, 60, 64), np.uint8)
    masks[0, 5:30, 8:40] = masks[1, 35:55, 20:60] = 1
    sample = DetDataSample(
        metainfo=dict(img_shape=(60, 64), ori_shape=(60, 64), scale_factor=(1.0, 1.0), img_id=1),
        gt_instances=InstanceData(
            masks=BitmapMasks(masks, 60, 64),
            labels=torch.tensor([0, 1]),
            bboxes=torch.tensor([[8.0, 5, 40, 30], [20, 35, 60, 55]]),
        ),
    )
    image = torch.randint(0, 255, (3, 60, 64), dtype=torch.uint8)
    batch = model.data_preprocessor({"inputs": [image], "data_samples": [sample]}, training=True)
    losses = model(**batch, mode="loss")
    total = sum(value for name, value in losses.items() if "loss" in name)
    total.backward()
    offsets = [p for n, p in model.named_parameters() if "sampling_offsets" in n]
    assert offsets and all(p.grad is not None and p.grad.abs().max() > 0 for p in offsets)
    model.eval()
    with torch.no_grad():
        batch = model.data_preprocessor({"inputs": [image], "data_samples": [sample]}, training=False)
        prediction = model(**batch, mode="predict")[0].pred_instances
    assert prediction.masks.shape == (5, 60, 64) and torch.isfinite(prediction.scores).all()
