"""Deformable convolution, versions 1 and 2, as ``mmcv._ext`` has it.

Offsets are B x (2 * G * kernel) x H' x W' in pixels, (y, x) for every kernel position of every one of G
offset groups, which is torchvision's order too.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from ultrasam.engine.mmcv_ext.precision import widen


@dataclass(frozen=True)
class _Geometry:
    """Settings of one convolution, in the order of torchvision's operator."""

    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int
    offset_groups: int


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,  # noqa: N803 (mmcv's argument names)
    kH: int,  # noqa: N803
    dW: int,  # noqa: N803
    dH: int,  # noqa: N803
    padW: int,  # noqa: N803
    padH: int,  # noqa: N803
    dilationW: int,  # noqa: N803
    dilationH: int,  # noqa: N803
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the deformable convolution of ``input`` into ``output``.

    Args:
        input: B x C x H x W.
        weight: O x (C / group) x kH x kW.
        offset: see the module's description.
        output: written in place, B x O x H' x W'.
        columns: unused workspace.
        ones: unused workspace.
        kW: kernel width, as in ``weight``.
        kH: kernel height.
        dW: stride across.
        dH: stride down.
        padW: padding across.
        padH: padding down.
        dilationW: dilation across.
        dilationH: dilation down.
        group: convolution groups.
        deformable_group: offset groups.
        im2col_step: unused.
    """
    geometry = _Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_convolve(input, weight, offset, None, None, geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,  # noqa: N803
    gradInput: Tensor,  # noqa: N803
    gradOffset: Tensor,  # noqa: N803
    weight: Tensor,
    columns: Tensor,
    kW: int,  # noqa: N803
    kH: int,  # noqa: N803
    dW: int,  # noqa: N803
    dH: int,  # noqa: N803
    padW: int,  # noqa: N803
    padH: int,  # noqa: N803
    dilationW: int,  # noqa: N803
    dilationH: int,  # noqa: N803
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the gradients by input and offsets into ``gradInput`` and ``gradOffset``.

    Arguments are those of :func:`deform_conv_forward`; ``gradOutput`` has the shape of its output.
    """
    geometry = _Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    by_input, _, by_offset, _, _ = _gradients(gradOutput, input, weight, offset, None, None, geometry)
    gradInput.copy_(by_input)
    gradOffset.copy_(by_offset)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,  # noqa: N803
    gradWeight: Tensor,  # noqa: N803
    columns: Tensor,
    ones: Tensor,
    kW: int,  # noqa: N803
    kH: int,  # noqa: N803
    dW: int,  # noqa: N803
    dH: int,  # noqa: N803
    padW: int,  # noqa: N803
    padH: int,  # noqa: N803
    dilationW: int,  # noqa: N803
    dilationH: int,  # noqa: N803
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the gradient by the weights to ``gradWeight``.

    Arguments are those of :func:`deform_conv_forward`; ``gradOutput`` has the shape of its output.
    """
    geometry = _Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    # The gradient by the weights does not depend on the weights: their shape is all that is needed.
    _, by_weight, _, _, _ = _gradients(gradOutput, input, gradWeight, offset, None, None, geometry)
    gradWeight.add_(by_weight.to(gradWeight.dtype), alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the modulated deformable convolution of ``input`` into ``output``.

    Args:
        input: B x C x H x W.
        weight: O x (C / group) x kernel_h x kernel_w.
        bias: O, or empty without bias.
        ones: unused workspace.
        offset: see the module's description.
        mask: B x (G * kernel) x H' x W', the factor of every sample.
        output: written in place, B x O x H' x W'.
        columns: unused workspace.
        kernel_h: kernel height, as in ``weight``.
        kernel_w: kernel width.
        stride_h: stride down.
        stride_w: stride across.
        pad_h: padding down.
        pad_w: padding across.
        dilation_h: dilation down.
        dilation_w: dilation across.
        group: convolution groups.
        deformable_group: offset groups.
        with_bias: whether ``bias`` counts.
    """
    geometry = _Geometry(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    output.copy_(_convolve(input, weight, offset, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the gradients by input, weights, bias, offsets and mask into the tensors ``grad_*``.

    Arguments are those of :func:`modulated_deform_conv_forward`; ``grad_output`` has the shape of its output.
    """
    geometry = _Geometry(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    by_input, by_weight, by_offset, by_mask, by_bias = _gradients(
        grad_output, input, weight, offset, mask, bias if with_bias else None, geometry
    )
    grad_input.copy_(by_input)
    grad_weight.copy_(by_weight)
    grad_offset.copy_(by_offset)
    grad_mask.copy_(by_mask)
    if with_bias:
        grad_bias.copy_(by_bias)


def _convolve(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: _Geometry,
) -> Tensor:
    """Return torchvision's deformable convolution."""
    tensors = _operands(input, weight, offset, mask, bias)
    return torch.ops.torchvision.deform_conv2d(*tensors, *astuple(geometry), mask is not None)


def _gradients(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: _Geometry,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return torchvision's gradients by input, weight, offset, mask and bias."""
    tensors = _operands(input, weight, offset, mask, bias)
    grad = grad_output.to(tensors[0].dtype)
    return torch.ops.torchvision._deform_conv2d_backward(grad, *tensors, *astuple(geometry), mask is not None)


def _operands(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return input, weight, offset, mask and bias in one type, zeros for an absent mask or bias."""
    features = widen(input)
    mask = features.new_zeros(len(features), 1) if mask is None else mask.to(features.dtype)
    bias = features.new_zeros(len(weight)) if bias is None else bias.to(features.dtype)
    return features, weight.to(features.dtype), offset.to(features.dtype), mask, bias
