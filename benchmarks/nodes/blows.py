"""The disturbances of a run: what they do to a node or to the store, and what they cost."""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from benchmarks.nodes.cluster import Cluster, Node, Service
from benchmarks.nodes.shards import AHEAD
from virtex.engine.run import RunFolder

LASTING = ("network", "pause")
OF_STORE = ("store", "stall")
KINDS = "rank,node,network,pause,store,stall,store+node"
WAITS = {"network": (2.0, 12.0), "pause": (2.0, 12.0), "store": (5.0, 40.0), "stall": (5.0, 40.0)}
"""Bounds in seconds of a lost network and a pause, and of how long a run stands still before its
store comes back: only then did the outage outlast the shards that were fetched ahead."""
POLL = 0.01
TIMEOUT = 240.0
"""Seconds without a new step after which a run counts as hanging."""


@dataclass
class Blow:
    """One disturbance, and what came of it."""

    run: int
    kind: str
    node: str
    step: int
    away: float = 0.0
    """Seconds of a pause or of a lost network, or for which the run stood still without a store."""
    seconds: float | None = None
    """Time until the run was further than at the blow, or, for an outage of the store, than where
    it stood still; None if it never was."""
    equal: bool | None = None

    @property
    def of_store(self) -> str:
        """Part of the kind that strikes the store; "" if none does."""
        return next((part for part in self.kind.split("+") if part in OF_STORE), "")

    @property
    def of_node(self) -> str:
        """Part of the kind that strikes a node; "" if none does."""
        return next((part for part in self.kind.split("+") if part not in OF_STORE), "")


def drawn(run: int, kinds: list[str], rng: random.Random, *, last: int) -> list[Blow]:
    """Return blows at random steps, from which the run still needs the store if that is struck."""
    blows = [Blow(run, kind, rng.choice("ab"), 0) for kind in kinds]
    latest = last - AHEAD * sum(bool(blow.of_store) for blow in blows)
    if latest <= len(blows):
        sys.exit(f"{last} steps are too few for {', '.join(kinds)}: give more --steps")
    for blow, step in zip(blows, sorted(rng.sample(range(1, latest), len(blows))), strict=True):
        blow.step = step
    return blows


def strike(
    blow: Blow, cluster: Cluster, folder: RunFolder, rng: random.Random, *, last: int
) -> None:
    """Disturb node and store, mend them, and wait until the run is further than it was."""
    node = next(node for node in cluster.nodes if node.name.endswith(blow.node))
    start, blow.step = time.monotonic(), newest(folder)
    step, part = blow.step, blow.of_store or blow.of_node
    blow.away = rng.uniform(*WAITS[part]) if part in WAITS else 0.0
    with store_away(blow.of_store, cluster.store):
        with disturbed(blow.of_node, node, cluster):
            if blow.of_node in LASTING:
                time.sleep(blow.away)
        if blow.of_store:
            step, start = stand_still(blow.away, folder, cluster)
    if step >= last:
        raise RuntimeError(f"the run ended without noticing {blow.kind} at step {blow.step}")
    reach(min(step + 2, last), folder, cluster)  # the step that was under way may still count
    blow.seconds = time.monotonic() - start


@contextmanager
def disturbed(kind: str, node: Node, cluster: Cluster) -> Iterator[None]:
    """Disturb a node within the block; then let it work, with a new agent if that died."""
    rank = node.rank()
    if kind in ("rank", "pause") and rank is not None:
        os.kill(rank, signal.SIGKILL if kind == "rank" else signal.SIGSTOP)
    elif kind == "network":
        cluster.cut(node, up=False)
    elif kind in ("node", "gone"):  # its peers hear nothing of it, as if it lost its power
        cluster.cut(node, up=False)
        node.kill()
    if kind == "gone":
        cluster.members.remove(node)
    yield
    if kind == "pause" and rank is not None:
        with suppress(ProcessLookupError):
            os.kill(rank, signal.SIGCONT)
    elif kind in ("network", "node"):
        cluster.cut(node, up=True)
    if kind == "node":  # another machine in its place, whose disk is empty
        shutil.rmtree(node.disk, ignore_errors=True)
        node.start()


@contextmanager
def store_away(kind: str, store: Service) -> Iterator[None]:
    """Kill or pause the store within the block."""
    if kind:
        store.send(signal.SIGKILL if kind == "store" else signal.SIGSTOP)
    yield
    if kind == "store":
        store.start()
    elif kind == "stall":
        store.send(signal.SIGCONT)


def stand_still(seconds: float, folder: RunFolder, cluster: Cluster) -> tuple[int, float]:
    """Wait until no step was finished for so long or an agent ended; return step and time of it."""
    step, since = newest(folder), time.monotonic()
    while time.monotonic() < since + seconds and all(each.code is None for each in cluster.members):
        time.sleep(POLL)
        if (now := newest(folder)) != step:
            step, since = now, time.monotonic()
    return step, since


def reach(step: int, folder: RunFolder, cluster: Cluster) -> None:
    """Wait until a step is logged or the run has ended.

    Raises:
        RuntimeError: An agent has failed, or no step is finished for long.
    """
    seen, since = newest(folder), time.monotonic()
    while (now := newest(folder)) < step:
        codes = [node.code for node in cluster.members]
        if all(code == 0 for code in codes):
            return
        if failed := [node.name[-1] for node in cluster.members if node.code]:
            raise RuntimeError(f"the agent of node {failed[0]} failed at step {now}")
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() > since + TIMEOUT:
            raise RuntimeError(f"no step after {now} within {TIMEOUT:.0f} s")
        time.sleep(POLL)


def newest(folder: RunFolder) -> int:
    """Return the last step that is logged; 0 if there is none."""
    with suppress(OSError):
        for text in reversed(folder.log_path.read_bytes().splitlines(keepends=True)):
            with suppress(ValueError):
                return int(json.loads(text)["step"])
    return 0
