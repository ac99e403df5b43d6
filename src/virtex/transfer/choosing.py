"""The protocols that choose: voc07 or linear by name, for a checkpoint or for learning rates."""

from dataclasses import replace
from typing import Literal

from virtex.data.source import SourceConfig
from virtex.transfer.features import Extraction
from virtex.transfer.linear import LinearProbe
from virtex.transfer.protocol import Protocol
from virtex.transfer.solvers.probes import NeighborConfig
from virtex.transfer.voc07 import svm_on, with_voc_splits

ChoiceName = Literal["voc07", "linear"]


def choosing_protocol(
    name: ChoiceName,
    extraction: Extraction,
    *,
    data: SourceConfig,
    num_train: int,
    leave_out_rare: bool = False,
) -> Protocol:
    """Return the protocol of a name, with the settings of its command.

    Args:
        data: Options of its images.
        num_train: Number of its training images, all of which vote where they are few.
        leave_out_rare: voc07: leave out classes with too few images.
    """
    if name == "linear":
        usual = NeighborConfig()
        few = replace(usual, num_neighbors=min(usual.num_neighbors, num_train))
        return LinearProbe(extraction=extraction, neighbors=few)
    return svm_on(data, extraction, leave_out_rare=leave_out_rare)


def choosing_data(name: ChoiceName, data: SourceConfig) -> SourceConfig:
    """Return the options of a protocol's images, for voc07 with VOC's own splits."""
    return with_voc_splits(data) if name == "voc07" else data
