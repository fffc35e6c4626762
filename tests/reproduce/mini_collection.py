"""A collection of a few small images, tiny models whose masks are known, and the paper's tables with these."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ultrasam.checkpoints import save_checkpoint
from ultrasam.datasets.coco import write_coco
from ultrasam.geometry.rle import encode_mask, rle_area
from ultrasam.io.images import write_png
from ultrasam.modeling.build import build_sam
from ultrasam.reproduce import command
from ultrasam.reproduce.tables import TABLES, figure4, table2

ROOT = Path(__file__).resolve().parents[2]
HEIGHT, WIDTH = 50, 80
# Share of the image that the one object covers, which is the IoU of a mask of everything: of the thresholds 0.50, 0.55,
# ... 0.95 it reaches five, so that mAP is 50 % and mAP50 100 %.
SHARE = 0.72
CONFIG = f"""
_base_ = "{ROOT}/configs/demo/ultrasam_vit-tiny_phantom.py"
data_root = "{{{{$ULTRASAM_DATA:data/us43d}}}}"
model = dict(image_size=64, passes=["single"])
pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FitSquare", square=64, mode="pad", interpolation="bilinear"),
    dict(type="SimulatePrompts"),
    dict(type="PackPrompted"),
]
leaf = dict(type="PromptedCocoDataset", data_root=data_root, pipeline=pipeline, prompt="point", test_mode=True)
test_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(ann_file=f"{{slug}}/annotations/test.{{slug}}.agnostic.json", **leaf)
            for slug in ("bus_bra", "mmotu_2d", "gist514_db")
        ],
    ),
)
visualizer = dict(vis_backends=[])
log_level = "ERROR"
"""


def make_collection(root, slugs=("bus_bra",), patients=3):
    """Write images with one rectangle each, two of a patient."""
    for slug in slugs:
        images, annotations = [], []
        for number in range(1, 2 * patients + 1):
            mask = np.zeros((HEIGHT, WIDTH), bool)
            mask[: round(SHARE * HEIGHT)] = True
            pixels = np.random.default_rng(number).integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            name = f"{slug}/images/{number}.png"
            write_png(root / name, pixels + 90 * mask[..., None].astype(np.uint8))
            images.append({
                "id": number, "file_name": name, "height": HEIGHT, "width": WIDTH, "dataset": slug,
                "group": f"patient {number % patients}",
            })  # fmt: skip
            rle = encode_mask(mask)
            annotations.append({
                "id": number, "image_id": number, "category_id": 1, "segmentation": rle, "area": rle_area(rle),
                "bbox": [0, 0, WIDTH, round(SHARE * HEIGHT)], "iscrowd": 0,
            })  # fmt: skip
        write_coco(
            root / slug / "annotations" / f"test.{slug}.agnostic.json",
            {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]},
        )
    return root


def write_model(path, sign):
    """Write tiny weights whose mask is the whole image (sign 1) or empty (sign -1), whatever the prompt."""
    torch.manual_seed(0)
    sam = mask_everything(build_sam("vit_tiny", 64), sign)
    save_checkpoint(path, sam.state_dict(), {"architecture": "vit_tiny", "mlp_residual": "single"})
    return path


def mask_everything(sam, sign=1):
    """Let a network's masks be the whole image (sign 1) or empty (sign -1)."""
    with torch.no_grad():
        last = sam.mask_decoder.output_upscaling[3]
        last.weight.zero_()
        last.bias.fill_(3)
        for mlp in sam.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.zero_()
            mlp.layers[-1].bias.fill_(sign)
    return sam


def with_config(table, config):
    """Return a table whose tests use one configuration."""
    rows = [
        replace(row, sources={group: replace(source, config=str(config)) for group, source in row.sources.items()})
        for row in table.rows
    ]
    return replace(table, rows=tuple(rows))


def use_config(patch, config):
    """Let the command's tables test with one configuration."""
    patch.setitem(TABLES, "table2", lambda: with_config(table2(), config))
    patch.setitem(TABLES, "figure4", lambda: with_config(figure4(), config))
    patch.setattr(command, "table2", TABLES["table2"])
