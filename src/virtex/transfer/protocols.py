"""The protocols of `virtex transfer`, by name."""

from collections.abc import Callable
from typing import Any

from virtex.transfer import linear, voc07
from virtex.transfer.command import TransferConfig
from virtex.transfer.protocol import Result

PROTOCOLS: dict[str, tuple[type[TransferConfig], Callable[[Any], Result]]] = {
    "voc07": (voc07.Voc07Config, voc07.run),
    "linear": (linear.LinearConfig, linear.run),
}
"""Name to the options of its command and the function that takes them."""
