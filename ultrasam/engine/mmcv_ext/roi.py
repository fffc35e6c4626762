"""Pooling features inside boxes, as ``mmcv._ext`` has it.

Regions are K x 5: image index, x1, y1, x2, y2 in pixels of the image; ``spatial_scale`` turns them into
pixels of the feature map.
"""

from __future__ import annotations

import torch
import torchvision.ops  # registers torch.ops.torchvision
from torch import Tensor

from ultrasam.engine.mmcv_ext.missing import MissingOpError
from ultrasam.engine.mmcv_ext.precision import widen

_MAX_MODE = 0


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average bilinear samples inside every bin of every region.

    Args:
        input: features B x C x H x W.
        rois: K x 5.
        output: written in place, K x C x aligned_height x aligned_width.
        argmax_y: unused, for maxima only.
        argmax_x: unused, for maxima only.
        aligned_height: number of bins down.
        aligned_width: number of bins across.
        spatial_scale: feature pixels per image pixel.
        sampling_ratio: samples per bin and axis; 0 for as many as the bin has pixels.
        pool_mode: 1 averages; 0, the maximum, is not available here.
        aligned: whether pixel centres lie at +0.5.

    Raises:
        NotImplementedError: ``pool_mode`` is 0.
    """
    _require_average(pool_mode)
    features = widen(input)
    pooled = torchvision.ops.roi_align(
        features,
        rois.to(features.dtype),
        (aligned_height, aligned_width),
        spatial_scale,
        sampling_ratio,
        aligned,
    )
    output.copy_(pooled)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of :func:`roi_align_forward` with respect to the features into ``grad_input``.

    Args:
        grad_output: K x C x aligned_height x aligned_width.
        rois: as in the forward pass.
        argmax_y: unused.
        argmax_x: unused.
        grad_input: written in place, B x C x H x W.
        aligned_height: as in the forward pass.
        aligned_width: as in the forward pass.
        spatial_scale: as in the forward pass.
        sampling_ratio: as in the forward pass.
        pool_mode: as in the forward pass.
        aligned: as in the forward pass.

    Raises:
        NotImplementedError: ``pool_mode`` is 0.
    """
    _require_average(pool_mode)
    grad = widen(grad_output)
    # The gradient does not depend on the values of the features, only on their shape.
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad,
            rois.to(grad.dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Take the maximum of every bin of every region.

    torchvision's ``roi_pool`` rounds the regions to whole pixels, mmcv's does not, so this is written out.

    Args:
        input: features B x C x H x W.
        rois: K x 5.
        output: written in place, K x C x pooled_height x pooled_width; zero where a bin is empty.
        argmax: int32 of the same shape, written in place: ``y * W + x`` of the maximum, -1 if there is none.
        pooled_height: number of bins down.
        pooled_width: number of bins across.
        spatial_scale: feature pixels per image pixel.
    """
    width = input.shape[3]
    output.zero_()
    argmax.fill_(-1)
    regions = widen(rois)
    rows = _bin_edges(regions[:, 2], regions[:, 4], pooled_height, spatial_scale, input.shape[2])
    columns = _bin_edges(regions[:, 1], regions[:, 3], pooled_width, spatial_scale, width)
    for region, image in enumerate(rois[:, 0].long().tolist()):
        for row, (top, bottom) in enumerate(rows[region]):
            for column, (left, right) in enumerate(columns[region]):
                if bottom <= top or right <= left:
                    continue
                cell = input[image, :, top:bottom, left:right].flatten(1)
                value, index = cell.max(dim=1)
                y = top + torch.div(index, right - left, rounding_mode="floor")
                output[region, :, row, column] = value
                argmax[region, :, row, column] = (y * width + left + index % (right - left)).to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the gradient of :func:`roi_pool_forward` with respect to the features into ``grad_input``.

    Args:
        grad_output: K x C x pooled_height x pooled_width.
        rois: as in the forward pass.
        argmax: as the forward pass left it.
        grad_input: added to in place, B x C x H x W, contiguous.
        pooled_height: unused, the shape of ``grad_output`` says it.
        pooled_width: unused.
        spatial_scale: unused, ``argmax`` holds positions in the feature map.
    """
    _, channels, height, width = grad_input.shape
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    position = plane[:, :, None, None] * (height * width) + argmax
    filled = argmax >= 0
    grad_input.view(-1).index_add_(0, position[filled], grad_output[filled].to(grad_input.dtype))


def _bin_edges(
    low: Tensor, high: Tensor, bins: int, spatial_scale: float, limit: int
) -> list[list[tuple[int, int]]]:
    """Return start and end of every bin along one axis of every region, equal if the region is malformed."""
    start = low * spatial_scale
    extent = (high + 1) * spatial_scale - start
    steps = torch.arange(bins, device=low.device, dtype=low.dtype)
    size = (extent / bins)[:, None]
    first = torch.floor(steps * size + start[:, None]).long().clamp(0, limit)
    last = torch.ceil((steps + 1) * size + start[:, None]).long().clamp(0, limit)
    last = torch.where(extent[:, None] > 0, last, first)
    return [
        list(zip(starts, ends, strict=True))
        for starts, ends in zip(first.tolist(), last.tolist(), strict=True)
    ]


def _require_average(pool_mode: int) -> None:
    """Refuse the maximum mode of RoIAlign, which torchvision does not have."""
    if pool_mode == _MAX_MODE:
        raise MissingOpError("roi_align with pool_mode='max'")
