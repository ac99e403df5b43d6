"""Allow-list of a network's options: arguments of timm's network classes, within bounds.

Weights files contain options, and some that timm.create_model takes open files (checkpoint_path) or
download (pretrained_cfg).
"""

import inspect
import math
import re
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import nn

from virtex.errors import ConfigError, did_you_mean, raise_all

MAX_NUMBER, MAX_LENGTH, MAX_DEPTH = 100_000, 200, 1_000
"""Largest number, list length and number of layers among a network's options."""
DEPTH = re.compile(r"depth|layers|blocks|stage")
"""Names of options that are numbers of layers."""
WORD = re.compile(r"[A-Za-z0-9_]{1,40}")
"""Names of timm's layers, the only text that an option may be; no path or address matches."""
NOT_ARCHITECTURE = {"self", "kwargs", "cfg", "cfgs", "block_cfg", "device", "dtype"}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Allow only options of an architecture, none that opens a file or an address.

    timm's modules must have been imported.

    Args:
        name: The network, for the message.

    Raises:
        ConfigError: Some options are not allowed.
    """
    names = _architecture_options()
    problems = [
        f"{option} is no option of an architecture. {did_you_mean(option, names, few=True)}"
        for option in options.keys() - names
    ]
    problems += [
        f"{option} {value!r}: give numbers up to {MAX_NUMBER:,} (layers {MAX_DEPTH:,}), lists up "
        f"to {MAX_LENGTH} long, or a layer's name"
        for option, value in options.items()
        if not _is_bounded(value, MAX_DEPTH if DEPTH.search(option) else MAX_NUMBER)
    ]
    if options.get("patch_drop_rate"):
        problems.append(
            f"patch_drop_rate {options['patch_drop_rate']}: the tokens that are left make no grid. "
            "Leave it out; task.grid_share of captioning drops cells after the backbone"
        )
    raise_all(ConfigError, f"backbone.options of {name!r} cannot work", sorted(problems))


@cache
def _architecture_options() -> frozenset[str]:
    """Return the names of all arguments of timm's network classes."""
    modules = [m for name, m in sys.modules.items() if name.startswith("timm.models.")]
    signatures = [
        inspect.signature(member.__init__).parameters.keys()
        for module in modules
        for member in vars(module).values()
        if inspect.isclass(member) and issubclass(member, nn.Module)
    ]
    networks = [names for names in signatures if "num_classes" in names]
    return frozenset().union(*networks) - NOT_ARCHITECTURE


def _is_bounded(value: Any, limit: int) -> bool:
    """Whether an option's value is a bounded number, a short list of them, or a word."""
    if isinstance(value, list | tuple):
        return len(value) <= MAX_LENGTH and all(_is_bounded(item, limit) for item in value)
    if isinstance(value, str):
        return WORD.fullmatch(value) is not None
    return value is None or (math.isfinite(value) and abs(value) <= limit)
