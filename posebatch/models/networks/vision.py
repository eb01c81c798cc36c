"""The parts of torchvision that the networks are made of, loaded without torch's compiler.

torchvision imports one function of the compiler, ``is_compile_supported``, which it calls on GPUs in deterministic mode
alone. The compiler takes longer to load than torch itself: 3.6 s of 6.9 s for torchvision with torch (processor time of
``python -X importtime -c 'import torchvision'``, torch 2.15, torchvision 0.29). Each worker of a run would pay for it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

_COMPILER: Final = "torch._dynamo"

_UTILITIES: Final = "torch._dynamo.utils"


class _UnloadedModule(ModuleType):
    """Stands for a module of the compiler. Any name but those that are set loads the compiler itself."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # `inspect` asks each loaded module for its file
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


def _is_compile_supported(device_type: str) -> Any:
    return importlib.import_module(_UTILITIES).is_compile_supported(device_type)


def _remove_stand_ins() -> None:
    for name in (_COMPILER, _UTILITIES):
        if isinstance(sys.modules.get(name), _UnloadedModule):
            del sys.modules[name]


@contextmanager
def compiler_unloaded() -> Iterator[None]:
    """Within the block, ``from torch._dynamo.utils import is_compile_supported`` does not load the compiler."""
    if _COMPILER in sys.modules:
        yield
        return
    utilities = _UnloadedModule(_UTILITIES)
    utilities.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules.update({_COMPILER: _UnloadedModule(_COMPILER), _UTILITIES: utilities})
    try:
        yield
    finally:
        _remove_stand_ins()


with compiler_unloaded():
    from torchvision.models import (
        ResNet,
        get_model_builder,
        mobilenet_v2,
        resnet18,
        resnet34,
        resnet50,
        resnet101,
        resnet152,
    )
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.ssd import SSD
    from torchvision.models.detection.ssdlite import SSDLiteHead
    from torchvision.ops import nms
    from torchvision.ops.misc import Conv2dNormActivation

__all__ = [
    "SSD",
    "Conv2dNormActivation",
    "DefaultBoxGenerator",
    "ImageList",
    "ResNet",
    "SSDLiteHead",
    "get_model_builder",
    "mobilenet_v2",
    "nms",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
]
