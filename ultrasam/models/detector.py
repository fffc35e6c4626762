"""UltraSam as an MMDetection detector: encoder, prompts, decoder passes, losses, and masks at the original size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor

from ultrasam.adapters.attach import attach, attached, set_trainable, trained_modules
from ultrasam.adapters.files import adapter_card, load_into, tensor_digests
from ultrasam.adapters.options import plain_options
from ultrasam.checkpoints import load_checkpoint, resolve_weights
from ultrasam.errors import ConfigError
from ultrasam.modeling.build import build_sam
from ultrasam.modeling.losses import LossWeights, pass_losses
from ultrasam.modeling.prompt_encoder import CORNER_A, CORNER_B, PADDING, Prompts
from ultrasam.modeling.sam import Sam
from ultrasam.models.embedding_cache import EmbeddingCache
from ultrasam.models.joined_prompts import join_prompts
from ultrasam.models.parallel import mean_over_processes, zero_of
from ultrasam.models.postprocess import MASK_ORDERS, box_of_masks, masks_at_original_size, other_mask_order
from ultrasam.models.sample_checks import check_targets, check_transforms
from ultrasam.models.teacher import build_teacher, teacher_loss
from ultrasam.models.trainable import plan_training, trainable_counts, trainable_text

FREEZABLE = ("image_encoder", "prompt_encoder", "mask_decoder")


@MODELS.register_module()
class UltraSamDetector(BaseDetector):
    """Prompted segmentation of all objects of a batch as one flat list.

    Args:
        arch: architecture, see ``ultrasam.modeling.build``.
        image_size: side of the square in pixels; None for the architecture's own.
        preprocessing: fields of ``Preprocessing``; None for the architecture's own.
        weights: checkpoint to start from, a path or a name such as "litemedsam".
        passes: the decoder's passes in order, "single" (mask token 0) or "multi" (tokens 1 to 3, the best by
            predicted IoU). ("single", "multi") is the paper's refinement, ("multi",) its ablation.
        mask_prompt: give each pass the logits of the one before as mask prompt.
        refine_with_box: at test time, replace a point by the box of the pass before (released UltraSam).
        copy_single_mask_token: start tokens 1 to 3 from token 0, see ``Sam.copy_single_mask_token``.
        method: what trains: "full", "decoder" (all but the image encoder), or an adapter, "lora", "med_sa", "samus";
            see ``ultrasam.models.trainable``. None leaves it to ``freeze``.
        adapter: options of the adapter, see ``ultrasam.adapters.options``. SAMUS brings its own image size and
            preprocessing; ``image_size`` and ``preprocessing`` are those of its base then.
        freeze: parts that do not train: "image_encoder", "prompt_encoder", "mask_decoder".
        trained_stages: how many of the last stages of a frozen image encoder train after all (1 is its neck, 2 its
            last block too, ...); normalisation statistics stay.
        cache_dir: keep what the frozen stages of the encoder give here, in tests what any encoder gives; None: nothing.
        cache_bytes: bound of that folder.
        decode_chunk: objects decoded at a time.
        mask_order: "logits" enlarges logits and thresholds once; "released" as the published tables did.
        compare_mask_orders: make the masks of the other order too, so that a test can report both.
        loss: fields of ``LossWeights``.
        teacher: options of a frozen network to learn from beside the annotations, see ``ultrasam.models.teacher``.
        dropout: in the decoder's MLPs while training.
        data_preprocessor: config of ``SamDataPreprocessor``.
        init_cfg: for MMEngine, unused.
    """

    def __init__(
        self,
        arch: str = "vit_b",
        image_size: int | None = None,
        preprocessing: dict[str, Any] | None = None,
        weights: str | None = None,
        passes: Sequence[str] = ("single", "multi"),
        mask_prompt: bool = True,
        refine_with_box: bool = False,
        copy_single_mask_token: bool = False,
        method: str | None = None,
        adapter: dict[str, Any] | None = None,
        freeze: Sequence[str] = (),
        trained_stages: int = 0,
        cache_dir: str | None = None,
        cache_bytes: int = 20 * 2**30,
        decode_chunk: int = 16,
        mask_order: str = "logits",
        compare_mask_orders: bool = False,
        loss: dict[str, Any] | None = None,
        teacher: dict[str, Any] | None = None,
        dropout: float = 0.1,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        preprocessor = data_preprocessor or dict(type="mmdet.SamDataPreprocessor")
        super().__init__(data_preprocessor=preprocessor, init_cfg=init_cfg)
        check_choices("passes", passes, ("single", "multi"))
        check_choices("freeze", freeze, FREEZABLE)
        check_choices("mask_order", (mask_order,), MASK_ORDERS)
        if not passes:
            raise ConfigError("passes must name at least one of 'single' and 'multi', got none")
        plan = plan_training(method, adapter, freeze)
        for name, value in (("decode_chunk", decode_chunk), ("cache_bytes", cache_bytes)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        try:
            # These layers know nothing of configurations and raise plain errors.
            self.sam: Sam = build_sam(arch, image_size, preprocessing, dropout)
            self.loss_weights = LossWeights(**(loss or {}))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"UltraSamDetector cannot be built: {error}; correct the model's arguments") from error
        self.passes = tuple(passes)
        self.mask_prompt = mask_prompt
        self.refine_with_box = refine_with_box
        self.plan = plan
        self.frozen = plan.frozen
        stages = self.sam.image_encoder.stages()
        if not 0 <= trained_stages < len(stages) or (trained_stages and not plan.encoder_is_constant):
            raise ConfigError(
                f"trained_stages counts the last stages of a frozen encoder that train after all, 0 to "
                f"{len(stages) - 1} with 'image_encoder' in freeze; got {trained_stages}, freeze={list(freeze)} and "
                f"method={method!r}"
            )
        self.trained_stages = trained_stages
        self.frozen_stages = len(stages) - trained_stages
        self.cache_dir = cache_dir
        self.cache_bytes = cache_bytes
        self.decode_chunk = decode_chunk
        self.mask_order = mask_order
        self.compare_mask_orders = compare_mask_orders
        self.cache: EmbeddingCache | None = None
        # Told samples, last pass's logits and predicted IoU, and targets of every training step.
        self.observer: Callable[[Sequence[Any], Tensor, Tensor, Tensor], None] | None = None
        self.teacher = None if teacher is None else build_teacher(teacher, arch, image_size, preprocessing)
        self.base_name = str(weights or "random weights")
        self.digests: dict[str, str] | None = None
        if weights is not None:
            load_checkpoint(self.sam, resolve_weights(weights))
        if copy_single_mask_token:
            self.sam.copy_single_mask_token()
        if plan.options is not None and plan.method is not None:
            attach(self.sam, plan.method, plan.options)
        if self.teacher is not None and self.teacher.sam.preprocessing != self.sam.preprocessing:
            raise ConfigError(f"teacher sees other images than a network with method={method!r}; leave teacher out")
        self.freeze_parts()
        self.sam.image_encoder.register_load_state_dict_post_hook(self.forget_cache)

    def forget_cache(self, *_: Any) -> None:
        """Drop the cache, whose key holds the encoder's weights, when other weights are loaded; the base's hash too."""
        self.cache = None
        self.digests = None
        if self.teacher is not None:
            self.teacher.forget()

    def init_weights(self) -> None:
        """Say what trains; weights come from ``weights``. MMEngine calls this once, when training starts.

        Raises:
            ConfigError: embeddings are to be kept of an encoder that is about to change.
        """
        if self.cache_dir is not None and not self.plan.encoder_is_constant:
            raise ConfigError(
                "cache_dir keeps embeddings of a frozen encoder; add 'image_encoder' to freeze or set method='decoder' "
                "(a test may keep those of any encoder)"
            )
        super().init_weights()
        print_log(trainable_text(self.sam, self.plan.method), logger="current")

    def load_weights(self, path: str) -> str:
        """Load a weight file by SAM's names, below an adapter too, or the adapter's own file; say what was loaded.

        Raises:
            CheckpointError: it does not fit.
        """
        if attached(self.sam) is None:
            report = str(load_checkpoint(self.sam, resolve_weights(path)))
        else:
            report = load_into(self.sam, resolve_weights(path), self.base_name)
        self.base_name = str(path)
        return report

    def freeze_parts(self) -> None:
        """Take gradients from frozen parts and from what these passes never use, so that no process waits for them."""
        decoder, prompts = self.sam.mask_decoder, self.sam.prompt_encoder
        unused: list[torch.nn.Module] = []
        if "single" not in self.passes:
            unused.append(decoder.output_hypernetworks_mlps[0])
        if "multi" not in self.passes:
            unused.extend(decoder.output_hypernetworks_mlps[1:])
        if len(self.passes) == 1 or not self.mask_prompt:
            unused.append(prompts.mask_downscaling)
        for module in [*(getattr(self.sam, name) for name in self.frozen), *unused]:
            module.requires_grad_(False)
        if self.plan.options is not None:
            set_trainable(self.sam)
            for module in unused:
                module.requires_grad_(False)
        for module in self.trained_encoder_parts():
            module.requires_grad_(True)
        self.train(self.training)

    def trained_encoder_parts(self) -> list[torch.nn.Module]:
        """Return the last stages of a frozen encoder that train after all."""
        if not self.trained_stages:
            return []
        return self.sam.image_encoder.stages()[self.frozen_stages :]

    def train(self, mode: bool = True) -> UltraSamDetector:
        """Set the training mode; frozen parts stay in evaluation mode, what an adapter adds to them does not."""
        super().train(mode)
        for name in self.frozen:
            getattr(self.sam, name).eval()
        for module in trained_modules(self.sam):
            module.train(mode)
        return self

    def card(self) -> dict[str, Any]:
        """Return what a checkpoint must say of the network."""
        card: dict[str, Any] = {
            "architecture": self.sam.arch,
            "mlp_residual": self.sam.mlp_residual,
            "preprocessing": self.sam.preprocessing.to_dict(),
            "passes": list(self.passes),
            "mask_prompt": self.mask_prompt,
            "method": self.plan.method,
            "frozen": list(self.frozen),
            "trained_stages": self.trained_stages,
            "trainable": trainable_counts(self.sam),
        }
        if self.plan.method == "samus":
            card["supported_prompts"] = ["point"]
        if self.plan.options is not None:
            card["adapter"] = adapter_card(self.sam, self.base_name, self.base_digests())
        return card

    def base_digests(self) -> dict[str, str]:
        """Return the hashes of the network's tensors; those of frozen ones stay while it trains."""
        if self.digests is None:
            self.digests = tensor_digests(self.sam.state_dict())
        return self.digests

    def extract_feat(self, batch_inputs: Sequence[Tensor]) -> Tensor:
        """Encode resized images, a list of (3, h, w) uint8, to embeddings (B, C, h, w)."""
        return self.finished_embeddings(batch_inputs, self.constant_features(batch_inputs))

    @torch.no_grad()
    def constant_features(self, batch_inputs: Sequence[Tensor]) -> Tensor | None:
        """Pass resized images through the frozen stages of a frozen encoder, or in a test with a cache through any.

        None for an encoder that trains whole, and in a test without a cache.
        """
        if not self.plan.encoder_is_constant and (self.training or self.cache_dir is None):
            return None
        return torch.cat([self.frozen_features(image) for image in batch_inputs])

    def finished_embeddings(self, batch_inputs: Sequence[Tensor], features: Tensor | None) -> Tensor:
        """Return the embeddings (B, C, h, w) of images, from their ``constant_features`` where there are any."""
        if features is None:
            return self.sam.encode(self.sam.preprocessing.batch(list(batch_inputs)))
        return self.sam.image_encoder.run(features, self.frozen_stages) if self.trained_stages else features

    def frozen_features(self, image: Tensor) -> Tensor:
        """Pass one image (3, h, w) through the encoder's frozen stages: (1, ...) float32 of half precision.

        With no trained stages this is the embedding (1, C, h, w). Features are rounded to half whether they are
        cached or not, and made one image at a time, so the cache and the batch change nothing.
        """
        if self.cache_dir is not None and self.cache is None:
            self.cache = EmbeddingCache(
                self.cache_dir,
                self.sam.image_encoder,
                self.sam.preprocessing,
                self.cache_bytes,
                self.trained_encoder_parts(),
                {} if self.plan.options is None else plain_options(self.plan.options),
            )
        found = None if self.cache is None else self.cache.get(image)
        if found is None:
            with torch.autocast(image.device.type, enabled=False):
                square = self.sam.preprocessing.batch([image])
                if self.plan.encoder_is_constant:
                    found = self.sam.image_encoder.run(square, 0, self.frozen_stages)[0].half()
                else:
                    found = self.sam.encode(square)[0].half()
            if self.cache is not None:
                self.cache.put(image, found)
        return found.to(image.device, torch.float32)[None]

    def run_passes(
        self, embeddings: Tensor, prompts: Prompts, samples: Sequence[Any] | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Decode pass after pass; ``samples`` are needed for ``refine_with_box`` only.

        Returns:
            per pass the logits (N, M, 4h, 4w) and predicted IoU (N, M).
        """
        outcomes: list[tuple[Tensor, Tensor]] = []
        for number, kind in enumerate(self.passes):
            if number:
                best = best_logits(*outcomes[-1])
                masks = best.detach()[:, None].to(embeddings.dtype) if self.mask_prompt else None
                if self.refine_with_box and samples is not None:
                    prompts = self.points_to_boxes(prompts, best, samples)
                prompts = Prompts(prompts.coords, prompts.labels, prompts.image_index, masks)
            outcomes.append(self.sam.decode(embeddings, prompts, kind == "multi", self.decode_chunk))
        return outcomes

    def answers(
        self, embeddings: Tensor, prompts: Prompts, samples: Sequence[Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what the last pass answers: the best candidate's logits (N, 4h, 4w) and predicted IoU (N,), float32.

        ``prompts.masks`` (logits of an earlier answer) enter the first pass; ``samples`` as in ``run_passes``.
        """
        logits, iou = self.run_passes(embeddings, prompts, samples)[-1]
        return best_logits(logits, iou).float(), iou.float().amax(dim=1)

    def points_to_boxes(self, prompts: Prompts, logits: Tensor, samples: Sequence[Any]) -> Prompts:
        """Replace each click by the box of its mask, where there is a mask."""
        coords, labels = prompts.coords.clone(), prompts.labels.clone()
        for image, sample in enumerate(samples):
            rows = torch.nonzero(prompts.image_index == image)[:, 0]
            if not len(rows):
                continue
            masks = masks_at_original_size(logits[rows], sample.transform, self.mask_order)
            boxes = sample.transform.boxes(box_of_masks(masks))
            for row, box, mask in zip(rows.tolist(), boxes, masks, strict=True):
                if bool(mask.any()) and CORNER_A not in labels[row].tolist():
                    # The released system gives this box without the half pixel that the prompt encoder adds.
                    coords[row, :2] = box.to(coords).reshape(2, 2) - 0.5
                    labels[row] = PADDING
                    labels[row, :2] = torch.tensor([CORNER_A, CORNER_B], device=labels.device)
        return Prompts(coords, labels, prompts.image_index)

    def loss(self, batch_inputs: Sequence[Tensor], batch_data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Return the losses of all passes; a suffix ``.k`` names pass k + 1, as in the released system.

        Losses are means over the objects of all processes, so the number of processes does not change them.

        Raises:
            ConfigError: the pipeline resizes otherwise than the weights need, or gives no targets that fit.
        """
        check_transforms(batch_data_samples, self.sam.preprocessing)
        check_targets(batch_data_samples, self.sam.low_res_size)
        features = self.constant_features(batch_inputs)
        embeddings = self.finished_embeddings(batch_inputs, features)
        prompts = join_prompts(batch_data_samples, embeddings.device)
        targets = torch.cat([sample.gt_instances.targets for sample in batch_data_samples]).to(embeddings.device)
        normalizer = mean_over_processes(len(prompts), embeddings.device).clamp(min=1e-8)
        losses: dict[str, Tensor] = {}
        for number, (logits, iou) in enumerate(self.run_passes(embeddings, prompts)):
            suffix = f".{number - 1}" if number else ""
            for name, value in pass_losses(logits, iou, targets, self.loss_weights, normalizer).items():
                losses[name + suffix] = value
        if self.teacher is not None:
            answers = best_logits(logits, iou)
            losses["loss_teacher"] = self.taught_loss(batch_inputs, features, prompts, answers, normalizer)
        if self.observer is not None:
            self.observer(batch_data_samples, logits, iou, targets)
        if not len(prompts):
            # A batch of negatives only has no gradient; every process must still take part in the step.
            losses["loss_focal"] = losses["loss_focal"] + zero_of(self, embeddings)
        return losses

    def taught_loss(
        self,
        batch_inputs: Sequence[Tensor],
        features: Tensor | None,
        prompts: Prompts,
        answers: Tensor,
        normalizer: Tensor,
    ) -> Tensor:
        """Return how far answers (N, 4h, 4w), logits, are from the teacher's, where it teaches."""
        assert self.teacher is not None
        rows = self.teacher.taught(prompts)
        targets = self.teacher.targets(
            batch_inputs, features, self.sam, self.frozen_stages, prompts.select(rows), self.decode_chunk
        )
        return self.teacher.weight * teacher_loss(answers[rows], targets).sum() / normalizer

    @torch.no_grad()
    def predict(self, batch_inputs: Sequence[Tensor], batch_data_samples: Sequence[Any]) -> list[Any]:
        """Add ``pred_instances`` to each sample: one mask per prompt, scored by its predicted IoU.

        Fields: ``masks`` (N, H, W) bool at the original size, ``bboxes`` (N, 4) in original pixels, ``scores`` (N,),
        ``labels`` (N,) zeros. With ``compare_mask_orders`` also ``other_masks`` and ``other_bboxes`` of the same
        logits, and ``other_order``, their name, in the sample's meta information.

        Raises:
            ConfigError: the pipeline resizes otherwise than the weights need.
        """
        check_transforms(batch_data_samples, self.sam.preprocessing)
        embeddings = self.extract_feat(batch_inputs)
        prompts = join_prompts(batch_data_samples, embeddings.device)
        chosen, scores = self.answers(embeddings, prompts, batch_data_samples)
        for image, sample in enumerate(batch_data_samples):
            rows = prompts.image_index == image
            masks = masks_at_original_size(chosen[rows], sample.transform, self.mask_order)
            labels = torch.zeros(len(masks), dtype=torch.long, device=masks.device)
            sample.pred_instances = InstanceData(
                masks=masks, bboxes=box_of_masks(masks), scores=scores[rows], labels=labels
            )
            if self.compare_mask_orders:
                other = other_mask_order(self.mask_order)
                masks = masks_at_original_size(chosen[rows], sample.transform, other)
                sample.pred_instances.other_masks = masks
                sample.pred_instances.other_bboxes = box_of_masks(masks)
                sample.set_metainfo({"other_order": other})
        return list(batch_data_samples)

    def _forward(self, batch_inputs: Sequence[Tensor], batch_data_samples: Sequence[Any] | None = None) -> Any:
        """Return the last pass's logits and predicted IoU, or the embeddings where there are no prompts."""
        embeddings = self.extract_feat(batch_inputs)
        if batch_data_samples is None:
            return embeddings
        check_transforms(batch_data_samples, self.sam.preprocessing)
        prompts = join_prompts(batch_data_samples, embeddings.device)
        return self.run_passes(embeddings, prompts, batch_data_samples)[-1]


def best_logits(logits: Tensor, iou: Tensor) -> Tensor:
    """Return of (N, M, h, w) the candidate with the highest predicted IoU: (N, h, w)."""
    return logits[torch.arange(len(logits), device=logits.device), iou.argmax(dim=1)]


def check_choices(name: str, values: Sequence[str], known: Sequence[str]) -> None:
    """Refuse values that are not among ``known``."""
    if isinstance(values, str) or any(value not in known for value in values):
        raise ConfigError(f"{name} must hold only {', '.join(map(repr, known))}, got {values!r}")
