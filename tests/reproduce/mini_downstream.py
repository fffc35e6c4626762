"""Tiny networks of the downstream tasks whose answers are known, and the paper's tables with these."""

import json
from dataclasses import replace

import torch
from mini_collection import HEIGHT, ROOT, WIDTH

from ultrasam.engine.checkpointing import FORMAT
from ultrasam.engine.config import load_config
from ultrasam.engine.setup import register_all
from ultrasam.reproduce.tables import TABLES

CLASSES = ("benign", "malignant")
# Classes of the images: the first four and the last two.
LABELS = (0, 0, 0, 0, 1, 1)
SQUARE = 'dict(type="FitSquare", square=64, mode="pad", interpolation="bilinear")'
CONFIG = """
_base_ = "{base}"
model = {model}
test_dataloader = dict(batch_size=6, num_workers=0, dataset=dict(pipeline=[{pipeline}]))
test_evaluator = dict({evaluator})
visualizer = dict(vis_backends=[])
log_level = "ERROR"
"""
DOWNSTREAM = f"{ROOT}/configs/downstream"
BACKBONE = dict(arch="vit_tiny", image_size=64, sizes=dict(dim=48))
HEADS = {
    "mask2former": dict(
        base=f"{DOWNSTREAM}/segmentation/mask2former_ultrasam_bus-bra.py",
        model=dict(
            backbone=BACKBONE, pyramid_channels=32, max_per_image=1,
            head=dict(queries=1, channels=32, heads=2, encoder_layers=1, decoder_layers=3, encoder_mlp=32,
                      decoder_mlp=32, points=64),
        ),
        pipeline=f'dict(type="LoadUltrasound"), {SQUARE}, dict(type="PackInstances")',
        evaluator="intervals=20",
    ),
    "classifier": dict(
        base=f"{DOWNSTREAM}/classification/classifier_ultrasam_bus-bra.py",
        model=dict(backbone=BACKBONE),
        pipeline=f'dict(type="LoadPicture"), {SQUARE}, dict(type="PackClass")',
        evaluator="resamples=20",
    ),
    "prompted": dict(
        base=f"{DOWNSTREAM}/prompted_classification/prompted_ultrasam_bus-bra.py",
        model=dict(arch="vit_tiny", image_size=64),
        pipeline=f'dict(type="LoadUltrasound"), {SQUARE}, dict(type="SimulatePrompts"), dict(type="PackPromptedClass")',
        evaluator="resamples=20",
    ),
}  # fmt: skip


def add_classes(root, slug="bus_bra"):
    """Write ``test.SLUG.json`` beside the agnostic file of a mini collection."""
    folder = root / slug / "annotations"
    content = json.loads((folder / f"test.{slug}.agnostic.json").read_text())
    content["categories"] = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    for image, item, label in zip(content["images"], content["annotations"], LABELS, strict=True):
        image["class"], item["category_id"] = CLASSES[label], label + 1
        assert (image["height"], image["width"]) == (HEIGHT, WIDTH)
    (folder / f"test.{slug}.json").write_text(json.dumps(content))


def always_benign(model):
    """Let a network answer "benign", and a detector find the whole image, whatever it sees."""
    if hasattr(model, "panoptic_head"):
        head = model.panoptic_head
        settings = [(head.cls_embed, [9.0, -9.0, -9.0]), (head.mask_embed[-1], [1.0]),
                    (head.pixel_decoder.mask_feature, [1.0])]  # fmt: skip
    else:
        settings = [(getattr(model.head, "classify", model.head), [9.0, -9.0])]
    with torch.no_grad():
        for layer, bias in settings:
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor(bias).expand_as(layer.bias))
    return model


def write_head(head, folder):
    """Write configuration ``HEAD.py`` and the work directory of a training on UltraSam."""
    from mmdet.registry import MODELS

    register_all()
    (folder / f"{head}.py").write_text(CONFIG.format(**HEADS[head]))
    torch.manual_seed(0)
    model = always_benign(MODELS.build(load_config(folder / f"{head}.py").model))
    path = folder / f"weights/{head}-ultrasam-bus_bra/iter_2.pth"
    path.parent.mkdir(parents=True)
    torch.save({"format": FORMAT, "state_dict": model.state_dict(), "card": model.card()}, path)


def use_heads(patch, folder):
    """Let the tables of downstream tasks test with the configurations of a folder."""
    for name in ("table3", "table4", "figure4"):
        patch.setitem(TABLES, name, lambda make=TABLES[name]: _with_heads(make(), folder))


def _with_heads(table, folder):
    def changed(source):
        head = source.weights.split("-")[0]
        return replace(source, config=str(folder / f"{head}.py")) if head in HEADS else source

    rows = [
        replace(row, sources={group: changed(source) for group, source in row.sources.items()}) for row in table.rows
    ]
    return replace(table, rows=tuple(rows))
