"""Putting the replacement of ``mmcv._ext`` in place, and what its missing operators say."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torchvision

from ultrasam.engine.mmcv_ext import boxes, deform_attention, deform_conv, focal_loss, roi
from ultrasam.engine.mmcv_ext.missing import missing_op
from ultrasam.engine.mmcv_ext.names import OP_NAMES
from ultrasam.errors import ConfigError

MODULE_NAME = "mmcv._ext"
_MARKER = "__ultrasam_replacement__"


def install() -> bool:
    """Make ``mmcv.ops`` importable where mmcv came without its compiled extension.

    Call it before the first import of ``mmcv.ops`` or of a part of MMDetection that needs it
    (``mmdet.models``, ``mmdet.evaluation``, ``mmdet.apis``). Calling it again does nothing.

    Returns:
        True if the replacement is in place (now or since an earlier call), False if a compiled ``mmcv._ext``
        exists and is left alone.

    Raises:
        ConfigError: mmcv is not installed at all.
    """
    loaded = sys.modules.get(MODULE_NAME)
    if loaded is not None:
        return hasattr(loaded, _MARKER)
    try:
        mmcv = importlib.import_module("mmcv")
    except ModuleNotFoundError as error:
        if error.name != "mmcv":
            raise
        raise ConfigError(
            "mmcv is not installed but training needs it: run `pip install mmcv-lite==2.1.0`, which needs no "
            "compiler"
        ) from error
    if importlib.util.find_spec(MODULE_NAME) is not None:
        return False
    module = build_module()
    sys.modules[MODULE_NAME] = module
    # What the import system does for a real submodule, for those who write ``import mmcv; mmcv._ext``.
    vars(mmcv)["_ext"] = module
    return True


def is_installed() -> bool:
    """Return whether ``mmcv._ext`` is this replacement at the moment."""
    return hasattr(sys.modules.get(MODULE_NAME), _MARKER)


def build_module() -> ModuleType:
    """Return a new module with every function of ``mmcv._ext``, without registering it anywhere."""
    module = ModuleType(MODULE_NAME, "Operators of mmcv written with PyTorch and torchvision by UltraSam.")
    # A spec makes `importlib.util.find_spec` answer as for any loaded module instead of raising.
    module.__spec__ = importlib.machinery.ModuleSpec(MODULE_NAME, loader=None, origin=__name__)
    contents: dict[str, Any] = {name: missing_op(name) for name in OP_NAMES}
    contents.update(implemented_ops())
    contents[_MARKER] = True
    vars(module).update(contents)
    return module


def implemented_ops() -> dict[str, Callable[..., Any]]:
    """Return the operators that work without a compiled mmcv, by their name in ``mmcv._ext``."""
    functions: tuple[Callable[..., Any], ...] = (
        get_compiler_version,
        get_compiling_cuda_version,
        boxes.bbox_overlaps,
        boxes.nms,
        boxes.nms_match,
        boxes.softnms,
        deform_attention.ms_deform_attn_forward,
        deform_attention.ms_deform_attn_backward,
        deform_conv.deform_conv_forward,
        deform_conv.deform_conv_backward_input,
        deform_conv.deform_conv_backward_parameters,
        deform_conv.modulated_deform_conv_forward,
        deform_conv.modulated_deform_conv_backward,
        focal_loss.sigmoid_focal_loss_forward,
        focal_loss.sigmoid_focal_loss_backward,
        focal_loss.softmax_focal_loss_forward,
        focal_loss.softmax_focal_loss_backward,
        roi.roi_align_forward,
        roi.roi_align_backward,
        roi.roi_pool_forward,
        roi.roi_pool_backward,
    )
    return {function.__name__: function for function in functions}


def get_compiler_version() -> str:
    """Return what environment reports print for mmcv's compiler."""
    return f"none (operators from torchvision {torchvision.__version__} and PyTorch)"


def get_compiling_cuda_version() -> str:
    """Return what environment reports print for mmcv's CUDA, in mmcv's own words for a build without it."""
    return "not available"
