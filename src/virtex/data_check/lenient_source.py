"""Sources opened for a check: what training would refuse is counted instead."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from virtex.data.example import Source, Subset
from virtex.data.layout_search import found_layouts
from virtex.data.missing_captions import without_caption_limit
from virtex.data.shards.remote_visit import VisitedShards
from virtex.data.source import Needs, SourceConfig, Split, open_source, resolved
from virtex.data.source_options import WITH_CAPTIONS, is_manifest
from virtex.data_check.duplicates import hash_ids
from virtex.errors import ConfigError, DataError, VirTexError

CAPTIONS = Needs(captions=True)


@dataclass
class OpenedSplit:
    """The images of one split."""

    source: Source
    without_captions: Source | None = None
    """Images that were skipped for want of a caption."""
    notes: list[str] = field(default_factory=list)
    """What opening logged, and why captions cannot be read, if so."""
    has_captions: bool = False


def resolve(config: SourceConfig) -> SourceConfig:
    """Return the options with the layout found; one with captions comes first.

    Raises:
        ConfigError: The root has no known layout, or several.
    """
    if config.source != "auto" or config.root is None:
        return resolved(config, CAPTIONS)
    found = found_layouts(config.root, config, CAPTIONS)
    return resolved(config, CAPTIONS if WITH_CAPTIONS & set(found) else Needs())


def open_split(
    config: SourceConfig, split: Split, remote: VisitedShards | None = None
) -> OpenedSplit | None:
    """Return a split, if need be without its captions; None if there is none.

    Args:
        remote: The shards at URLs, if the options name such.

    Raises:
        DataError: The images cannot be listed either.
    """
    with _logged() as notes:
        refusal: VirTexError | None = None
        if config.source in WITH_CAPTIONS:
            try:
                source = open_source(_tolerant(config), split=split, needs=CAPTIONS, remote=remote)
                return None if source is None else _captioned(source, config, split, notes)
            except (DataError, ConfigError) as error:  # options that cannot work are raised below
                refusal = _as_in_training(config, split, remote) or error
        try:
            source = open_source(config, split=split, needs=Needs(), remote=remote)
        except DataError as error:
            raise refusal or error from None
        if refusal is not None:
            notes.append(f"captions cannot be read: {refusal}")
        return None if source is None else OpenedSplit(source, notes=notes)


def _captioned(source: Source, config: SourceConfig, split: Split, notes: list[str]) -> OpenedSplit:
    """Return a split with captions, and the images skipped, which a second opening finds."""
    skipped: Source | None = None
    if source.identity().get("skipped_images") and config.share == 1:
        everything = open_source(config, split=split, needs=Needs())
        assert everything is not None
        own, all_ids = (hash_ids(one, seed=0, title="ids") for one in (source, everything))
        skipped = Subset(everything, np.flatnonzero(~np.isin(all_ids, own)))
    return OpenedSplit(source, skipped, notes, has_captions=True)


def _as_in_training(
    config: SourceConfig, split: Split, remote: VisitedShards | None
) -> VirTexError | None:
    """Return the error that training would end with, which names the limit of the options."""
    try:
        open_source(config, split=split, needs=CAPTIONS, remote=remote)
    except (DataError, ConfigError) as error:
        return error
    return None


def _tolerant(config: SourceConfig) -> SourceConfig:
    """Return options by which images without a caption are skipped, however many there are."""
    if is_manifest(config):
        return replace(config, fault_limit=1.0)
    return without_caption_limit(config)


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect the package's warnings, without repetitions, in place of showing them."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING and record.getMessage() not in lines:
                lines.append(record.getMessage())

    logger = logging.getLogger("virtex")
    before, logger.handlers = logger.handlers, [Collector()]
    try:
        yield lines
    finally:
        logger.handlers = before
