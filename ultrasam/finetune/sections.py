"""Sections of a configuration that every task shares: schedule, hooks, environment."""

from __future__ import annotations

import argparse
from typing import Any

from ultrasam.finetune.config_text import Section

# The few numbers of an adapter stand a larger rate than all of SAM.
RATES = {"full": 1e-4, "decoder": 3e-4, "lora": 3e-4, "med_sa": 3e-4, "samus": 5e-4}


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every task has."""
    parser.add_argument("--out", default=None, help="folder to write (default: work_dirs/finetune_TASK_METHOD)")
    parser.add_argument("--iterations", type=int, default=1000, help="training steps (default: 1000)")
    parser.add_argument("--batch-size", type=int, default=2, help="images of a step (default: 2)")
    parser.add_argument("--lr", type=float, help="learning rate (default: of the method)")
    parser.add_argument("--workers", type=int, default=2, help="processes that read images (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of every random number (default: 0)")
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast, on GPU or CPU")
    parser.add_argument(
        "--low-memory", action="store_true", help="recompute the encoder's blocks in the backward pass: a third slower"
    )
    parser.add_argument("--resume", action="store_true", help="continue exactly where --out stopped")


def schedule_sections(options: argparse.Namespace, validates: bool) -> list[Section]:
    """Return optimizer, learning rate and loops.

    Args:
        options: of the command line.
        validates: there is a file to validate with.
    """
    total = options.iterations
    warm = max(min(50, total // 10), 1)
    interval = total if total < 8 else total // 4
    wrapper: dict[str, Any] = (
        dict(type="AmpOptimWrapper", dtype="bfloat16") if options.amp else dict(type="OptimWrapper")
    )
    wrapper |= dict(
        optimizer=dict(type="AdamW", lr=options.lr or RATES[options.method], weight_decay=1e-4, fused="auto"),
        clip_grad=dict(max_norm=0.1, norm_type=2),
    )
    loop = dict(type="IterBasedTrainLoop", max_iters=total, val_interval=interval if validates else 10 * total)
    sections = [
        Section("optim_wrapper", wrapper),
        Section(
            "param_scheduler",
            [
                dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=warm),
                dict(type="CosineAnnealingLR", by_epoch=False, begin=warm, end=total, eta_min=1e-6),
            ],
        ),
        Section("train_cfg", loop),
    ]
    if validates:
        sections.append(Section("val_cfg", dict(type="ValLoop")))
    return [*sections, Section("test_cfg", dict(type="TestLoop"))]


def runtime_sections(
    options: argparse.Namespace, hooks: list[dict[str, Any]], recompute: list[str] | None
) -> list[Section]:
    """Return hooks, environment and logging.

    Args:
        options: of the command line.
        hooks: custom hooks.
        recompute: modules to recompute in the backward pass.
    """
    total = options.iterations
    interval = total if total < 8 else total // 4
    return [
        Section("default_scope", "mmdet"),
        Section(
            "default_hooks",
            dict(
                timer=dict(type="IterTimerHook"),
                logger=dict(type="LoggerHook", interval=min(50, interval), log_metric_by_epoch=False),
                param_scheduler=dict(type="ParamSchedulerHook"),
                checkpoint=dict(type="SafeCheckpointHook", by_epoch=False, interval=interval, max_keep_ckpts=2),
                sampler_seed=dict(type="DistSamplerSeedHook"),
                progress=dict(type="ProgressHook"),
            ),
        ),
        Section("custom_hooks", hooks),
        Section(
            "env_cfg",
            dict(
                cudnn_benchmark=True,
                tf32=True,
                mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
                dist_cfg=dict(backend="auto"),
            ),
        ),
        Section("randomness", dict(seed=options.seed, deterministic=False)),
        Section(
            "visualizer",
            dict(
                type="Visualizer",
                name="visualizer",
                vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")],
            ),
        ),
        Section("log_processor", dict(type="LogProcessor", window_size=50, by_epoch=False)),
        Section("log_level", "INFO"),
        Section("load_from", None),
        Section("resume", False),
        Section("compile", None),
        Section("recompute_modules", recompute),
        Section("find_unused_parameters", False),
        Section(
            "allow_test_selection", False, "Choosing a checkpoint by the test file is refused unless this says so."
        ),
    ]
