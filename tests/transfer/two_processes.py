"""Protocols run by two processes."""

from functools import partial

from tests.tasks.two_processes import in_processes
from virtex import distributed
from virtex.transfer.command import MeasurementConfig
from virtex.transfer.protocols import PROTOCOLS


def measure_by_two(configs: dict[str, MeasurementConfig]) -> None:
    """Run protocols, by name; they write their results where their configs say."""
    in_processes(2, partial(_measure, configs), timeout=300)


def _measure(configs: dict[str, MeasurementConfig]) -> None:
    for name, config in configs.items():
        assert len(PROTOCOLS[name].run(config)) == int(distributed.is_main())
