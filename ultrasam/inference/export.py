"""Export of a network to ONNX or TorchScript: an encoder and a decoder, checked against PyTorch before they are kept.

``export_network(sam, "exported", card=card, passes=("single",))`` writes both, or nothing.
"""

from __future__ import annotations

import copy
import inspect
import json
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ultrasam.errors import ConfigError, DataError
from ultrasam.inference import export_graphs as graphs
from ultrasam.inference.export_check import Run, compare, require_parity
from ultrasam.modeling.prompt_encoder import CORNER_A, CORNER_B, NEGATIVE, NOT_A_POINT, PADDING, POSITIVE
from ultrasam.modeling.sam import Sam

SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt"}
# Of the metadata, in the model (ONNX) or beside it in the archive (TorchScript).
KEY = "ultrasam"
OPSET = 17
# A protobuf message ends at 2 GB; beyond this the weights go to a file of their own.
ONE_FILE_BYTES = 1_800_000_000


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: the encoder, the decoder, and their weights where those are separate.
        parity: largest absolute difference from PyTorch by output.
        about: the metadata inside both files.
    """

    files: tuple[Path, ...]
    parity: dict[str, float]
    about: dict[str, Any]


@dataclass(frozen=True)
class Half:
    """One graph: its module, example inputs, and the names and dynamic axes of inputs and outputs."""

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: dict[str, dict[int, str]]


def export_network(
    sam: Sam,
    out: str | Path,
    *,
    format: str = "onnx",
    masks: bool = False,
    card: Mapping[str, Any] | None = None,
    passes: Sequence[str] = (),
    mask_prompt: bool = True,
    sha256: str = "",
) -> Exported:
    """Write ``encoder`` and ``decoder`` to a folder, both or none.

    Args:
        sam: the network; it is copied, not changed.
        out: folder; it is created, and files of these names in it are replaced.
        format: "onnx" or "torchscript".
        masks: the decoder also gives masks at the original size, and needs that size.
        card: of the weights.
        passes: the decoding passes that the weights want ("single", "multi"); empty: SAM's own convention.
        mask_prompt: whether a pass gets the logits of the one before.
        sha256: of the weight file.

    Raises:
        ConfigError: another format, a missing package, or results that differ from PyTorch's by more than 1e-3.
        DataError: the folder cannot be written.
    """
    if format not in SUFFIXES:
        raise ConfigError(f"the export format must be one of {', '.join(SUFFIXES)}, found {format!r}")
    _require_packages(format)
    reference = copy.deepcopy(sam).cpu().float().eval()
    sam = graphs.for_tracing(sam)
    decoding = {"passes": list(passes), "mask_prompt": mask_prompt}
    about = _about(sam, dict(card or {}), {**decoding, "weights_sha256": sha256})
    out = Path(out)
    with _staging(out) as folder:
        runs, names = [], []
        for half in _halves(sam, masks):
            path = folder / f"{half.name}{SUFFIXES[format]}"
            described = {**about, "part": half.name, "inputs": half.inputs, "outputs": half.outputs}
            text = json.dumps(described, allow_nan=False)
            runs.append(_to_onnx(half, path, text) if format == "onnx" else _to_torchscript(half, path, text))
            names += [path.name, path.name + ".data"]
        encoder, decoder = runs
        parity = compare(reference, encoder, decoder, masks)
        require_parity(parity)
        written = [name for name in names if (folder / name).exists()]
        for name in names:
            target = out / name
            (folder / name).replace(target) if name in written else target.unlink(missing_ok=True)
    return Exported(tuple(out / name for name in written), parity, about)


def _about(sam: Sam, card: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return what a user of the files must know."""
    about = {
        "format": "ultrasam-export-1",
        "architecture": sam.arch,
        "image_size": sam.image_size,
        "low_res_size": sam.low_res_size,
        "mlp_residual": sam.mlp_residual,
        "preprocessing": sam.preprocessing.to_dict(),
        **more,
        "card": card,
        "torch": version("torch"),
    }
    try:
        return json.loads(json.dumps(about, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the card of these weights cannot be written: a value is not plain ({error})") from error


def _halves(sam: Sam, masks: bool) -> Iterator[Half]:
    """Yield the encoder and the decoder with the sizes that they are traced at."""
    side, low, cells = sam.image_size, sam.low_res_size, sam.prompt_encoder.embedding_size
    height = side if sam.preprocessing.mode == "squash" else side // 2
    image = torch.arange(height * side * 3).reshape(height, side, 3).to(torch.uint8)
    axes = {"image": {0: "height", 1: "width"}}
    yield Half("encoder", graphs.EncoderGraph(sam), (image,), graphs.ENCODER_INPUTS, graphs.ENCODER_OUTPUTS, axes)

    labels = torch.tensor(
        [[POSITIVE, NEGATIVE, NOT_A_POINT], [CORNER_A, CORNER_B, PADDING], [POSITIVE, CORNER_A, CORNER_B]]
    )
    coords = torch.arange(18.0).reshape(3, 3, 2) * (labels >= 0).unsqueeze(-1)
    channels = sam.prompt_encoder.embed_dim
    example: tuple[Tensor, ...] = (
        torch.linspace(-1, 1, channels * cells * cells).reshape(1, channels, cells, cells),
        coords,
        labels,
        torch.zeros(3, 1, low, low),
        torch.tensor([True, False, True]),
    )
    inputs: tuple[str, ...] = graphs.DECODER_INPUTS
    outputs: tuple[str, ...] = graphs.DECODER_OUTPUTS
    objects, axes = {0: "objects"}, {}
    for name in ("coords", "labels"):
        axes[name] = {0: "objects", 1: "tokens"}
    for name in ("mask", "has_mask", "logits", "iou"):
        axes[name] = objects
    if masks:
        inputs, outputs = (*inputs, "original_size"), (*outputs, "masks")
        example = (*example, torch.tensor([side // 2, side]))
        axes["masks"] = {0: "objects", 2: "height", 3: "width"}
    yield Half("decoder", graphs.DecoderGraph(sam, masks), example, inputs, outputs, axes)


def _to_onnx(half: Half, path: Path, text: str) -> Run:
    """Write one ONNX file with its metadata and return what runs it."""
    import onnx
    import onnxruntime

    # The exporter that traces exists in every supported version and needs no package; newer ones call it old.
    chosen: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    raw = path.with_suffix(".raw") / path.name
    raw.parent.mkdir()
    with _quiet_tracing():
        torch.onnx.export(
            half.module,
            half.example,
            str(raw),
            input_names=list(half.inputs),
            output_names=list(half.outputs),
            dynamic_axes=half.axes,
            opset_version=OPSET,
            **chosen,
        )
    model = onnx.load(str(raw))
    onnx.helper.set_model_props(model, {KEY: text})
    size = sum(value.numel() * value.element_size() for value in half.module.state_dict().values())
    if size > ONE_FILE_BYTES:
        onnx.save(model, str(path), save_as_external_data=True, location=path.name + ".data")
    else:
        onnx.save(model, str(path))
    shutil.rmtree(raw.parent)
    onnx.checker.check_model(str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(values: Mapping[str, Tensor]) -> list[Tensor]:
        found = session.run(None, {name: values[name].numpy() for name in half.inputs})
        return [torch.from_numpy(value) for value in found]

    return run


def _to_torchscript(half: Half, path: Path, text: str) -> Run:
    """Write one TorchScript file with its metadata and return what runs it."""
    with _quiet_tracing(), torch.no_grad():
        traced = torch.jit.trace(half.module, half.example, check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={KEY: text})
        # From the file, so that what was written is what is checked.
        loaded = torch.jit.load(str(path), map_location="cpu")

    def run(values: Mapping[str, Tensor]) -> list[Tensor]:
        found = loaded(*(values[name] for name in half.inputs))
        return [found] if isinstance(found, Tensor) else list(found)

    return run


def read_about(path: str | Path) -> dict[str, Any]:
    """Return the metadata of an exported file.

    Raises:
        DataError: missing, or not written by ``export_network``.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; run 'ultrasam export' to make it")
    if path.suffix == SUFFIXES["torchscript"]:
        import zipfile

        # The archive is read as a zip file: loading the program to learn what it is would run it.
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith(f"/extra/{KEY}")]
                text = archive.read(names[0]).decode() if names else ""
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is no TorchScript archive ({error}); export it again") from error
    else:
        _require_packages("onnx")
        import onnx
        from google.protobuf.message import DecodeError

        try:
            model = onnx.load(str(path), load_external_data=False)
        except (DecodeError, onnx.checker.ValidationError) as error:
            raise DataError(f"{path} is no ONNX model ({error}); export it again") from error
        text = {item.key: item.value for item in model.metadata_props}.get(KEY, "")
    if not text:
        raise DataError(f"{path} was not written by 'ultrasam export': it has no metadata named {KEY!r}")
    return json.loads(text)


def _require_packages(format: str) -> None:
    """Raise ConfigError where a package that a format needs is not installed."""
    import importlib.util

    for name in ("onnx", "onnxruntime") if format == "onnx" else ():
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"export to ONNX needs the package {name}; run pip install 'ultrasam[export]'")


@contextmanager
def _quiet_tracing() -> Iterator[None]:
    """Keep what tracing says about sizes that are meant to be fixed, and about its own age, from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*torch.jit", FutureWarning)
        yield


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Give a new folder inside ``out``, removed afterwards; also ``out`` where that is new and nothing came of it."""
    created = not out.exists()
    folder = out / f".export.{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error}); check permissions and free space") from error
    try:
        yield folder
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error}); check permissions and free space") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if created and not any(out.iterdir()):
            out.rmdir()
