"""What a run that an earlier version began goes on with, and a new one is refused: its data."""

import logging
from collections.abc import Callable
from dataclasses import replace

from virtex.data.checks import quoted
from virtex.data.missing_captions import without_caption_limit
from virtex.data.source_options import SourceConfig, is_manifest
from virtex.data.split_folders import held_out_folders
from virtex.data.validation import IN_FOLDERS
from virtex.engine.run import RunFolder
from virtex.errors import ConfigError, listing
from virtex.pretrain_config import PretrainConfig
from virtex.run_data import RunData

log = logging.getLogger("virtex")


def data_options(config: PretrainConfig) -> SourceConfig:
    """Return the data options of a run; one that has begun keeps its images and its captions.

    On known data it has no limit of missing captions, of which earlier versions counted fewer: the
    fingerprint tells whether the data are the same.
    """
    data = _with_held_out_folders(config)
    has_known_data = RunFolder(config.out).has_begun() and RunData.read(config.out) is not None
    if config.accept_changed_data or not has_known_data:
        return data
    return without_caption_limit(data)


def _with_held_out_folders(config: PretrainConfig) -> SourceConfig:
    """Return the data options, by which a run of an earlier version keeps its training images."""
    data = config.data
    if not RunFolder(config.out).has_begun() or data.source not in IN_FOLDERS or is_manifest(data):
        return data
    names = held_out_folders(data)
    if not names:
        return data
    log.warning(
        "this run began with all of %s, %s included, as training images",
        data.root,
        listing([quoted(name) for name in names]),
    )
    return replace(data, train_split=".")


def check_new(config: PretrainConfig, what: str, check: Callable[[], None]) -> None:
    """Check data of a new run; a run that an earlier version began with `what` goes on with it."""
    try:
        check()
    except ConfigError as error:
        if not RunFolder(config.out).has_begun():
            raise
        log.warning("this run began with %s: %s", what, error)
