"""Prompted classification (paper section 2.3) as a model of MMEngine: encoders, prompts, loss and probabilities."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from torch import Tensor

from ultrasam.checkpoints import load_checkpoint, resolve_weights
from ultrasam.errors import ConfigError
from ultrasam.modeling.build import build_sam
from ultrasam.modeling.prompt_encoder import Prompts
from ultrasam.modeling.prompted_classifier import ObjectTokens, PromptedClassifierHead, object_tokens
from ultrasam.modeling.sam import Sam
from ultrasam.modeling.transformer import TwoWayTransformer
from ultrasam.models.class_weights import ClassLoss, check_classes
from ultrasam.models.classifier import add_class_predictions, named_classes
from ultrasam.models.classifier_stages import StagedEncoder
from ultrasam.models.detector import check_choices
from ultrasam.models.joined_prompts import join_prompts
from ultrasam.models.parallel import zero_of
from ultrasam.models.sample_checks import check_transforms

GLOBAL = ("own", "shared", "none")
HEAD_STARTS = ("mask_decoder", "random")


@MODELS.register_module()
class PromptedClassifier(BaseModel):
    """The class of every prompted object of a batch, as one flat list.

    E_o is the image encoder of ``sam``; it, the prompt encoder and, unless ``train_mask_decoder``, the mask decoder
    are frozen and run without a graph. E_g starts from the same weights.

    Args:
        classes: names in the order of the labels, which must be those of the data.
        arch: architecture, see ``ultrasam.modeling.build``.
        image_size: side of the square in pixels; None for the architecture's own.
        preprocessing: fields of ``Preprocessing``; None for the architecture's own.
        weights: checkpoint of SAM, MedSAM, UltraSam or LiteMedSAM that everything starts from, a path or a name.
        object_encoder: False leaves E_o and the mask decoder out (ablation): prompts meet E_g's tokens alone.
        global_encoder: "own": E_g. "shared" (ablation): one encoder is E_o and E_g, and trains. "none": no E_g.
        global_vector: False leaves z_g out of the classification (ablation).
        prompt: False hides the prompt (ablation).
        trained_stages: how many of E_g's last stages train; None for all, 0 for none.
        train_mask_decoder: let the mask decoder's transformer and tokens train, too.
        head_start: "mask_decoder" starts the head's transformer from the mask decoder's, "random" does not.
        class_loss: arguments of ``ClassLoss``.
        dropout: in the MLPs of the head's transformer while training.
        chunk: objects decoded at a time.
        cache_dir: keep what frozen stages of the encoders give in this folder; None keeps nothing.
        cache_bytes: bound of that folder.
        data_preprocessor: config of ``SamDataPreprocessor``.
        init_cfg: for MMEngine, unused.

    Raises:
        ConfigError: values that do not exist or contradict each other.
    """

    def __init__(
        self,
        classes: Sequence[str],
        arch: str = "vit_b",
        image_size: int | None = None,
        preprocessing: dict[str, Any] | None = None,
        weights: str | None = None,
        object_encoder: bool = True,
        global_encoder: str = "own",
        global_vector: bool = True,
        prompt: bool = True,
        trained_stages: int | None = None,
        train_mask_decoder: bool = False,
        head_start: str = "mask_decoder",
        class_loss: dict[str, Any] | None = None,
        dropout: float = 0.1,
        chunk: int = 16,
        cache_dir: str | None = None,
        cache_bytes: int = 20 * 2**30,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        preprocessor = data_preprocessor or dict(type="mmdet.SamDataPreprocessor")
        super().__init__(data_preprocessor=preprocessor, init_cfg=init_cfg)
        check_choices("global_encoder", (global_encoder,), GLOBAL)
        check_choices("head_start", (head_start,), HEAD_STARTS)
        check_parts(object_encoder, global_encoder, train_mask_decoder, trained_stages, chunk)
        self.classes = named_classes(classes)
        try:
            # These layers know nothing of configurations and raise plain errors.
            self.sam: Sam = build_sam(arch, image_size, preprocessing, 0.0)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"PromptedClassifier cannot be built: {error}; correct the model's arguments") from error
        self.object_encoder = object_encoder
        self.global_form = global_encoder
        self.prompt = prompt
        self.train_mask_decoder = train_mask_decoder
        self.head_start = head_start
        self.chunk = chunk
        # Registered after sam: a whole checkpoint fills sam first, then these (see start_from_sam).
        self.global_encoder = copy.deepcopy(self.sam.image_encoder) if global_encoder == "own" else None
        self.head = PromptedClassifierHead(
            TwoWayTransformer(mlp_dim=mlp_width(self.sam), dropout=dropout),
            len(self.classes),
            global_dim=int(self.sam.image_encoder.embed_dim_out) if global_vector and global_encoder != "none" else 0,
            chunk=chunk,
        )
        self.class_loss = ClassLoss(len(self.classes), **(class_loss or {}))
        pixels = self.sam.preprocessing
        shared = global_encoder == "shared"
        self.object_stages = StagedEncoder(
            self.sam.image_encoder, pixels, trained_stages if shared else 0,
            cache_dir if object_encoder and not (shared and trained_stages is None) else None, cache_bytes,
        )  # fmt: skip
        self.global_stages: StagedEncoder | None = None
        if self.global_encoder is not None:
            kept = None if trained_stages is None else cache_dir
            self.global_stages = StagedEncoder(self.global_encoder, pixels, trained_stages, kept, cache_bytes)
        self.sam.register_load_state_dict_post_hook(self.start_from_sam)
        if self.global_encoder is not None:
            self.global_encoder.register_load_state_dict_post_hook(self.forget_caches)
        if weights is not None:
            load_checkpoint(self.sam, resolve_weights(weights))
        self.start_from_sam()
        self.freeze_parts()

    def start_from_sam(self, *_: Any) -> None:
        """Start E_g and the head's transformer from the weights of ``sam``, whenever these are loaded.

        Where a whole checkpoint of this model is loaded, its own E_g and head follow and replace them.
        """
        if self.global_encoder is not None:
            self.global_encoder.load_state_dict(self.sam.image_encoder.state_dict())
        if self.head_start == "mask_decoder":
            self.head.transformer.load_state_dict(self.sam.mask_decoder.transformer.state_dict())
        self.forget_caches()

    def forget_caches(self, *_: Any) -> None:
        """Drop the caches, whose keys hold the weights, when other weights are loaded."""
        self.object_stages.forget()
        if self.global_stages is not None:
            self.global_stages.forget()

    def freeze_parts(self) -> None:
        """Take gradients from frozen parts and from what classification never uses."""
        self.sam.requires_grad_(False)
        if self.global_form == "shared":
            self.object_stages.freeze()
        if self.global_stages is not None:
            self.global_stages.freeze()
        if self.train_mask_decoder:
            decoder = self.sam.mask_decoder
            for module in (decoder.transformer, decoder.iou_token, decoder.mask_tokens):
                module.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> PromptedClassifier:
        """Set the training mode; frozen parts, and encoders of which only some stages train, stay in evaluation."""
        super().train(mode)
        if hasattr(self, "object_stages"):
            if self.global_form != "shared" or self.object_stages.frozen:
                self.sam.image_encoder.eval()
            self.sam.prompt_encoder.eval()
            if self.global_stages is not None and self.global_stages.frozen:
                self.global_stages.encoder.eval()
        return self

    def learn_from(self, dataset: Any) -> None:
        """Take the class counts of the training data.

        Raises:
            ConfigError: its classes are not those of the model.
        """
        check_classes(dataset.metainfo["classes"], self.classes, "the training data")
        self.class_loss.learn_counts(dataset.class_counts())

    def card(self) -> dict[str, Any]:
        """Return what a checkpoint must say of the network."""
        return {
            "task": "prompted-classify",
            "classes": list(self.classes),
            "architecture": self.sam.arch,
            "mlp_residual": self.sam.mlp_residual,
            "preprocessing": self.sam.preprocessing.to_dict(),
            "object_encoder": self.object_encoder,
            "global_encoder": self.global_form,
            "global_vector": bool(self.head.global_dim),
            "prompt": self.prompt,
            "head_start": self.head_start,
        }

    def encode(self, images: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Return the embeddings of E_o and of E_g, (B, C, h, w) each; None for the one that is left out."""
        if self.global_form == "shared":
            both = self.object_stages(images)
            return both, both
        vision = self.object_stages(images) if self.object_encoder else None
        return vision, None if self.global_stages is None else self.global_stages(images)

    def objects(self, vision: Tensor | None, prompts: Prompts) -> ObjectTokens:
        """Return the tokens of the prompted objects; ``vision`` (B, C, h, w) of E_o, or None."""
        seen = vision if self.object_encoder else None
        trained = self.train_mask_decoder or (seen is not None and seen.requires_grad)
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            return object_tokens(self.sam, seen, prompts, self.prompt, self.chunk)

    def scores(self, images: Sequence[Tensor], prompts: Prompts) -> Tensor:
        """Return scores before softmax (N, K) of N objects in resized images, (3, h, w) uint8 RGB each."""
        return self.scores_of(*self.encode(images), prompts)

    def scores_of(self, vision: Tensor | None, about: Tensor | None, prompts: Prompts) -> Tensor:
        """Return scores before softmax (N, K) of N objects in images that ``encode`` encoded."""
        if self.head_start == "mask_decoder":
            # The form of the residual belongs to the weights; it is set on sam alone when they are loaded.
            self.head.transformer.set_mlp_residual(self.sam.mlp_residual)
        objects = self.objects(vision, prompts)
        if self.global_form == "shared" or about is None:
            cells = vision
        else:
            cells = about if vision is None else vision + about
        assert cells is not None  # One of the two encoders is there, see check_parts.
        vector = None if about is None else about.mean(dim=(2, 3))
        return self.head(objects, cells, self.sam.prompt_encoder.dense_position_code(), vector)

    def forward(self, inputs: Sequence[Tensor], data_samples: Sequence[Any] | None = None, mode: str = "tensor") -> Any:
        """Return losses ("loss"), samples with predictions ("predict"), or scores before softmax ("tensor").

        Args:
            inputs: resized images, (3, h, w) uint8 RGB each.
            data_samples: with the ``prompt_instances`` of the objects of each image; needed in every mode.
            mode: what to return.
        """
        if data_samples is None:
            raise ConfigError("PromptedClassifier classifies prompted objects; give data samples with their prompts")
        check_transforms(data_samples, self.sam.preprocessing)
        prompts = join_prompts(data_samples, inputs[0].device)
        if mode == "tensor":
            return self.scores(inputs, prompts)
        if mode == "loss":
            return self.loss(inputs, data_samples, prompts)
        with torch.no_grad():
            return self.predict(inputs, data_samples, prompts)

    def loss(self, images: Sequence[Tensor], samples: Sequence[Any], prompts: Prompts) -> dict[str, Tensor]:
        """Return ``loss_class``, the mean over the objects of all processes."""
        scores = self.scores(images, prompts)
        labels = torch.cat([sample.gt_instances.labels for sample in samples]).to(scores.device)
        loss = self.class_loss(scores, labels)
        if not len(prompts):
            # A batch of images without objects has no gradient; every process must still take part in the step.
            loss = loss + zero_of(self, scores)
        return {"loss_class": loss}

    def predict(self, images: Sequence[Tensor], samples: Sequence[Any], prompts: Prompts) -> list[Any]:
        """Add ``pred_instances`` with ``probabilities`` (n, K), ``labels`` (n,) and ``scores`` (n,) to each sample."""
        for sample in samples:
            check_classes(sample.classes, self.classes, sample.img_path)
        counts = [len(sample.prompt_instances) for sample in samples]
        add_class_predictions(samples, self.scores(images, prompts).float().softmax(dim=1).split(counts))
        return list(samples)


def mlp_width(sam: Sam) -> int:
    """Return the hidden width of the mask decoder's MLPs."""
    return int(sam.mask_decoder.transformer.layers[0].mlp.lin1.out_features)  # type: ignore[union-attr,arg-type]


def check_parts(
    object_encoder: bool, global_encoder: str, train_mask_decoder: bool, trained_stages: int | None, chunk: int
) -> None:
    """Refuse combinations of parts that leave nothing to classify by, or name what is not there.

    Raises:
        ConfigError: says which.
    """
    if not object_encoder and global_encoder != "own":
        raise ConfigError(
            f"without object_encoder the cells come from E_g, so global_encoder must be 'own', got {global_encoder!r}"
        )
    if train_mask_decoder and not object_encoder:
        raise ConfigError("train_mask_decoder needs object_encoder=True; without E_o no mask decoder runs")
    if trained_stages is not None and global_encoder == "none":
        raise ConfigError(f"trained_stages={trained_stages} counts stages of E_g, but global_encoder is 'none'")
    if chunk < 1:
        raise ConfigError(f"chunk must be at least 1, got {chunk}")
