"""Kill ranks, nodes and the store of a run on two nodes many times; compare its end bit for bit.

    python -m benchmarks.nodes --kills 30

The nodes are network namespaces on one machine, which needs Linux, root and `ip`: each has an
address of its own, an agent of torchrun, one process of the run, and a cache of shards on its own
disk. A third address, as a login node would, holds the rendezvous and an S3-like store of the
shards, which the nodes read over their network; the run folder and the manifest are shared. Kinds
of blows, at random steps:

    rank        a process is killed
    pause       a process is stopped for some seconds
    network     a node's network loses all packets for some seconds
    node        a node dies, and another with an empty disk comes in its place
    store       the store is killed, and started again once the run stood still for some seconds
    stall       the store is stopped, so that reads hang, and goes on likewise
    store+node  a node dies while the store is away

Each run must end with the final checkpoint of the undisturbed one, to the bit; else the exit code
is 1.

    python -m benchmarks.nodes --nnodes 1:2 --kinds gone --kills 2 --kills_per_run 1

loses a node for good, and the other one must complete the run alone.
"""

import argparse
import itertools
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.nodes.blows import KINDS, POLL, Blow, drawn, reach, strike
from benchmarks.nodes.cluster import Cluster, why_not
from benchmarks.nodes.end_state import digest_of
from benchmarks.nodes.shards import make_shards
from virtex.engine.run import RunFolder

OPTIONS = """
tokenizer: {vocab_size: 40}
image: {size: 64}
backbone: {name: resnet18, options: {layers: [1, 1, 1, 1], channels: [8, 8, 16, 16]}}
task: {name: bicaptioning, head: {hidden_size: 64}}
optim: {optimizer: adamw, lr: 0.003, backbone_lr: 0.003, lookahead_steps: 2}
run: {batch_size: 8, checkpoint_every: 20, validate_every: 0, log_every: 1, keep_checkpoints: 2,
  tensorboard: false, precision: fp32, device: cpu}
loader: {num_workers: 1}
"""
"""Options of the run but for its data; --config gives others."""


def main() -> int:
    """Prove it, and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=7)
    parser.add_argument("--kills_per_run", type=int, default=3)
    parser.add_argument("--kinds", default=KINDS)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nnodes", default="2", help="1:2 lets one node go on alone")
    parser.add_argument("--config", default=OPTIONS, help="file or text of the run's options")
    parser.add_argument("--share_store", action="store_true", help="torchrun's own default")
    parser.add_argument("--logs", type=Path, help="folder that keeps what the nodes wrote")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if (reason := why_not()) is not None:
        print(f"skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = Place(folder, options.logs or folder / "logs", *make_shards(folder))
        rows = prove(place, options)
    return report(rows)


class Place(NamedTuple):
    """The folders that all runs share."""

    folder: Path
    logs: Path
    store: Path
    manifest: Path


def prove(place: Place, options: argparse.Namespace) -> list[Blow]:
    """Train without a blow, then with blows, and return these."""
    rng = random.Random(options.seed)
    kinds = itertools.cycle(options.kinds.split(","))
    rows: list[Blow] = []
    expected, seconds, problem = train("whole", place, options, [], rng)
    if problem or not expected:
        sys.exit(f"the undisturbed run failed: {problem or 'no final checkpoint'}")
    print(f"undisturbed: {seconds:.0f} s, digest {expected[:16]}", flush=True)
    for run in itertools.count(1):
        number = min(options.kills_per_run, options.kills - len(rows))
        if not number:
            break
        blows = drawn(run, list(itertools.islice(kinds, number)), rng, last=options.steps)
        digest, seconds, problem = train(f"run-{run}", place, options, blows, rng)
        rows += blows
        for blow in blows:
            blow.equal = (digest == expected) if blow.kind != "gone" else bool(digest)
            print(line(blow), flush=True)
        print(f"run {run}: {seconds:.0f} s, {problem or f'digest {digest[:16]}'}", flush=True)
    return rows


def train(
    name: str, place: Place, options: argparse.Namespace, blows: list[Blow], rng: random.Random
) -> tuple[str, float, str]:
    """Train a run; return the digest of its final checkpoint, its seconds and what went wrong."""
    out, disks = place.folder / name, place.folder / "disks"
    folder, start, problem = RunFolder(out), time.monotonic(), ""
    with Cluster(place.store, disks=disks, logs=place.logs) as cluster:
        cluster.start(out, place.manifest, options)
        try:
            for blow in blows:
                reach(blow.step, folder, cluster)
                strike(blow, cluster, folder, rng, last=options.steps)
            while any(node.code is None for node in cluster.members):
                reach(options.steps, folder, cluster)
                time.sleep(POLL)
        except RuntimeError as error:
            problem = str(error)
    digest, seconds = digest_of(folder, options.steps), time.monotonic() - start
    for each in (out, disks):
        shutil.rmtree(each, ignore_errors=True)
    return digest, seconds, problem


def line(blow: Blow) -> str:
    """Return the table's line of a blow."""
    seconds = "never" if blow.seconds is None else f"{blow.seconds:.0f} s"
    words = ("not complete", "complete") if blow.kind == "gone" else ("NOT EQUAL", "equal")
    verdict, node = words[bool(blow.equal)], blow.node if blow.of_node else "-"
    away = f"{blow.away:.0f} s" if blow.away else "-"
    where = f"{blow.run:>3}  {blow.kind:<10} {node:<5} {blow.step:>5}"
    return f"{where}  {away:>6}  {seconds:>7}  {verdict}"


def report(rows: list[Blow]) -> int:
    """Print the table and its sums, and return the exit code."""
    print("\nrun  kind       node   step    away     lost  final checkpoint")
    for blow in rows:
        print(line(blow))
    for kind in sorted({blow.kind for blow in rows}):
        those = [blow for blow in rows if blow.kind == kind]
        lost = sorted(blow.seconds for blow in those if blow.seconds is not None)
        middle = f"{lost[len(lost) // 2]:.0f} s lost in the middle" if lost else "no end"
        equal = sum(blow.equal is True for blow in those)
        how = "a complete" if kind == "gone" else "an equal"
        print(f"{kind}: {len(those)} times, {middle}, {equal} in runs with {how} end")
    return int(not all(blow.equal for blow in rows))


if __name__ == "__main__":
    sys.exit(main())
