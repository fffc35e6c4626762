"""Regression of one value for each image: the mean of a backbone's output tokens and one linear layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.dist import all_reduce, get_world_size
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.datasets.values_scale import value_scale
from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.transform import SquareTransform
from ultrasam.models.classifier import PooledModel

FORMS = ("l1", "huber", "gaussian")
# Bounds of the logarithm of the variance, in normalised units: beyond, exp would drown the gradient.
LOG_VARIANCE = (-8.0, 8.0)


@MODELS.register_module()
class ImageRegressor(PooledModel):
    """One value for each image.

    The head predicts normalised values: what the network can see of a value (``datasets.values_scale``), minus the
    mean and divided by the standard deviation over the training data. Both are buffers, so a checkpoint holds them.

    Args:
        backbone: see ``PooledModel``.
        quantity: "plain", "length" or "area", see ``ultrasam.datasets.values_scale``; must be that of the data.
        loss: "l1", "huber" or "gaussian" (negative log likelihood; the head then predicts a deviation, too).
        huber_delta: where Huber's loss turns from square to linear, in standard deviations of the training data.
        dropout: of the mean token while training.
        trained_stages: see ``PooledModel``, as the following.
        adapter: likewise.
        cache_dir: likewise.
        cache_bytes: likewise.
        data_preprocessor: likewise.
        init_cfg: likewise.

    Raises:
        ConfigError: a value that does not exist or does not fit.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        backbone: dict[str, Any],
        quantity: str = "plain",
        loss: str = "huber",
        huber_delta: float = 1.0,
        dropout: float = 0.0,
        trained_stages: int | None = None,
        adapter: dict[str, Any] | None = None,
        cache_dir: str | None = None,
        cache_bytes: int = 20 * 2**30,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(backbone, trained_stages, adapter, cache_dir, cache_bytes, data_preprocessor, init_cfg)
        if loss not in FORMS or not huber_delta > 0:
            raise ConfigError(
                f"loss must be one of {', '.join(map(repr, FORMS))} with huber_delta above 0, got {loss!r} and "
                f"{huber_delta}"
            )
        self.quantity = quantity
        self.form = loss
        self.huber_delta = huber_delta
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.backbone.token_channels, 2 if loss == "gaussian" else 1)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("target_mean", torch.tensor(float("nan")))
        self.register_buffer("target_std", torch.tensor(float("nan")))

    def learn_from(self, dataset: Any) -> None:
        """Take mean and deviation of the training data.

        Raises:
            ConfigError: the data hold another quantity.
            DataError: all values are the same.
        """
        self.check_quantity(dataset.metainfo["quantity"], "the training data")
        pixels = self.backbone.preprocessing
        seen = []
        for item in dataset.measured():
            height, width = item.size
            fit = SquareTransform.fit(height, width, pixels.square, pixels.mode)  # type: ignore[arg-type]
            seen.append(item.value * value_scale(self.quantity, fit, item.spacing, item.name))
        values = torch.tensor(seen, dtype=torch.float64)
        deviation = float(values.std(correction=0))
        if not deviation > 0:
            raise DataError(f"all {len(seen)} training values are the same ({seen[0]:g}); there is nothing to learn")
        self.target_mean.fill_(float(values.mean()))
        self.target_std.fill_(deviation)

    def check_quantity(self, found: str, what: str) -> None:
        """Refuse data of another quantity.

        Raises:
            ConfigError: names both.
        """
        if found != self.quantity:
            raise ConfigError(
                f"the model predicts the quantity {self.quantity!r}, {what} has {found!r}; give both the same"
            )

    def card(self) -> dict[str, Any]:
        """Return what a checkpoint must say of the network."""
        target = {"mean": float(self.target_mean), "std": float(self.target_std), "quantity": self.quantity}
        target = {name: None if value != value else value for name, value in target.items()}
        return {"task": "regress", "target": target, "loss": self.form, **super().card()}

    def raw(self, images: Sequence[Tensor]) -> Tensor:
        """Return normalised values (B, 1), or with the log variance (B, 2), of images (3, h, w) uint8 RGB each."""
        found = self.head(self.dropout(self.pooled(images))).float()
        if self.form == "gaussian":
            return torch.cat([found[:, :1], found[:, 1:].clamp(*LOG_VARIANCE)], dim=1)
        return found

    def loss(self, images: Sequence[Tensor], samples: Sequence[Any]) -> dict[str, Tensor]:
        """Return ``loss_value``, the mean over the samples of all processes.

        Args:
            images: resized, (3, h, w) uint8 RGB each.
            samples: with ``gt_instances.measured`` (1,) and ``value_scale``.

        Raises:
            ConfigError: mean and deviation are not known yet.
        """
        if not math.isfinite(float(self.target_std)):
            raise ConfigError(
                "the normalisation of the values is taken from the training data by LearnFromDataHook; add it to "
                "custom_hooks"
            )
        found = self.raw(images)
        values = torch.cat([sample.gt_instances.measured for sample in samples]).to(found)
        wanted = (values * self.scales(samples, found) - self.target_mean) / self.target_std
        each = value_loss(found, wanted, self.form, self.huber_delta)
        count = torch.tensor(float(len(each)), device=found.device)
        if get_world_size() > 1:
            all_reduce(count, "mean")
        return {"loss_value": each.sum() / count}

    def predict(self, images: Sequence[Tensor], samples: Sequence[Any]) -> list[Any]:
        """Add ``pred_instances`` with ``measured`` (1,), in the unit of the data, and ``deviations`` (1,).

        Deviations are NaN unless the loss is "gaussian".
        """
        for sample in samples:
            self.check_quantity(sample.quantity, sample.img_path)
        found = self.raw(images)
        scales = self.scales(samples, found)
        values = (found[:, 0] * self.target_std + self.target_mean) / scales
        deviations = torch.full_like(values, float("nan"))
        if self.form == "gaussian":
            deviations = (0.5 * found[:, 1]).exp() * self.target_std / scales
        for number, sample in enumerate(samples):
            part = slice(number, number + 1)
            sample.pred_instances = InstanceData(measured=values[part], deviations=deviations[part])
        return list(samples)

    def scales(self, samples: Sequence[Any], like: Tensor) -> Tensor:
        """Return the factor (B,) from each sample's value to what the network sees of it."""
        return torch.tensor([sample.value_scale for sample in samples], dtype=like.dtype, device=like.device)


def value_loss(found: Tensor, wanted: Tensor, form: str, huber_delta: float) -> Tensor:
    """Return the loss (N,) of normalised values.

    Args:
        found: (N, 1), or (N, 2) with the log variance for "gaussian".
        wanted: (N,).
        form: "l1", "huber" or "gaussian".
        huber_delta: see ``ImageRegressor``.
    """
    if form == "l1":
        return (found[:, 0] - wanted).abs()
    if form == "huber":
        return F.huber_loss(found[:, 0], wanted, reduction="none", delta=huber_delta)
    return 0.5 * (found[:, 1] + (found[:, 0] - wanted).square() * (-found[:, 1]).exp())
