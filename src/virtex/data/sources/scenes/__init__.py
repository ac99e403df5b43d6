"""Drawn scenes with captions, labels, boxes and masks; needs no download."""

from virtex.data.sources.scenes.kinds import CATEGORIES
from virtex.data.sources.scenes.source import ScenesSource
from virtex.data.sources.scenes.words import kinds_named_in

__all__ = ["CATEGORIES", "ScenesSource", "kinds_named_in"]
