"""The splits of a data set of the library `datasets` that options name, or that are usual."""

from collections.abc import Collection
from pathlib import Path

from virtex.data.checks import quoted
from virtex.data.held_out_names import VALIDATION
from virtex.data.source_options import SourceConfig
from virtex.data.sources.huggingface_sets import WHOLE
from virtex.errors import ConfigError, listing

MAX_SHOWN = 20


def choose_split(splits: Collection[str], config: SourceConfig, split: str) -> str | None:
    """Return the name of the training or validation split; None if there is no validation data.

    Args:
        splits: The names of all splits, of which WHOLE stands for a data set without any.

    Raises:
        ConfigError: There is no such split, or validation data are named twice.
    """
    if split == "val" and config.val_root is not None:
        return _of_val_root(splits, config)
    train = WHOLE
    if config.train_split is not None or WHOLE not in splits:
        train = _named(splits, config.train_split or "train", config.root, "train_split")
    val = _usual({*splits} - {train})
    if config.val_share > 0 and val is not None:
        raise ConfigError(
            f"{config.root} has a split {val}, and --data.val_share holds out other images. Leave "
            "--data.val_share out."
        )
    if split == "train" or config.val_share > 0:
        return train
    if config.val_split is not None:
        return _named(splits, config.val_split, config.root, "val_split")
    return val


def _of_val_root(splits: Collection[str], config: SourceConfig) -> str:
    """Return the validation split of a data set of its own, which may have but one split."""
    if config.val_split is None and len(splits) == 1:
        return next(iter(splits))
    name = config.val_split or _usual(splits) or VALIDATION[0]
    return _named(splits, name, config.val_root, "val_split")


def _usual(splits: Collection[str]) -> str | None:
    return next((name for name in VALIDATION if name in splits), None)


def _named(splits: Collection[str], name: str, root: Path | None, option: str) -> str:
    if name in splits:
        return name
    if WHOLE in splits:
        raise ConfigError(f"{root} has no splits: leave --data.{option} out.")
    if not splits:
        raise ConfigError(f"{root} has no split at all. Save it again, with a split {name}.")
    there = listing([quoted(one) for one in splits], limit=MAX_SHOWN)
    raise ConfigError(
        f"{root} has no split {quoted(name)}, it has {there}. Name one with --data.{option}."
    )
