"""Two nodes of one machine, as network namespaces, and a third that serves them.

The third one, as a login node would, holds the rendezvous of torchrun and the store of the shards.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.nodes.shards import PORT as STORE_PORT
from benchmarks.nodes.shards import ROOT, serve_command
from tests.data.shards.ranged_server import environment_of

PORT = 29400
SUBNET = "10.83.17"
RENDEZVOUS = (
    "import sys, time; from torch.distributed import TCPStore; "
    "store = TCPStore(sys.argv[1], int(sys.argv[2]), is_master=True, wait_for_workers=False, "
    "multi_tenant=True); print('ready', flush=True); time.sleep(1e6)"
)


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
class Node:
    """A machine of the cluster: a network namespace with processes and a disk of its own."""

    name: str
    address: str
    log: IO[bytes]
    disk: Path
    agent: subprocess.Popen[bytes] | None = None
    command: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start the agent."""
        self.agent = self.run(self.command, stdout=self.log)

    def run(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command],
            start_new_session=True, stderr=self.log, cwd=ROOT,
            env={**os.environ, **self.environment}, **options,
        )  # fmt: skip
        self.started.append(process)
        return process

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
            for each in self.started:
                each.wait()
            time.sleep(0.02)


@dataclass
class Service:
    """A program on a node that prints a line once it is ready."""

    node: Node
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program, and wait until it is ready."""
        self.process = self.node.run(self.command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        with self.process.stdout as words:
            assert words.readline(), f"{self.command[:4]} did not start"

    def send(self, number: signal.Signals) -> None:
        """Send the program a signal; after SIGKILL it is gone."""
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()


class Cluster:
    """Two nodes and one that serves them, joined by a bridge; all ends with the block.

    Args:
        shards: Folder that the store serves.
        disks: Folder of the nodes' own disks.
    """

    def __init__(self, shards: Path, *, disks: Path, logs: Path) -> None:
        number = os.getpid()
        self.names = [f"virtex-{number}-{letter}" for letter in "sab"]
        logs.mkdir(parents=True, exist_ok=True)
        self.nodes = [
            Node(
                name, f"{SUBNET}.{index}",
                (logs / f"node-{name[-1]}.log").open("ab"), disks / name[-1],
            )
            for index, name in enumerate(self.names, start=1)
        ]  # fmt: skip
        self.login, self.members = self.nodes[0], self.nodes[1:]
        self.login.environment = {"PYTHONPATH": str(ROOT / "src")}
        address = self.login.address
        rendezvous = [sys.executable, "-c", RENDEZVOUS, address, str(PORT)]
        self.rendezvous = Service(self.login, rendezvous)
        self.store = Service(self.login, serve_command(shards, address))

    def __enter__(self) -> "Cluster":
        try:
            self._connect()
            self.rendezvous.start()
            self.store.start()
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
        login = self.login.name
        output("ip", "-n", login, "link", "add", "bridge", "type", "bridge")
        output("ip", "-n", login, "addr", "add", f"{self.login.address}/24", "dev", "bridge")
        output("ip", "-n", login, "link", "set", "bridge", "up")
        for node in self.members:
            port = f"port-{node.name[-1]}"
            output(
                "ip", "-n", node.name, "link", "add", "eth0", "type", "veth",
                "peer", "name", port, "netns", login,
            )  # fmt: skip
            output("ip", "-n", login, "link", "set", port, "master", "bridge", "up")
            output("ip", "-n", node.name, "addr", "add", f"{node.address}/24", "dev", "eth0")
            output("ip", "-n", node.name, "link", "set", "eth0", "up")

    def cut(self, node: Node, *, up: bool) -> None:
        """Let the network of a node lose all packets, without a word to anyone, or carry them."""
        port = f"port-{node.name[-1]}"
        output("ip", "-n", self.login.name, "link", "set", port, "up" if up else "down")

    def start(self, out: Path, manifest: Path, options: argparse.Namespace) -> None:
        """Start the agents of a run."""
        for node in self.members:
            node.command = [
                sys.executable, "-m", "torch.distributed.run", "--nnodes", options.nnodes,
                "--nproc_per_node", "1", "--max-restarts", "100", "--rdzv_backend", "c10d",
                "--rdzv_endpoint", f"{self.login.address}:{PORT}", "--rdzv_id", out.name,
                "--rdzv_conf", "is_host=0,last_call_timeout=5", "--local_addr", node.address,
                "-m", "virtex.cli", "pretrain", "--config", options.config, "--out", str(out),
                "--run.num_steps", str(options.steps), "--data.source", "webdataset",
                "--data.root", str(manifest), "--data.cache_dir", str(node.disk / "shards"),
                *(("--run.elastic",) if ":" in options.nnodes else ()),
            ]  # fmt: skip
            share = "0" if options.share_store else "1"
            node.environment = {
                **environment_of(f"http://{self.login.address}:{STORE_PORT}"),
                "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1",
                "GLOO_SOCKET_IFNAME": "eth0", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": share,
            }  # fmt: skip
            node.start()


def output(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
