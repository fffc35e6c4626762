"""TinyViT as LiteMedSAM uses it: four stages, convolutions then windowed attention, stride 4, 256 channels.

Wu et al. 2022 (TinyViT) with MobileSAM's neck; state-dict names are those of LiteMedSAM's ``image_encoder``.
Maps are (B, C, H, W) in channels-last memory, so that a 1x1 convolution is a matrix product and a window or a
token sequence is a view. In evaluation BatchNorm is folded into the convolution before it, and on a CPU the
wide maps inside a block are made a strip of rows at a time, so that they stay in the cache (a block of the
first stage: 2.5 x faster). Whole maps through separate layers, as in training, are the form to check against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.modeling.common import LayerNorm2d


class Derived:
    """Tensors computed from weights, kept until one of those weights is changed, moved or replaced."""

    def __init__(self) -> None:
        self.key: tuple[object, ...] | None = None
        self.value: tuple[Tensor, ...] = ()

    def clear(self) -> None:
        """Forget the value; needed where a weight was written through ``.data``, which leaves no trace."""
        self.key, self.value = None, ()

    def get(self, sources: Sequence[Tensor], compute: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return ``compute()``, or what it gave last time if ``sources`` are still the same and unchanged."""
        key = tuple((id(t), t.data_ptr(), t.dtype, 0 if t.is_inference() else t._version) for t in sources)
        if key != self.key:
            # A value made in inference mode could not serve a later pass that needs gradients.
            with torch.inference_mode(False), torch.no_grad():
                self.value = compute()
            self.key = key
        return self.value


def may_store(module: nn.Module, *weights: Tensor) -> bool:
    """Whether values derived from the weights may be kept: no gradient is wanted, nothing is being traced."""
    if module.training or torch.compiler.is_compiling():
        return False
    return not (torch.is_grad_enabled() and any(weight.requires_grad for weight in weights))


# Of the widest map in a strip, per thread: about what the second-level cache of a core holds.
STRIP_BYTES = 4 << 20


def strip_rows(row_width: int) -> int:
    """Return how many rows a strip has, for rows of that many float32 numbers."""
    return max(STRIP_BYTES * torch.get_num_threads() // (4 * row_width), 1)


def in_strips(x: Tensor, module: nn.Module) -> bool:
    """Whether a block works strip by strip: inference on a CPU."""
    inference = x.device.type == "cpu" and not torch.is_grad_enabled() and may_store(module)
    return inference and x.numel() > 0


def over_rows(x: Tensor, function: Callable[[Tensor], Tensor], widest: int, multiple: int = 1) -> Tensor:
    """Apply a function, image by image, to strips of rows that do not depend on each other.

    Args:
        x: (B, H, W, C).
        function: maps (1, h, W, C) to (1, h, W, C').
        widest: channels of the widest map inside ``function``; decides how many rows a strip has.
        multiple: the rows of a strip are a multiple of this (windows).

    Returns:
        (B, H, W, C').
    """
    batch, height, width, _ = x.shape
    rows = strip_rows(width * widest * multiple) * multiple
    out: Tensor | None = None
    for image in range(batch):
        for start in range(0, height, rows):
            strip = function(x[image : image + 1, start : start + rows])
            if out is None:
                out = strip.new_empty(batch, height, width, strip.shape[-1])
            out[image, start : start + rows] = strip[0]
    assert out is not None
    return out


class ConvNorm(nn.Module):
    """Convolution without bias, then BatchNorm (names ``c`` and ``bn``).

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel: side of the kernel; the padding keeps the size.
        stride: of the convolution.
        groups: of the convolution.
        scale: initial weight of the BatchNorm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.constant_(self.bn.weight, scale)
        self._folded = Derived()

    def train(self, mode: bool = True) -> ConvNorm:
        """Change the mode, and forget what was folded."""
        self._folded.clear()
        return super().train(mode)

    def fold(self) -> tuple[Tensor, Tensor]:
        """Return the weight and bias of the one convolution that equals both layers in evaluation."""
        mean, variance = self.statistics()
        scale = self.bn.weight * torch.rsqrt(variance + self.bn.eps)
        weight = self.c.weight * scale[:, None, None, None]
        return weight, self.bn.bias - mean * scale

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return the BatchNorm's running mean and variance, (C',) each."""
        mean, variance = self.bn.running_mean, self.bn.running_var
        assert mean is not None and variance is not None
        return mean, variance

    def folded(self) -> tuple[Tensor, Tensor] | None:
        """As ``fold``, from the store; None where both layers have to run by themselves."""
        bn = self.bn
        if not may_store(self, self.c.weight, bn.weight, bn.bias):
            return None
        sources = (self.c.weight, bn.weight, bn.bias, *self.statistics())
        weight, bias = self._folded.get(sources, self.fold)
        return weight, bias

    def pointwise(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C'), for a kernel of 1 in inference."""
        weight, bias = self.folded() or self.fold()
        return F.linear(x, weight.flatten(1), bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        folded = self.folded()
        if folded is None:
            return self.bn(self.c(x))
        return F.conv2d(x, *folded, self.c.stride, self.c.padding, groups=self.c.groups)


class PatchEmbed(nn.Module):
    """Two 1x1 convolutions: LiteMedSAM keeps the full resolution in the first stage."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.seq = nn.Sequential(ConvNorm(3, dim // 2), nn.GELU(), ConvNorm(dim // 2, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, dim, H, W)."""
        if not in_strips(x, self):
            return self.seq(x)
        return over_rows(x.permute(0, 2, 3, 1), self.embed, self.dim).permute(0, 3, 1, 2)

    def embed(self, cells: Tensor) -> Tensor:
        """Map (..., 3) to (..., dim) in inference."""
        first, _, last = self.seq
        assert isinstance(first, ConvNorm) and isinstance(last, ConvNorm)
        return last.pointwise(F.gelu(first.pointwise(cells)))


class Bottleneck(nn.Module):
    """1x1 convolution to another width, depthwise 3x3, 1x1 convolution, with a GELU between.

    Args:
        dim: channels of the input.
        hidden: channels of the depthwise convolution.
        out_dim: channels of the output.
        stride: of the depthwise convolution.
        scale: initial weight of the last BatchNorm.
    """

    def __init__(self, dim: int, hidden: int, out_dim: int, stride: int = 1, scale: float = 1.0) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.conv3 = ConvNorm(hidden, out_dim, scale=scale)

    def finish(self, branch: Tensor, x: Tensor) -> Tensor:
        """Return the output from the convolutions' result and the input."""
        return branch

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H, W) to (B, out_dim, H / stride, W / stride)."""
        if in_strips(x, self):
            return self.strips(x)
        return self.finish(self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))), x)

    def strips(self, x: Tensor) -> Tensor:
        """As ``forward`` in inference: each strip of output rows with the rows that its 3x3 kernels reach."""
        stride, hidden = self.conv2.c.stride[0], self.conv2.c.out_channels
        depthwise, bias = self.conv2.folded() or self.conv2.fold()
        batch, height, width = x.shape[0], x.shape[2] // stride, x.shape[3] // stride
        rows = strip_rows(x.shape[3] * hidden * stride)
        out: Tensor | None = None
        for image in range(batch):
            cells = x[image : image + 1].permute(0, 2, 3, 1)
            for start in range(0, height, rows):
                stop = min(start + rows, height)
                above, below = start * stride - 1, (stop - 1) * stride + 2
                first, last = max(above, 0), min(below, x.shape[2])
                wide = F.gelu(self.conv1.pointwise(cells[:, first:last]))
                # The border is zero after the first convolution, not before it.
                if above < first or last < below:
                    wide = F.pad(wide, (0, 0, 0, 0, first - above, below - last))
                wide = F.conv2d(wide.permute(0, 3, 1, 2), depthwise, bias, stride, (0, 1), groups=hidden)
                strip = self.conv3.pointwise(F.gelu(wide.permute(0, 2, 3, 1)))
                strip = self.finish(strip, cells[:, start:stop])
                if out is None:
                    out = strip.new_empty(batch, height, width, strip.shape[-1])
                out[image, start:stop] = strip[0]
        assert out is not None
        return out.permute(0, 3, 1, 2)


class MBConv(Bottleneck):
    """Inverted bottleneck, added to its input.

    Args:
        dim: channels of input and output.
        expand: hidden channels divided by ``dim``.
    """

    def __init__(self, dim: int, expand: int = 4) -> None:
        super().__init__(dim, dim * expand, dim, scale=0.0)

    def finish(self, branch: Tensor, x: Tensor) -> Tensor:
        """Add the input."""
        return F.gelu(x + branch)


class PatchMerging(Bottleneck):
    """Change the width and, with ``stride`` 2, halve the resolution."""

    def __init__(self, dim: int, out_dim: int, stride: int) -> None:
        super().__init__(dim, out_dim, out_dim, stride)


class WindowAttention(nn.Module):
    """Attention within a square window, with a learned bias for every absolute offset (|dy|, |dx|).

    Args:
        dim: width C.
        heads: number of heads.
        window: side of the window in cells.
    """

    bias_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        cell = torch.arange(window * window)
        dy = (cell[:, None] // window - cell[None, :] // window).abs()
        dx = (cell[:, None] % window - cell[None, :] % window).abs()
        self.register_buffer("bias_index", dy * window + dx, persistent=False)
        self._table = Derived()

    def train(self, mode: bool = True) -> WindowAttention:
        """Change the mode, and forget the bias table."""
        self._table.clear()
        return super().train(mode)

    def bias_table(self) -> Tensor:
        """Return the bias (heads, window², window²)."""
        biases = self.attention_biases
        if not may_store(self, biases):
            return biases[:, self.bias_index]
        return self._table.get((biases,), lambda: (biases[:, self.bias_index],))[0]

    def forward(self, x: Tensor) -> Tensor:
        """Attend within the windows of a (B, H, W, C) map; cells of the padding are zeros that take part."""
        batch, height, width, dim = x.shape
        side = self.window
        down, right = -height % side, -width % side
        if down or right:
            x = F.pad(x, (0, 0, 0, right, 0, down))
        rows, columns = (height + down) // side, (width + right) // side
        x = x.reshape(batch, rows, side, columns, side, dim).transpose(2, 3).reshape(-1, side * side, dim)
        # One head's queries, keys and values lie next to each other in the projection.
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2).chunk(3, dim=-1)
        table = self.bias_table().to(q.dtype)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=table[None])
        x = self.proj(x.transpose(1, 2).flatten(2))
        x = x.view(batch, rows, columns, side, side, dim).transpose(2, 3)
        return x.reshape(batch, height + down, width + right, dim)[:, :height, :width]


class Mlp(nn.Module):
    """LayerNorm, then two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., dim)."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    """Windowed attention, a depthwise 3x3 convolution and an MLP."""

    def __init__(self, dim: int, heads: int, window: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.attn = WindowAttention(dim, heads, window)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = Mlp(dim, dim * mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H, W) to the same shape."""
        cells = x.permute(0, 2, 3, 1)
        strips = in_strips(x, self)
        dim, window = cells.shape[-1], self.attn.window
        cells = over_rows(cells, self.attend, 3 * dim, window) if strips else self.attend(cells)
        cells = self.local_conv(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        cells = over_rows(cells, self.mix, self.mlp.fc1.out_features) if strips else self.mix(cells)
        return cells.permute(0, 3, 1, 2)

    def attend(self, cells: Tensor) -> Tensor:
        """Add the attention to (B, H, W, dim)."""
        return cells + self.attn(cells)

    def mix(self, cells: Tensor) -> Tensor:
        """Add the MLP to (..., dim)."""
        return cells + self.mlp(cells)


class Stage(nn.Module):
    """Blocks of one resolution, then the change to the next (names ``blocks.N`` and ``downsample``)."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the next stage's input."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """LiteMedSAM's image encoder.

    Args:
        image_size: side of the network's square in pixels, a multiple of 4; the input may have any such size.
        dims: width of each stage.
        depths: blocks of each stage.
        heads: attention heads of each stage (the first has none).
        windows: side of the attention windows of each stage in cells.
        out_dim: channels of the output.
    """

    stride = 4

    def __init__(
        self,
        image_size: int = 256,
        dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
        out_dim: int = 256,
    ) -> None:
        super().__init__()
        if image_size % self.stride:
            raise ValueError(f"image_size must be a multiple of {self.stride}, got {image_size}")
        self.image_size = image_size
        self.embed_dim_out = out_dim
        self.patch_embed = PatchEmbed(dims[0])
        stages = []
        for index, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            blocks: list[nn.Module]
            if index == 0:
                blocks = [MBConv(dim) for _ in range(depth)]
            else:
                blocks = [Block(dim, heads[index], windows[index]) for _ in range(depth)]
            # SAM's decoder wants 1/4 of the resolution, so only the first two changes halve it.
            following = dims[index + 1 : index + 2]
            downsample = PatchMerging(dim, following[0], 2 if index < 2 else 1) if following else None
            stages.append(Stage(blocks, downsample))
        self.layers = nn.ModuleList(stages)
        self.neck = nn.Sequential(
            nn.Conv2d(dims[-1], out_dim, 1, bias=False),
            LayerNorm2d(out_dim),
            nn.Conv2d(out_dim, out_dim, 3, padding=1, bias=False),
            LayerNorm2d(out_dim),
        )
        self.apply(_init_linear)

    def stages(self) -> list[nn.Module]:
        """Return the modules that ``run`` counts: patch embedding, every block and change of width, neck."""
        steps: list[nn.Module] = [self.patch_embed]
        for layer in self.layers:
            assert isinstance(layer, Stage)
            steps += [*layer.blocks, *([] if layer.downsample is None else [layer.downsample])]
        return [*steps, self.neck]

    def run(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Pass (B, C, H, W) through ``stages()[start:stop]``; ``run(run(x, 0, k), k)`` is ``forward(x)``."""
        x = x.contiguous(memory_format=torch.channels_last)
        for stage in self.stages()[start:stop]:
            x = stage(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Encode (B, 3, H, W), H and W multiples of 4, to (B, out_dim, H / 4, W / 4).

        Raises:
            ValueError: the size is not a multiple of 4.
        """
        if x.shape[-2] % self.stride or x.shape[-1] % self.stride:
            raise ValueError(f"image sides must be multiples of {self.stride}, got {tuple(x.shape[-2:])}")
        return self.run(x)


def _init_linear(module: nn.Module) -> None:
    """Draw linear weights from a narrow normal distribution, as the transformer literature does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
