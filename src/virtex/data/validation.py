"""The check that validation data are not trained on."""

from dataclasses import replace
from pathlib import Path

from virtex.data.shards.manifest import has_manifest
from virtex.data.shards.manifest_options import check_apart
from virtex.data.source_options import SourceConfig, is_manifest
from virtex.data.split_folders import root_of, train_folder, val_folder


def check_validation(config: SourceConfig) -> None:
    """Check that validation shards are not trained on, where a manifest lists either.

    A command that trains on nothing may name the same data twice.

    Raises:
        ConfigError: They are.
        DataError: A manifest is damaged, or a folder is missing.
    """
    if config.source != "webdataset" or config.val_root is None:
        return
    train, val = [*map(Path, config.mix)] or [root_of(config)], config.val_root
    if not has_manifest(val):
        val = val_folder(replace(config, root=val, mix={})) or val
    if not is_manifest(config):
        train = [train_folder(config)]
    check_apart(train, val)
