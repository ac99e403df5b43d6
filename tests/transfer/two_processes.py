"""Protocols run by two processes, started by torchrun on a free port."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import torch

from virtex import distributed
from virtex.transfer.command import MeasurementConfig
from virtex.transfer.protocols import PROTOCOLS

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def measure_by_two(configs: dict[str, MeasurementConfig], folder: Path) -> None:
    """Run protocols, by name; they write their results where their configs say.

    Args:
        folder: Gets a file that tells the processes what to do.
    """
    path = folder / "configs.pickle"
    path.write_bytes(pickle.dumps(configs))
    done = subprocess.run(
        [sys.executable, *TORCHRUN, "-m", "tests.transfer.two_processes", str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def main() -> None:
    """One of the two processes."""
    torch.set_num_threads(1)
    configs = pickle.loads(Path(sys.argv[1]).read_bytes())
    with distributed.process_group(torch.device("cpu")):
        for name, config in configs.items():
            assert len(PROTOCOLS[name].run(config)) == int(distributed.is_main())


if __name__ == "__main__":
    main()
