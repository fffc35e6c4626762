"""Our image encoder against the one of ``segment-anything``, with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ultrasam.engine.benchmark_timing import PRECISIONS, Row, Settings, rows_of, time_alternating
from ultrasam.errors import ConfigError
from ultrasam.modeling.build import ARCHITECTURES, build_sam

REFERENCE = "segment_anything"


def build_encoder(settings: Settings) -> nn.Module:
    """Return our image encoder with random weights in evaluation mode, its position tables random as well."""
    torch.manual_seed(settings.seed)
    encoder = build_sam(settings.arch, settings.image_size).image_encoder
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            # Fresh tables are zero, and a term that is zero would hide an error in how it is added.
            if "rel_pos" in name:
                parameter.normal_(std=0.02)
    return encoder.to(settings.device).eval()


def build_reference(encoder: nn.Module, settings: Settings) -> nn.Module:
    """Return the encoder of ``segment-anything`` with the weights of ours.

    Raises:
        ConfigError: that package is not installed, or it has no such architecture.
    """
    try:
        from segment_anything.modeling import ImageEncoderViT
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the encoder benchmark compares with the package segment-anything, which is not installed: "
            "run `pip install segment-anything==1.0`"
        ) from error
    spec = ARCHITECTURES[settings.arch]
    if spec.encoder != "vit":
        raise ConfigError(
            f"arch is {settings.arch!r}, which segment-anything does not have; use a ViT (vit_b)"
        )
    sizes = spec.encoder_args
    reference = ImageEncoderViT(
        img_size=settings.image_size,
        embed_dim=sizes["dim"],
        depth=sizes["depth"],
        num_heads=sizes["heads"],
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=sizes.get("window", 14),
        global_attn_indexes=tuple(sizes["global_blocks"]),
    )
    reference.load_state_dict(encoder.state_dict(), strict=True)
    return reference.to(settings.device).eval()


def measure_encoder(settings: Settings) -> list[Row]:
    """Time both encoders on one image, in float32 and under bfloat16 autocast, and compare their outputs.

    Every ratio is over ``segment-anything`` in the same precision; every difference is from
    ``segment-anything`` in float32.
    """
    encoder = build_encoder(settings)
    reference = build_reference(encoder, settings)
    image = random_images(settings, 1)
    cases: dict[str, Callable[[], Tensor]] = {}
    baselines: dict[str, str] = {}
    for precision, dtype in PRECISIONS.items():
        theirs, ours = f"{REFERENCE} {precision}", f"ultrasam {precision}"
        cases[theirs] = partial(encode, reference, image, dtype)
        cases[ours] = partial(encode, encoder, image, dtype)
        baselines[ours] = theirs
    rows = rows_of("encoder", time_alternating(dict(cases), settings.repeats, settings.device), baselines)
    exact = cases[f"{REFERENCE} fp32"]()
    for row in rows:
        row.difference = float((cases[row.case]().float() - exact).abs().max())
    return rows


def encode(encoder: nn.Module, images: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Run an encoder without gradients, under autocast to ``dtype`` if there is one."""
    with torch.no_grad(), torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
        return encoder(images)


def random_images(settings: Settings, count: int) -> Tensor:
    """Return normalised squares, count x 3 x S x S."""
    generator = torch.Generator().manual_seed(settings.seed)
    side = settings.image_size
    return torch.randn(count, 3, side, side, generator=generator).to(settings.device)
