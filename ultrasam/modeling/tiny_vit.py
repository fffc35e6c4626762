"""TinyViT as LiteMedSAM uses it: four stages, convolutions then windowed attention, stride 4, 256 channels.

Wu et al. 2022 (TinyViT) with MobileSAM's neck; the state-dict names are those of LiteMedSAM's ``image_encoder``.
Maps are kept as (B, C, H, W) in channels-last memory, so that a 1x1 convolution is a matrix product and a window
or a token sequence is a view. In evaluation BatchNorm is folded into the convolution before it.
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
        """Return ``compute()``, from the store while ``sources`` are the same tensors with the same content."""
        key = tuple((id(t), t.data_ptr(), t.dtype, 0 if t.is_inference() else t._version) for t in sources)
        if key != self.key:
            # A value made in inference mode could not serve a later pass that needs gradients.
            with torch.inference_mode(False), torch.no_grad():
                self.value = compute()
            self.key = key
        return self.value


def may_store(module: nn.Module, *weights: Tensor) -> bool:
    """Whether values derived from the weights may be kept: no gradient wanted, and nothing is being traced."""
    if module.training or torch.compiler.is_compiling():
        return False
    return not (torch.is_grad_enabled() and any(weight.requires_grad for weight in weights))


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
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, scale: float = 1.0
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
        scale = self.bn.weight / (self.bn.running_var + self.bn.eps).sqrt()
        weight = self.c.weight * scale[:, None, None, None]
        return weight, self.bn.bias - self.bn.running_mean * scale

    def folded(self) -> tuple[Tensor, Tensor] | None:
        """As ``fold``, from the store; None where both layers have to run by themselves."""
        bn = self.bn
        if not may_store(self, self.c.weight, bn.weight, bn.bias):
            return None
        sources = (self.c.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var)
        weight, bias = self._folded.get(sources, self.fold)
        return weight, bias

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
        self.seq = nn.Sequential(ConvNorm(3, dim // 2), nn.GELU(), ConvNorm(dim // 2, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, dim, H, W)."""
        return self.seq(x)


class MBConv(nn.Module):
    """Inverted bottleneck: expand, depthwise 3x3, project, added to the input.

    Args:
        dim: channels of input and output.
        expand: hidden channels divided by ``dim``.
    """

    def __init__(self, dim: int, expand: int = 4) -> None:
        super().__init__()
        hidden = dim * expand
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H, W) to the same shape."""
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(hidden))


class PatchMerging(nn.Module):
    """Change the width and, with ``stride`` 2, halve the resolution."""

    def __init__(self, dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, out_dim)
        self.conv2 = ConvNorm(out_dim, out_dim, 3, stride, groups=out_dim)
        self.conv3 = ConvNorm(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H, W) to (B, out_dim, H / stride, W / stride)."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


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
        if not may_store(self, self.attention_biases):
            return self.attention_biases[:, self.bias_index]
        return self._table.get((self.attention_biases,), lambda: (self.attention_biases[:, self.bias_index],))[0]

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
        x = self.local_conv((cells + self.attn(cells)).permute(0, 3, 1, 2))
        cells = x.permute(0, 2, 3, 1)
        return (cells + self.mlp(cells)).permute(0, 3, 1, 2)


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

    def forward(self, x: Tensor) -> Tensor:
        """Encode (B, 3, H, W), H and W multiples of 4, to (B, out_dim, H / 4, W / 4).

        Raises:
            ValueError: the size is not a multiple of 4.
        """
        if x.shape[-2] % self.stride or x.shape[-1] % self.stride:
            raise ValueError(f"image sides must be multiples of {self.stride}, got {tuple(x.shape[-2:])}")
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        for layer in self.layers:
            x = layer(x)
        return self.neck(x)


def _init_linear(module: nn.Module) -> None:
    """Draw linear weights from a narrow normal distribution, as the transformer literature does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
