"""The task "segment": prompted segmentation of your own objects."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ultrasam.adapters.options import ADAPTERS
from ultrasam.adapters.samus import PIXELS as SAMUS_PIXELS
from ultrasam.adapters.samus import STRIDE as SAMUS_STRIDE
from ultrasam.errors import ConfigError
from ultrasam.finetune.base import Base, read_base
from ultrasam.finetune.config_text import Name, Section
from ultrasam.finetune.data import DataFiles, find_data
from ultrasam.finetune.sections import runtime_sections, schedule_sections
from ultrasam.modeling.build import build_sam

PROMPTS = ("point", "box")


class SegmentTask:
    """See ``ultrasam.finetune.tasks.Task``."""

    title = "prompted segmentation"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of the adapters."""
        parser.add_argument("--rank", type=int, default=16, help="of LoRA (default: 16)")
        parser.add_argument(
            "--train-decoder", action="store_true", help="an adapter's prompt encoder and mask decoder train too"
        )

    def sections(self, options: argparse.Namespace) -> list[Section]:
        """Return the configuration."""
        data, base = find_data(options.data), read_base(options.weights)
        if options.method == "samus" and not base.is_vit:
            raise ConfigError(
                f"SAMUS is made of SAM's ViT, but {options.weights} is {base.arch}; use --method lora or med_sa"
            )
        model = model_section(options, base)
        sections = [
            Section("data_root", str(data.root), "The images' file names start from here."),
            Section("model", model, model_comment(options.method, base)),
        ]
        if options.method == "samus":
            sections.append(Section("supported_prompts", ["point"], "SAMUS takes points only."))
        sections += pipeline_sections(options, base)
        sections += loader_sections(options, data)
        sections += schedule_sections(options, data.val is not None)
        blocks = ["sam.image_encoder.blocks.*" if base.is_vit else "sam.image_encoder.layers.*.blocks.*"]
        recompute = blocks if options.low_memory and options.method not in ("decoder", "samus") else None
        return sections + runtime_sections(options, [dict(type="WeightFileHook")], recompute)

    def test(self, config: Path, checkpoint: Path, out: Path, options: argparse.Namespace) -> int:
        """Test with points and boxes, and print the scores."""
        from ultrasam.engine.test import main as test

        scores: dict[str, dict[str, float]] = {}
        for prompt in PROMPTS[:1] if options.method == "samus" else PROMPTS:
            folder = out / f"test_{prompt}"
            status = test([str(config), str(checkpoint), "--prompt", prompt, "--out", str(folder)])
            if status:
                return status
            scores[prompt] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["metrics"]
        for prompt, found in scores.items():
            sys.stdout.write(
                f"{prompt:<6} mAP {found['coco/segm_mAP']:.3f}  mAP50 {found['coco/segm_mAP_50']:.3f}  "
                f"Dice {found['coco/mean_dice']:.3f}  ({found['coco/objects']:.0f} objects)\n"
            )
        return 0


TASK = SegmentTask()


def model_section(options: argparse.Namespace, base: Base) -> dict[str, Any]:
    """Return the model's part of the configuration."""
    model: dict[str, Any] = dict(
        type="UltraSamDetector",
        arch=base.arch,
        image_size=base.image_size,
        preprocessing={k: list(v) if isinstance(v, tuple) else v for k, v in base.preprocessing.items()} or None,
        weights=base.weights,
        method=options.method,
    )
    whole = options.method in ("full", "decoder") or options.train_decoder or base.boxes_only
    if options.method in ADAPTERS:
        model["adapter"] = adapter_options(options, whole)
    model["passes"] = list(base.passes) if options.method != "samus" else ["single"]
    if base.untrained_multi and options.method != "samus":
        # Only a decoder that trains makes anything of outputs that were never trained.
        model |= dict(passes=["single", "multi"], copy_single_mask_token=True, loss=dict(iou_targets="all"))
    return model


def adapter_options(options: argparse.Namespace, decoder: bool) -> dict[str, Any]:
    """Return the options of the method's adapter, the paper's spelled out.

    Args:
        options: of the command line.
        decoder: prompt encoder and mask decoder train too.
    """
    values: dict[str, Any] = {
        "lora": dict(rank=options.rank, alpha=float(options.rank), dropout=0.1, targets="qkv"),
        "med_sa": dict(ratio=0.25, scale=0.5, init="zero", padding="normalised"),
        "samus": dict(image_size=256, cnn_widths=[64, 128, 256]),
    }[options.method]
    return {**values, "also_train": ["prompt_encoder", "mask_decoder"]} if decoder else values


def model_comment(method: str, base: Base) -> str:
    """Return what the model's section must say to its reader."""
    lines = {
        "full": "Everything trains.",
        "decoder": "The image encoder is frozen; prompt encoder and mask decoder train.",
    }.get(method, "SAM is frozen, the adapter trains; its file needs these weights below it.")
    if base.boxes_only and method in ADAPTERS:
        lines += "\nThese weights know boxes only, so prompt encoder and mask decoder learn points beside the adapter."
    return lines


def pipeline_sections(options: argparse.Namespace, base: Base) -> list[Section]:
    """Return how images and prompts are prepared, as the weights need it."""
    with_samus = options.method == "samus"
    pixels = build_sam_preprocessing(base) | (SAMUS_PIXELS if with_samus else {})
    square, stride = (256, SAMUS_STRIDE) if with_samus else (base.image_size, 16 if base.is_vit else 4)
    fit = dict(type="FitSquare", square=square, mode=pixels["mode"], interpolation=pixels["interpolation"])
    prompts: dict[str, Any] = dict(type="SimulatePrompts", point_share=1.0 if with_samus else 0.5)
    if not with_samus:
        prompts["box_jitter"] = 0.05
    load, pack = dict(type="LoadUltrasound"), dict(type="PackPrompted")
    flip = dict(type="FlipHorizontal", prob=0.5)
    train = [load, flip, {**fit, "target_size": 4 * square // stride}, prompts, pack]
    comment = "Prompts are made from the masks: a random point, or a box with loose corners."
    return [
        Section("train_pipeline", train, comment),
        Section("test_pipeline", [load, fit, dict(type="SimulatePrompts"), pack]),
    ]


def build_sam_preprocessing(base: Base) -> dict[str, Any]:
    """Return the preprocessing of a base with the architecture's defaults filled in."""
    import torch

    with torch.device("meta"):
        return build_sam(base.arch, base.image_size, base.preprocessing).preprocessing.to_dict()


def loader_sections(options: argparse.Namespace, data: DataFiles) -> list[Section]:
    """Return the loaders and their scores; what has no file is left out."""

    def loader(path: Path, pipeline: str, prompt: str, sampler: dict[str, Any], **more: Any) -> dict[str, Any]:
        dataset = dict(
            type="PromptedCocoDataset",
            data_root=Name("data_root"),
            ann_file=data.relative(path),
            pipeline=Name(pipeline),
            prompt=prompt,
            **more,
        )
        return dict(
            batch_size=options.batch_size,
            num_workers=options.workers,
            persistent_workers=options.workers > 0,
            sampler=sampler,
            dataset=dataset,
        )

    in_order = dict(type="DefaultSampler", shuffle=False)
    sections = [
        Section(
            "train_dataloader", loader(data.train, "train_pipeline", "train", dict(type="ResumableInfiniteSampler"))
        )
    ]
    test = data.test or data.val
    for name, path in (("val", data.val), ("test", test)):
        if path is None:
            continue
        same = name == "test" and data.test is None
        comment = "There is no test file: the scores are those of the validation file." if same else ""
        found = loader(path, "test_pipeline", "point", in_order, test_mode=True)
        sections.append(Section(f"{name}_dataloader", found, comment))
        sections.append(Section(f"{name}_evaluator", dict(type="PromptedMaskMetric")))
    return sections
