"""Medical SAM Adapter (Wu et al. 2025, section 3): two bottlenecks in every block of the image encoder.

``a = attention(norm1(x)); x = x + a + A_space(a); m = norm2(x); y = x + mlp(m) + 0.5 * A_mlp(m)`` with
``A(z) = up(gelu(down(z)))``. In 2-D there is no depth adapter, and the decoder has none.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.adapters.options import MedSaOptions
from ultrasam.adapters.sharing import share
from ultrasam.modeling import tiny_vit
from ultrasam.modeling.image_encoder import Block


class Bottleneck(nn.Module):
    """Linear, GELU, linear: (..., dim) to the same, without a skip.

    Args:
        dim: width outside.
        ratio: width inside over that outside.
        zero: start the last layer at zero.
    """

    def __init__(self, dim: int, ratio: float, zero: bool) -> None:
        super().__init__()
        hidden = max(int(dim * ratio), 1)
        self.down = nn.Linear(dim, hidden)
        self.up = nn.Linear(hidden, dim)
        if zero:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., dim)."""
        return self.up(F.gelu(self.down(x)))


class MedSaBlock(Block):
    """SAM's block with an adapter after attention and one beside the MLP."""

    space_adapter: Bottleneck
    mlp_adapter: Bottleneck
    scale: float
    raw_padding: bool

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, dim) to the same."""
        a = self.attend(x)
        # The sum as SAM makes it comes first, so that zeros change no bit of it.
        x = x + (a + self.space_adapter(a))
        m = self.norm2(x)
        return x + self.mlp(m) + self.scale * self.mlp_adapter(m)

    def attend(self, x: Tensor) -> Tensor:
        """Normalise and attend; windows are padded after the normalisation, or before it as published."""
        side = self.attn.window
        if not (self.raw_padding and side):
            return self.attn(self.norm1(x))
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        return self.attn(self.norm1(padded))[:, :height, :width]


class MedSaTinyBlock(tiny_vit.Block):
    """TinyViT's block with the same two adapters; blocks of convolutions alone have none."""

    space_adapter: Bottleneck
    mlp_adapter: Bottleneck
    scale: float

    def attend(self, cells: Tensor) -> Tensor:
        """Add the attention and its adapter to (B, H, W, dim)."""
        a = self.attn(cells)
        return cells + (a + self.space_adapter(a))

    def mix(self, cells: Tensor) -> Tensor:
        """Add the MLP and its adapter to (..., dim)."""
        return cells + self.mlp(cells) + self.scale * self.mlp_adapter(self.mlp.norm(cells))


def add_med_sa(encoder: nn.Module, options: MedSaOptions) -> list[tuple[nn.Module, str, nn.Module]]:
    """Put the adapters into every block of an image encoder.

    Args:
        encoder: SAM's ViT, or TinyViT.
        options: bottleneck, scale, initialisation, padding.

    Returns:
        What was exchanged: (the list of blocks, the block's number, the block before).
    """
    exchanged: list[tuple[nn.Module, str, nn.Module]] = []
    for holder in list(encoder.modules()):
        for name, block in list(holder._modules.items()):
            if isinstance(block, Block | tiny_vit.Block):
                setattr(holder, name, _adapted(block, options))
                exchanged.append((holder, name, block))
    return exchanged


def adapter_modules(encoder: nn.Module) -> list[nn.Module]:
    """Return the bottlenecks of an adapted encoder."""
    return [module for module in encoder.modules() if isinstance(module, Bottleneck)]


def _adapted(block: Block | tiny_vit.Block, options: MedSaOptions) -> nn.Module:
    weight = block.attn.qkv.weight
    twin: MedSaBlock | MedSaTinyBlock
    if isinstance(block, Block):
        twin = share(block, MedSaBlock)
        twin.raw_padding = options.padding == "raw"
    else:
        twin = share(block, MedSaTinyBlock)
    twin.scale = options.scale
    for name in ("space_adapter", "mlp_adapter"):
        adapter = Bottleneck(weight.shape[1], options.ratio, options.init == "zero")
        setattr(twin, name, adapter.to(weight.device))
    return twin
