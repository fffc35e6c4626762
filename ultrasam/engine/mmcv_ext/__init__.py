"""A stand-in for ``mmcv._ext``, the compiled part of mmcv, written with PyTorch and torchvision.

``mmcv-lite`` carries every Python wrapper of ``mmcv.ops`` but not the compiled extension they call, and
the extension of mmcv 2.1 does not build against a current PyTorch. :func:`install` gives the wrappers what
they need, so that MMDetection imports, trains and evaluates without a compiler::

    from ultrasam.engine import mmcv_ext

    mmcv_ext.install()
    import mmdet.models

Importing this package changes nothing; only :func:`install` does, and never where a compiled ``mmcv._ext``
exists.
"""

from ultrasam.engine.mmcv_ext.missing import MissingOpError
from ultrasam.engine.mmcv_ext.replacement import install, is_installed

__all__ = ["MissingOpError", "install", "is_installed"]
