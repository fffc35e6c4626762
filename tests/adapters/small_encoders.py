"""A ViT small enough to rebuild by hand, and segment-anything's of the same weights."""

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from ultrasam.modeling.image_encoder import ImageEncoder

# Five cells a side: windows of three are padded to six.
SIDE, DIM, HEADS, WINDOW = 80, 24, 3, 3


def randomize(module, seed=0, std=0.2):
    """Give every parameter a random value, those that start at zero too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return module


def small_encoder(seed=0, side=SIDE):
    """Return a frozen ViT of two blocks, the first windowed, the second global."""
    encoder = ImageEncoder(
        image_size=side, dim=DIM, depth=2, heads=HEADS, out_dim=16, window=WINDOW, global_blocks=(1,)
    )
    return randomize(encoder, seed).eval().requires_grad_(False)


def reference(encoder, side=SIDE):
    """Return segment-anything's encoder with the weights of ours."""
    found = ImageEncoderViT(
        img_size=side, patch_size=16, embed_dim=DIM, depth=2, num_heads=HEADS, mlp_ratio=4, out_chans=16, qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=WINDOW, global_attn_indexes=(1,),
    )  # fmt: skip
    found.load_state_dict(encoder.state_dict())
    return found.eval().requires_grad_(False)


def images(count=2, side=SIDE, seed=9):
    """Return normalised random images (count, 3, side, side)."""
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
