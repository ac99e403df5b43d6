"""Drawn scenes with captions, labels, boxes and masks; needs no download."""

from virtex.data.sources.scenes.export import WriteScenesConfig, write_scenes, write_scenes_from
from virtex.data.sources.scenes.kinds import CATEGORIES
from virtex.data.sources.scenes.source import ScenesSource
from virtex.data.sources.scenes.words import kinds_named_in

__all__ = [
    "CATEGORIES",
    "ScenesSource",
    "WriteScenesConfig",
    "kinds_named_in",
    "write_scenes",
    "write_scenes_from",
]
