"""Pretrain vision backbones from image captions."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from virtex.predict.loading import load_captioner as load_captioner
    from virtex.predict.loading import load_embedder as load_embedder
    from virtex.zoo.backbones import load_backbone as load_backbone

__all__ = ["load_backbone", "load_captioner", "load_embedder"]


def __getattr__(name: str) -> Any:
    """Import torch only when a model is asked for: `virtex --help` answers at once."""
    if name == "load_backbone":
        from virtex.zoo.backbones import load_backbone

        return load_backbone
    if name == "load_captioner":
        from virtex.predict.loading import load_captioner

        return load_captioner
    if name == "load_embedder":
        from virtex.predict.loading import load_embedder

        return load_embedder
    raise AttributeError(f"module 'virtex' has no attribute {name!r}")
