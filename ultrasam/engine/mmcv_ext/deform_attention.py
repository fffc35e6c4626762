"""Multi-scale deformable attention (Deformable DETR, Mask2Former), as ``mmcv._ext`` has it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ultrasam.engine.mmcv_ext.precision import widen


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Add up bilinear samples of several feature maps.

    Args:
        value: B x K x M x D, the features of all levels one after another, M heads of D channels.
        value_spatial_shapes: L x 2, (height, width) of every level.
        value_level_start_index: L, where every level begins among the K features.
        sampling_locations: B x Q x M x L x P x 2, (x, y) in units of the level's size, 0 to 1.
        attention_weights: B x Q x M x L x P.
        im2col_step: unused; mmcv's kernel works through the batch in steps of this.

    Returns:
        B x Q x (M * D), of the type of ``value``. Samples outside a level count as zero.
    """
    summed = _attend(
        widen(value),
        value_spatial_shapes,
        value_level_start_index,
        widen(sampling_locations),
        widen(attention_weights),
    )
    return summed.to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of :func:`ms_deform_attn_forward` in place.

    The samples are taken again instead of being kept since the forward pass: they are P times the output.

    Args:
        value: as in the forward pass.
        value_spatial_shapes: as in the forward pass.
        value_level_start_index: as in the forward pass.
        sampling_locations: as in the forward pass.
        attention_weights: as in the forward pass.
        grad_output: B x Q x (M * D).
        grad_value: written, shape of ``value``.
        grad_sampling_loc: written, shape of ``sampling_locations``.
        grad_attn_weight: written, shape of ``attention_weights``.
        im2col_step: unused.
    """
    with torch.enable_grad():
        inputs = [
            widen(tensor.detach()).requires_grad_()
            for tensor in (value, sampling_locations, attention_weights)
        ]
        summed = _attend(inputs[0], value_spatial_shapes, value_level_start_index, inputs[1], inputs[2])
        gradients = torch.autograd.grad(summed, inputs, grad_output.to(summed.dtype))
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        target.copy_(gradient)


def _attend(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted samples, B x Q x (M * D), differentiable in value, locations and weights."""
    batch, _, heads, dim = value.shape
    queries = locations.shape[1]
    # B x Q x M x L x P (x 2) -> L x (B * M) x Q x P (x 2), grid_sample's range is -1 to 1 between the borders
    grids = (2 * locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    level_weights = weights.permute(3, 0, 2, 1, 4).flatten(1, 2)
    summed = value.new_zeros(batch * heads, dim, queries)
    for level, ((height, width), start) in enumerate(zip(shapes.tolist(), starts.tolist(), strict=True)):
        features = value[:, start : start + height * width].permute(0, 2, 3, 1)
        samples = F.grid_sample(
            features.reshape(batch * heads, dim, height, width),
            grids[level],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        summed = summed + (samples * level_weights[level][:, None]).sum(-1)
    return summed.view(batch, heads * dim, queries).transpose(1, 2).contiguous()
