"""RoI pooling and deformable convolution through mmcv's wrappers, against loops and their autograd."""

import itertools
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ultrasam.engine import mmcv_ext


@pytest.fixture(scope="module")
def ops() -> ModuleType:
    mmcv_ext.install()
    import mmcv.ops

    return mmcv.ops


def double(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same_values_and_gradients(
    function: Callable[..., Tensor], reference: Callable[..., Tensor], *inputs: Tensor
) -> None:
    """Compare two functions of the same tensors, and the gradients by every one of them."""
    results = []
    for candidate in (function, reference):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        output = candidate(*leaves)
        direction = double(99, *output.shape)
        results.append((output.detach(), torch.autograd.grad(output, leaves, direction)))
    torch.testing.assert_close(results[0], results[1])
    assert all(gradient.abs().max() > 0 for gradient in results[1][1])


def sample_zero(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bilinear sample of C x H x W at (y, x), pixels outside count as zero."""
    height, width = image.shape[1:]
    total = image.new_zeros(image.shape[0])
    for row, column in itertools.product((0, 1), (0, 1)):
        i, j = int(torch.floor(y)) + row, int(torch.floor(x)) + column
        if 0 <= i < height and 0 <= j < width:
            total = total + image[:, i, j] * (1 - (y - i).abs()) * (1 - (x - j).abs())
    return total


def sample_clamped(image: Tensor, y: float, x: float) -> Tensor:
    """Bilinear sample of C x H x W at (y, x), the border repeated for one pixel and zero beyond."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return image.new_zeros(image.shape[0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    total = image.new_zeros(image.shape[0])
    for i, j in itertools.product(range(height), range(width)):
        weight = max(0.0, 1 - abs(y - i)) * max(0.0, 1 - abs(x - j))
        if weight:
            total = total + image[:, i, j] * weight
    return total


def naive_roi_align(
    image: Tensor, rois: Tensor, bins: int, scale: float, ratio: int, aligned: bool
) -> Tensor:
    shift = 0.5 if aligned else 0.0
    regions = []
    for index, *corners in rois.tolist():
        x1, y1, x2, y2 = (c * scale - shift for c in corners)
        smallest = 0.0 if aligned else 1.0
        height, width = max(y2 - y1, smallest) / bins, max(x2 - x1, smallest) / bins
        down = ratio or int(torch.tensor(height).ceil())
        across = ratio or int(torch.tensor(width).ceil())
        cells = []
        for row, column in itertools.product(range(bins), range(bins)):
            samples = [
                sample_clamped(
                    image[int(index)],
                    y1 + (row + (i + 0.5) / down) * height,
                    x1 + (column + (j + 0.5) / across) * width,
                )
                for i, j in itertools.product(range(down), range(across))
            ]
            cells.append(torch.stack(samples).mean(0))
        regions.append(torch.stack(cells, 1).view(-1, bins, bins))
    return torch.stack(regions)


def naive_roi_pool(image: Tensor, rois: Tensor, bins: int, scale: float) -> Tensor:
    regions = []
    height, width = image.shape[2:]
    for index, *corners in rois.tolist():
        x1, y1, x2, y2 = (
            corners[0] * scale,
            corners[1] * scale,
            (corners[2] + 1) * scale,
            (corners[3] + 1) * scale,
        )
        cells = []
        for row, column in itertools.product(range(bins), range(bins)):
            bottom, top = y1 + row * (y2 - y1) / bins, y1 + (row + 1) * (y2 - y1) / bins
            left, right = x1 + column * (x2 - x1) / bins, x1 + (column + 1) * (x2 - x1) / bins
            inside = [
                image[int(index), :, i, j]
                for i, j in itertools.product(range(height), range(width))
                if i + 1 > bottom and i < top and j + 1 > left and j < right
            ]
            malformed = x2 <= x1 or y2 <= y1
            zero = image.new_zeros(image.shape[1])
            cells.append(torch.stack(inside).amax(0) if inside and not malformed else zero)
        regions.append(torch.stack(cells, 1).view(-1, bins, bins))
    return torch.stack(regions)


def naive_deform_conv(
    image: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: int,
    pad: int,
    dilation: int,
) -> Tensor:
    """Deformable convolution sample by sample; the numbers of groups follow from the shapes."""
    batch, channels = image.shape[:2]
    outputs, per_group, kernel_h, kernel_w = weight.shape
    kernel = kernel_h * kernel_w
    offset_groups = mask.shape[1] // kernel
    groups = channels // per_group
    result = image.new_zeros(batch, outputs, *offset.shape[2:])
    for b, row, column in itertools.product(range(batch), range(offset.shape[2]), range(offset.shape[3])):
        columns = []
        for g, planes in enumerate(image[b].chunk(offset_groups)):
            samples = []
            for k in range(kernel):
                o = 2 * (g * kernel + k)
                y = row * stride - pad + (k // kernel_w) * dilation + offset[b, o, row, column]
                x = column * stride - pad + (k % kernel_w) * dilation + offset[b, o + 1, row, column]
                samples.append(sample_zero(planes, y, x) * mask[b, g * kernel + k, row, column])
            columns.append(torch.stack(samples, 1))
        grouped = torch.cat(columns).view(groups, per_group * kernel)
        filters = weight.view(groups, outputs // groups, per_group * kernel)
        value = torch.einsum("goc,gc->go", filters, grouped).reshape(-1) + bias
        result = result.index_put(
            (torch.tensor(b), torch.arange(outputs), torch.tensor(row), torch.tensor(column)), value
        )
    return result


ROIS = torch.tensor(
    [[0, 1.2, 0.7, 9.3, 7.9], [1, -3.0, -2.0, 5.0, 20.0], [1, 4.4, 4.1, 4.9, 4.3], [0, 8.0, 2.0, 14.0, 30.0]],
    dtype=torch.float64,
)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("ratio", "scale"), [(0, 0.5), (2, 1.0)])
def test_roi_align_averages_samples(ops: ModuleType, ratio: int, scale: float, aligned: bool) -> None:
    features = double(1, 2, 3, 6, 7)
    assert_same_values_and_gradients(
        lambda image: ops.roi_align(image, ROIS, 2, scale, ratio, "avg", aligned),
        lambda image: naive_roi_align(image, ROIS, 2, scale, ratio, aligned),
        features,
    )


def test_roi_align_gradcheck_and_half_precision(ops: ModuleType) -> None:
    features = double(2, 2, 2, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda image: ops.roi_align(image, ROIS, (3, 2), 0.5), (features,))
    exact = ops.roi_align(features.detach(), ROIS, (3, 2), 0.5)
    half = ops.roi_align(features.detach().bfloat16(), ROIS.bfloat16(), (3, 2), 0.5)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), exact, atol=0.1, rtol=0.05)


def test_roi_align_maximum_is_refused_by_name(ops: ModuleType) -> None:
    with pytest.raises(NotImplementedError, match=r"roi_align with pool_mode='max'.*mim install"):
        ops.roi_align(double(1, 1, 1, 4, 4), ROIS[:1], 2, 1.0, 0, "max", True)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.3])
def test_roi_pool_takes_maxima_of_unrounded_bins(ops: ModuleType, scale: float) -> None:
    malformed = torch.tensor([[0, 5.0, 5.0, 2.0, 3.0], [0, 90.0, 90.0, 95.0, 95.0]], dtype=torch.float64)
    rois = torch.cat((ROIS, malformed))
    assert_same_values_and_gradients(
        lambda image: ops.roi_pool(image, rois, 3, scale),
        lambda image: naive_roi_pool(image, rois, 3, scale),
        double(3, 2, 3, 6, 7),
    )
    assert ops.roi_pool(double(3, 2, 3, 6, 7), rois, 3, scale)[4:].abs().max() == 0


@pytest.mark.parametrize(
    ("groups", "offset_groups", "stride", "pad", "dilation"), [(1, 1, 1, 1, 1), (2, 2, 2, 2, 2)]
)
def test_deform_conv_samples_at_the_offsets(
    ops: ModuleType, groups: int, offset_groups: int, stride: int, pad: int, dilation: int
) -> None:
    image, weight = double(4, 2, 4, 5, 6), double(5, 6, 4 // groups, 3, 2)
    plain = F.conv2d(image, weight, stride=stride, padding=pad, dilation=dilation, groups=groups)
    offset = double(6, 2, 2 * offset_groups * 6, *plain.shape[2:]) * 1.5
    mask, bias = (
        torch.ones(2, offset_groups * 6, *plain.shape[2:], dtype=torch.float64),
        torch.zeros(6).double(),
    )

    def convolve(image: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        return ops.deform_conv2d(image, offset, weight, stride, pad, dilation, groups, offset_groups)

    assert_same_values_and_gradients(
        convolve,
        lambda image, offset, weight: naive_deform_conv(
            image, offset, mask, weight, bias, stride, pad, dilation
        ),
        image,
        offset,
        weight,
    )
    torch.testing.assert_close(convolve(image, torch.zeros_like(offset), weight), plain)


@pytest.mark.parametrize(
    ("groups", "offset_groups", "stride", "pad", "dilation"), [(1, 1, 1, 1, 1), (2, 2, 2, 2, 2)]
)
def test_modulated_deform_conv_samples_at_the_offsets(
    ops: ModuleType, groups: int, offset_groups: int, stride: int, pad: int, dilation: int
) -> None:
    image, weight, bias = double(4, 2, 4, 5, 6), double(5, 6, 4 // groups, 3, 2), double(7, 6)
    size = F.conv2d(image, weight, stride=stride, padding=pad, dilation=dilation, groups=groups).shape[2:]
    offset = double(6, 2, 2 * offset_groups * 6, *size) * 1.5
    assert_same_values_and_gradients(
        lambda *t: ops.modulated_deform_conv2d(*t, stride, pad, dilation, groups, offset_groups),
        lambda *t: naive_deform_conv(*t, stride, pad, dilation),
        image,
        offset,
        double(8, 2, offset_groups * 6, *size),
        weight,
        bias,
    )


def test_modulated_deform_conv_without_bias_and_gradcheck(ops: ModuleType) -> None:
    inputs = (double(1, 1, 2, 3, 3), double(2, 1, 8, 2, 2), double(3, 1, 4, 2, 2), double(4, 2, 2, 2, 2))
    with_zero_bias = ops.modulated_deform_conv2d(*inputs, torch.zeros(2).double())
    torch.testing.assert_close(ops.modulated_deform_conv2d(*inputs), with_zero_bias)
    leaves = tuple(tensor.requires_grad_() for tensor in inputs)
    assert torch.autograd.gradcheck(ops.modulated_deform_conv2d, leaves)
    assert torch.autograd.gradcheck(ops.deform_conv2d, (leaves[0], leaves[1], leaves[3]))


def test_dcnv2_layer_trains_under_bfloat16_autocast(ops: ModuleType) -> None:
    torch.manual_seed(0)
    layer = ops.ModulatedDeformConv2dPack(4, 6, 3, padding=1)
    image = torch.randn(2, 4, 8, 8)
    exact = layer(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(image)
    output.float().sum().backward()
    torch.testing.assert_close(output.float(), exact, atol=0.05, rtol=0.05)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())
