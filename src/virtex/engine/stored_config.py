"""The options that a run folder holds, in config.yaml and in each checkpoint."""

import logging
from typing import Any

from virtex.engine.run import RunFolder
from virtex.errors import CheckpointError, ConfigError
from virtex.options.command_line import load

log = logging.getLogger("virtex")
EARLIER = {"float32_matmul": "default"}
"""Options of the loop that earlier versions lacked, and what they did."""


def stored_config(folder: RunFolder, *, last: str) -> dict[str, Any]:
    """Return the options of an existing run: of its config.yaml, or else of its newest checkpoint.

    Args:
        last: The option that config.yaml ends with, which shows that the file is whole.

    Raises:
        CheckpointError: config.yaml is damaged, or no checkpoint can be read.
    """
    values = _read(folder, last=last)
    return values | {"run": EARLIER | values["run"]} if "run" in values else values


def _read(folder: RunFolder, *, last: str) -> dict[str, Any]:
    path = folder.config_path
    if path.exists():
        try:
            values = load(path)
        except ConfigError as error:
            raise CheckpointError(f"{error}. {_remedy(folder)}") from error
        if last not in values or not path.read_bytes().endswith(b"\n"):
            raise CheckpointError(f"{path} is cut off. {_remedy(folder)}")
        return values
    saved = folder.checkpoints.latest()
    assert saved is not None, "the run has begun"
    log.warning("%s is missing: taking the options of the checkpoint %d", path, saved["step"])
    config: dict[str, Any] = saved["config"]
    return config


def _remedy(folder: RunFolder) -> str:
    return (
        f"Remove {folder.config_path}: the options are then those of the newest checkpoint, and "
        "the file is written again."
    )
