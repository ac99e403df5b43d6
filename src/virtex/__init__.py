"""Pretrain vision backbones from image captions."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from virtex.predict.loading import load_captioner as load_captioner
    from virtex.predict.loading import load_embedder as load_embedder
    from virtex.zoo.backbones import load_backbone as load_backbone

__all__ = ["load_backbone", "load_captioner", "load_embedder"]


def __getattr__(name: str) -> Any:
    """Import torch only when a model is loaded, so that `virtex --help` is fast."""
    if name not in __all__:
        raise AttributeError(f"module 'virtex' has no attribute {name!r}")
    module = "virtex.zoo.backbones" if name == "load_backbone" else "virtex.predict.loading"
    return getattr(import_module(module), name)
