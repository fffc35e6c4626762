"""Time of automatic masks beside the package ``segment_anything`` on equal random weights, as a ratio.

    python tools/benchmark_automatic.py --arch vit_tiny --size 256 --points-per-side 8

Masks are those of random weights, so both thresholds are set from the answers themselves: as many candidates survive as
with trained weights. Both sides get the same image, of the size of the square, and must return equally many records.
"""

from __future__ import annotations

import argparse
import json
import time
from types import SimpleNamespace

import numpy as np
import torch


def their_network(sam):
    """Return segment_anything's network with the weights of ours."""
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    encoder, prompts = sam.image_encoder, sam.prompt_encoder
    blocks = list(encoder.blocks)
    cells = prompts.embedding_size
    theirs = Sam(
        ImageEncoderViT(
            img_size=sam.image_size,
            patch_size=encoder.stride,
            embed_dim=encoder.pos_embed.shape[-1],
            depth=len(blocks),
            num_heads=blocks[0].attn.heads,
            out_chans=encoder.embed_dim_out,
            use_rel_pos=True,
            window_size=max(block.attn.window for block in blocks),
            global_attn_indexes=tuple(row for row, block in enumerate(blocks) if not block.attn.window),
            qkv_bias=True,
            norm_layer=lambda width: torch.nn.LayerNorm(width, eps=1e-6),
        ),
        PromptEncoder(256, (cells, cells), (sam.image_size, sam.image_size), 16),
        MaskDecoder(
            num_multimask_outputs=3,
            transformer_dim=256,
            transformer=TwoWayTransformer(2, 256, 8, sam.mask_decoder.transformer.layers[0].mlp.lin1.out_features),
        ),
    )
    missing, unexpected = theirs.load_state_dict(sam.state_dict(), strict=False)
    if set(missing) - {"pixel_mean", "pixel_std"} or unexpected:
        raise SystemExit(f"the networks differ: {missing[:3]} {unexpected[:3]}")
    return theirs.eval()


def thresholds(model, image, per_side, share):
    """Return a predicted IoU and a stability that leave a share of the candidates each, and the offset."""
    from ultrasam.inference.automatic import AutomaticMasks

    offset = 0.05
    options = dict(stability_score_offset=offset, box_nms_thresh=1.0, clip=False)
    records = AutomaticMasks(
        model, points_per_side=per_side, pred_iou_thresh=0.0, stability_score_thresh=0.0, **options
    ).generate(image)
    scores = np.array([record["predicted_iou"] for record in records])
    limit = float(np.quantile(scores, 1 - share))
    stable = [r["stability_score"] for r in records if r["predicted_iou"] > limit]
    return limit, float(np.quantile(stable, 1 - share)), offset


def measure(function, repeats):
    """Return the shortest time in seconds and the result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result


def main():
    parser = argparse.ArgumentParser(description="Automatic masks beside segment_anything, as a ratio of times.")
    parser.add_argument("--arch", default="vit_b", help="vit_b, vit_l, vit_h or vit_tiny")
    parser.add_argument("--size", type=int, help="side of the square and of the image (default: the architecture's)")
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--survive", type=float, default=0.3, help="share of candidates above each threshold")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", help="JSON to write")
    options = parser.parse_args()

    from segment_anything import SamAutomaticMaskGenerator

    from ultrasam.inference.automatic import AutomaticMasks
    from ultrasam.inference.model import UltraSam
    from ultrasam.io.files import write_atomic
    from ultrasam.modeling.build import build_sam

    torch.manual_seed(0)
    sam = build_sam(options.arch, options.size).eval().requires_grad_(False)
    with torch.no_grad():
        last = sam.mask_decoder.iou_prediction_head.layers[-1]
        last.weight *= 20
        last.bias += 2
    model = UltraSam(SimpleNamespace(sam=sam, passes=(), mask_prompt=True, card={}))
    side = sam.image_size
    coarse = np.random.default_rng(0).integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
    score, stable, offset = thresholds(model, image, min(options.points_per_side, 8), options.survive)
    common = dict(
        points_per_side=options.points_per_side,
        pred_iou_thresh=score,
        stability_score_thresh=stable,
        stability_score_offset=offset,
    )
    ours, found = measure(lambda: AutomaticMasks(model, clip=False, **common).run(image), options.repeats)
    generator = SamAutomaticMaskGenerator(their_network(sam), **common)
    theirs, expected = measure(lambda: generator.generate(image), options.repeats)
    encode, _ = measure(lambda: model.encode([image]), options.repeats)
    report = {
        "arch": options.arch,
        "size": side,
        "points": options.points_per_side**2,
        "threads": torch.get_num_threads(),
        "candidates": found[1].candidates,
        "above_the_iou": found[1].scored,
        "stable": found[1].stable,
        "masks": len(found[0]),
        "masks_of_segment_anything": len(expected),
        "seconds": round(ours, 3),
        "seconds_of_segment_anything": round(theirs, 3),
        "seconds_of_our_encoder": round(encode, 3),
        "ratio": round(theirs / ours, 2),
    }
    text = json.dumps(report, indent=1)
    if options.out:
        write_atomic(options.out, (text + "\n").encode())
    print(text)
    print(f"segment_anything takes {report['ratio']} times as long as ultrasam")


if __name__ == "__main__":
    main()
