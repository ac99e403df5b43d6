"""Pretrain vision backbones from image captions."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from virtex.version import VERSION

if TYPE_CHECKING:
    from virtex.models.decoding_config import DecodingConfig as DecodingConfig
    from virtex.predict.embeddings import embed as embed
    from virtex.predict.embeddings import preprocess as preprocess
    from virtex.predict.loading import load_captioner as load_captioner
    from virtex.predict.loading import load_embedder as load_embedder
    from virtex.predict.matching import MatchingConfig as MatchingConfig
    from virtex.zoo.backbones import load_backbone as load_backbone

_MODULES = {
    "DecodingConfig": "virtex.models.decoding_config",
    "MatchingConfig": "virtex.predict.matching",
    "embed": "virtex.predict.embeddings",
    "load_backbone": "virtex.zoo.backbones",
    "load_captioner": "virtex.predict.loading",
    "load_embedder": "virtex.predict.loading",
    "preprocess": "virtex.predict.embeddings",
}
"""Module of each public name, imported when the name is first used, since torch takes seconds."""
__all__ = ["__version__", *_MODULES]
__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Return a public name from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module 'virtex' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Return the public names, which `dir(virtex)` lists."""
    return sorted(__all__)
