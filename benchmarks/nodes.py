"""Kill ranks and nodes of a run on two nodes many times, and compare its end bit for bit.

    python benchmarks/nodes.py --kills 30

The nodes are network namespaces on one machine, which needs Linux, root and `ip`: each has an
address of its own, an agent of torchrun and one process of the run. A third address holds the
rendezvous, as a login node would; the run folder is shared. At random steps a rank is killed or
paused, a node dies and another comes in its place, or its network loses all packets for some
seconds. Each run must end with the final checkpoint of the undisturbed one, to the bit; else the
exit code is 1.

    python benchmarks/nodes.py --nnodes 1:2 --kinds gone --kills 2 --kills_per_run 1

loses a node for good, and the other one must complete the run alone.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import torch

from virtex.engine import checkpoint
from virtex.engine.run import RunFolder

ROOT = Path(__file__).parents[1]
PORT = 29400
SUBNET = "10.83.17"
STORE = 1
"""Last number of the address that holds the rendezvous, and the data once they are remote."""
SERVE = (
    "import sys, time; from torch.distributed import TCPStore; "
    "store = TCPStore(sys.argv[1], int(sys.argv[2]), is_master=True, wait_for_workers=False, "
    "multi_tenant=True); print('ready', flush=True); time.sleep(1e6)"
)
OPTIONS = """
data: {num_images: 24, num_val_images: 0, image_size: 64}
tokenizer: {vocab_size: 250}
image: {size: 64}
backbone: {name: resnet18, options: {layers: [1, 1, 1, 1], channels: [8, 8, 16, 16]}}
task: {name: bicaptioning, head: {hidden_size: 64}}
optim: {optimizer: adamw, lr: 0.003, backbone_lr: 0.003, lookahead_steps: 2}
run: {batch_size: 8, checkpoint_every: 20, validate_every: 0, log_every: 1, keep_checkpoints: 2,
  tensorboard: false, precision: fp32, device: cpu}
loader: {num_workers: 1}
"""
"""Options of the run; --config gives others. Data in a remote store belong here, and their server
into `Cluster.__enter__`, which can then stop it as another kind of blow."""
SMALLEST_WAIT, LONGEST_WAIT = 2.0, 12.0
"""Seconds of a pause and of a lost network."""
LASTING = ("network", "pause")
POLL = 0.01
TIMEOUT = 240.0
"""Seconds without a new step after which a run counts as hanging."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--kills_per_run", type=int, default=3)
    parser.add_argument("--kinds", default="rank,node,network,pause")
    parser.add_argument("--steps", type=int, default=300)
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
    with tempfile.TemporaryDirectory() as folder:
        rows = prove(options, Path(folder))
    return report(rows)


def why_not() -> str | None:
    """Return the reason why this machine cannot have two nodes, or None."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "network namespaces need Linux and the program ip"
    name = f"virtex-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespace can be made here ({made.stderr.strip()})"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


@dataclass
class Blow:
    """One disturbance, and what came of it."""

    run: int
    kind: str
    node: str
    step: int
    seconds: float | None = None
    """Time until the run was further than at the blow; None if it never was."""
    equal: bool | None = None


@dataclass
class Node:
    """A machine of the cluster: a network namespace with processes of its own."""

    name: str
    address: str
    log: IO[bytes]
    agent: subprocess.Popen[bytes] | None = None
    command: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Start the agent."""
        self.agent = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *self.command],
            start_new_session=True, stdout=self.log, stderr=self.log,
            env={**os.environ, **self.environment},
        )  # fmt: skip

    @property
    def code(self) -> int | None:
        """Exit code of the agent; None while it runs."""
        return None if self.agent is None else self.agent.poll()

    def processes(self) -> list[int]:
        """Return the numbers of all processes of the namespace."""
        return [int(line) for line in output("ip", "netns", "pids", self.name).split()]

    def rank(self) -> int | None:
        """Return the process of the run that trains; None if there is none."""
        assert self.agent is not None
        for process in self.processes():
            with suppress(OSError):
                parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]
                words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
                if int(parent) == self.agent.pid and b"virtex.cli" in words:
                    return process
        return None

    def kill(self) -> None:
        """Kill all of the node's processes."""
        while left := self.processes():
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            if self.agent is not None:
                self.agent.wait()
            time.sleep(0.02)


class Cluster:
    """Two nodes and a third address, joined by a bridge; all ends with the block."""

    def __init__(self, logs: Path) -> None:
        number = os.getpid()
        self.names = [f"virtex-{number}-{letter}" for letter in "sab"]
        logs.mkdir(parents=True, exist_ok=True)
        self.nodes = [
            Node(name, f"{SUBNET}.{STORE + index}", (logs / f"node-{name[-1]}.log").open("ab"))
            for index, name in enumerate(self.names)
        ]
        self.store, self.members = self.nodes[0], self.nodes[1:]

    def __enter__(self) -> "Cluster":
        try:
            self._connect()
            self._serve()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        existing = output("ip", "netns", "list").split()
        for node in self.nodes:
            if node.name in existing:
                node.kill()
                output("ip", "netns", "delete", node.name)
            node.log.close()

    def _connect(self) -> None:
        for name in self.names:
            output("ip", "netns", "add", name)
            output("ip", "-n", name, "link", "set", "lo", "up")
        store = self.store.name
        output("ip", "-n", store, "link", "add", "bridge", "type", "bridge")
        output("ip", "-n", store, "addr", "add", f"{self.store.address}/24", "dev", "bridge")
        output("ip", "-n", store, "link", "set", "bridge", "up")
        for node in self.members:
            port = f"port-{node.name[-1]}"
            output(
                "ip", "-n", node.name, "link", "add", "eth0", "type", "veth",
                "peer", "name", port, "netns", store,
            )  # fmt: skip
            output("ip", "-n", store, "link", "set", port, "master", "bridge", "up")
            output("ip", "-n", node.name, "addr", "add", f"{node.address}/24", "dev", "eth0")
            output("ip", "-n", node.name, "link", "set", "eth0", "up")

    def _serve(self) -> None:
        """Serve the rendezvous on the third address."""
        command = [sys.executable, "-c", SERVE, self.store.address, str(PORT)]
        self.store.agent = subprocess.Popen(
            ["ip", "netns", "exec", self.store.name, *command],
            start_new_session=True, stdout=subprocess.PIPE, stderr=self.store.log,
        )  # fmt: skip
        assert self.store.agent.stdout is not None
        assert self.store.agent.stdout.readline() == b"ready\n", "no rendezvous is served"

    def cut(self, node: Node, *, up: bool) -> None:
        """Let the network of a node lose all packets, without a word to anyone, or carry them."""
        port = f"port-{node.name[-1]}"
        output("ip", "-n", self.store.name, "link", "set", port, "up" if up else "down")

    def run(self, out: Path, options: argparse.Namespace) -> None:
        """Start the agents of a run."""
        for node in self.members:
            node.command = [
                sys.executable, "-m", "torch.distributed.run", "--nnodes", options.nnodes,
                "--nproc_per_node", "1", "--max-restarts", "100", "--rdzv_backend", "c10d",
                "--rdzv_endpoint", f"{self.store.address}:{PORT}", "--rdzv_id", out.name,
                "--rdzv_conf", "is_host=0,last_call_timeout=5", "--local_addr", node.address,
                "-m", "virtex.cli", "pretrain", "--config", options.config, "--out", str(out),
                "--run.num_steps", str(options.steps),
                *(("--run.elastic",) if ":" in options.nnodes else ()),
            ]  # fmt: skip
            share = "0" if options.share_store else "1"
            node.environment = {
                "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1",
                "GLOO_SOCKET_IFNAME": "eth0", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": share,
            }  # fmt: skip
            node.start()


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def prove(options: argparse.Namespace, folder: Path) -> list[Blow]:
    """Train without a blow, then with blows, and return these."""
    rng = random.Random(options.seed)
    logs = options.logs or folder / "logs"
    kinds = itertools.cycle(options.kinds.split(","))
    rows: list[Blow] = []
    expected, seconds, problem = train(folder / "whole", logs, options, [], rng)
    if problem or not expected:
        sys.exit(f"the undisturbed run failed: {problem or 'no final checkpoint'}")
    print(f"undisturbed: {seconds:.0f} s, digest {expected[:16]}", flush=True)
    for run in itertools.count(1):
        number = min(options.kills_per_run, options.kills - len(rows))
        if not number:
            return rows
        steps = sorted(rng.sample(range(1, options.steps), number))
        blows = [Blow(run, next(kinds), rng.choice("ab"), step) for step in steps]
        out = folder / f"run-{run}"
        digest, seconds, problem = train(out, logs, options, blows, rng)
        rows += blows
        for blow in blows:
            blow.equal = (digest == expected) if blow.kind != "gone" else bool(digest)
            print(line(blow), flush=True)
        print(f"run {run}: {seconds:.0f} s, {problem or f'digest {digest[:16]}'}", flush=True)
        shutil.rmtree(out, ignore_errors=True)
    raise AssertionError


def train(
    out: Path,
    logs: Path,
    options: argparse.Namespace,
    blows: list[Blow],
    rng: random.Random,
) -> tuple[str, float, str]:
    """Train a run; return the digest of its final checkpoint, its seconds and what went wrong."""
    folder, start, problem = RunFolder(out), time.monotonic(), ""
    with Cluster(logs) as cluster:
        cluster.run(out, options)
        try:
            for blow in blows:
                reach(blow.step, folder, cluster)
                strike(blow, cluster, folder, rng, last=options.steps)
            while any(node.code is None for node in cluster.members):
                reach(options.steps, folder, cluster)
                time.sleep(POLL)
        except RuntimeError as error:
            problem = str(error)
    return digest_of(folder, options.steps), time.monotonic() - start, problem


def strike(
    blow: Blow, cluster: Cluster, folder: RunFolder, rng: random.Random, *, last: int
) -> None:
    """Disturb a node, mend it, and wait until the run is further than it was."""
    node = next(node for node in cluster.nodes if node.name.endswith(blow.node))
    start, blow.step = time.monotonic(), newest(folder)
    with disturbed(blow.kind, node, cluster):
        if blow.kind in LASTING:
            time.sleep(rng.uniform(SMALLEST_WAIT, LONGEST_WAIT))
    reach(min(blow.step + 2, last), folder, cluster)  # the step that was under way may still count
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
    if kind == "node":
        node.start()


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


def digest_of(folder: RunFolder, step: int) -> str:
    """Return a digest of all numbers of the final checkpoint; "" if there is none."""
    path = folder.checkpoints.at(step)
    if not path.exists():
        return ""
    digest = hashlib.sha256()
    for name, value in sorted(leaves({**checkpoint.load(path), "config": None})):
        digest.update(f"{name}={value}\n".encode())
    return digest.hexdigest()


def leaves(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Return the names of all values within a checkpoint, and what they are."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from leaves(each, f"{name}.{index}")
    elif isinstance(value, torch.Tensor):
        content = value.flatten().contiguous().view(torch.uint8).numpy()
        yield name, f"{value.dtype} {list(value.shape)} {hashlib.sha256(content).hexdigest()}"
    else:
        yield name, repr(value)


def line(blow: Blow) -> str:
    seconds = "never" if blow.seconds is None else f"{blow.seconds:.0f} s"
    words = ("not complete", "complete") if blow.kind == "gone" else ("NOT EQUAL", "equal")
    verdict = words[bool(blow.equal)]
    return f"{blow.run:>3}  {blow.kind:<8} {blow.node:<5} {blow.step:>5}  {seconds:>7}  {verdict}"


def report(rows: list[Blow]) -> int:
    """Print the table and its sums, and return the exit code."""
    print("\nrun  kind     node   step     lost  final checkpoint")
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
