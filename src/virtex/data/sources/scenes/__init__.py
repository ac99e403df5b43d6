"""Drawn scenes with captions, labels, boxes and masks; needs no download."""

from virtex.data.sources.scenes.kinds import CATEGORIES
from virtex.data.sources.scenes.nouns import kinds_named_in
from virtex.data.sources.scenes.scenes_source import ScenesSource

__all__ = ["CATEGORIES", "ScenesSource", "kinds_named_in"]
