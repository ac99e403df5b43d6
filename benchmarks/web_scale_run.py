"""A run on two packed data sets in a store, by 1, 2 and 4 processes, killed and resumed.

    python -m benchmarks.web_scale_run --flickr FLICKR8K --fashion FASHION

Both (COCO layout) are packed, served by a local server as s3://, indexed, and mixed 0.6 to 0.4. It
compares the digest of each global batch (images, tokens, indices) between 1, 2 and 4 processes, and
the weights of a run in two processes with those of one that was killed and resumed, and of one
whose store refused all reads for some seconds at a time.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch
import yaml

from tests.data.shards.ranged_server import BUCKET, RangedServer
from tests.small_run import OPTIONS
from virtex.data.loader import LoaderConfig, training_batches
from virtex.data.shards.remote import open_remote
from virtex.data.source import open_source
from virtex.distributed import Share
from virtex.engine import checkpoint
from virtex.models.backbone import Backbone
from virtex.pretrain import PretrainConfig, parse_pretrain
from virtex.tasks.base import TaskData
from virtex.vocabulary import open_tokenizer

NUM_STEPS, BATCH_SIZE = 120, 64
OUTAGE_SECONDS = 6
RUN = f"""
data: {{num_images: 8000, num_val_images: 1000, image_size: 96, source: webdataset}}
tokenizer: {{vocab_size: 1000}}
run: {{batch_size: {BATCH_SIZE}, num_steps: {NUM_STEPS}, checkpoint_every: 20, validate_every: 0,
  sync_batch_norm: false}}
loader: {{num_workers: 1}}
"""


def main() -> None:
    """Pack, serve, compare and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flickr", type=Path, required=True)
    parser.add_argument("--fashion", type=Path, required=True)
    parser.add_argument("--shard_size", type=int, default=250)
    parser.add_argument("--steps", type=int, default=40, help="batches whose digests are compared")
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| measured | result |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for what, result in measured(Path(folder), options):
            print(f"| {what} | {result} |", flush=True)


def measured(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield what was measured, and the result."""
    store = folder / "store"
    for name in ("flickr", "fashion"):
        start = time.perf_counter()
        pack(getattr(options, name), store / name, options.shard_size)
        shards = sorted((store / name / "train").glob("*.tar"))
        size = sum(path.stat().st_size for path in shards)
        seconds = time.perf_counter() - start
        yield f"pack {name}", f"{len(shards)} shards, {size / 1e6:.0f} MB, {seconds:.0f} s"
    with RangedServer(store) as server:
        os.environ.update(server.environment)
        mix = {}
        for name, weight in (("flickr", 0.6), ("fashion", 0.4)):
            manifest = folder / f"{name}.manifest"
            virtex("index", f"s3://{BUCKET}/{name}/train", "--out", str(manifest))
            mix[str(manifest)] = weight
        yield from digests_agree(config(folder, mix), options.steps)
        yield from kills_change_nothing(folder, mix, options.kills)
        yield from outages_change_nothing(folder, mix, server, options.kills)
        requests = [each for each in server.requests if each[1].endswith(".tar")]
        yield "ranged reads of shards in all", f"{len(requests):,}"


def digests_agree(options: PretrainConfig, num_steps: int) -> Iterator[tuple[str, str]]:
    """Yield the number of batches that 1, 2 and 4 processes see alike."""
    digests = {number: batch_digests(options, number, num_steps) for number in (1, 2, 4)}
    equal = sum(len(set(steps)) == 1 for steps in zip(*digests.values(), strict=True))
    yield "batches alike in 1, 2 and 4 processes", f"{equal} of {num_steps}"


def batch_digests(options: PretrainConfig, num_processes: int, num_steps: int) -> list[str]:
    """Return the digest of each global batch, as so many processes read it."""
    parts: list[list[dict[str, torch.Tensor]]] = [[] for _ in range(num_steps)]
    for rank in range(num_processes):
        share = Share(rank, num_processes)
        run, data = options.run, options.data
        remote = open_remote(
            data,
            seed=run.seed,
            batch_size=run.batch_size,
            share=share,
            num_on_node=num_processes,
        )
        assert remote is not None
        with closing(remote):
            source = open_source(data, split="train", remote=remote)
            assert source is not None
            tokenizer = open_tokenizer(options.tokenizer, source)
            backbone = Backbone(options.backbone)
            task = options.task.build(backbone, TaskData(options.image, tokenizer))
            remote.follow(0)
            stream = training_batches(
                source,
                task.encode,
                lambda encoded: dict(enumerate_encoded(encoded)),
                seed=run.seed,
                batch_size=run.batch_size,
                share=share,
                config=LoaderConfig(num_workers=0),
                num_lanes=data.num_lanes,
            )
            with closing(stream):
                for step, pieces in enumerate(islice(stream, num_steps)):
                    remote.advance(step)
                    parts[step] += pieces
    return [digest(step) for step in parts]


def enumerate_encoded(encoded: list[dict[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a batch, one after the other, whatever their shapes."""
    for name in encoded[0]:
        yield name, torch.cat([item[name].flatten() for item in encoded])


def digest(parts: list[dict[str, torch.Tensor]]) -> str:
    """Return a digest of the parts of a batch."""
    total = hashlib.sha256()
    for name in sorted(parts[0]):
        total.update(torch.cat([part[name] for part in parts]).numpy().tobytes())
    return total.hexdigest()


def kills_change_nothing(
    folder: Path, mix: dict[str, float], num_kills: int
) -> Iterator[tuple[str, str]]:
    """Yield whether a killed and resumed run has the weights of one that was not."""
    start = time.perf_counter()
    train(folder, mix, "whole")
    seconds = time.perf_counter() - start
    for kill in range(num_kills):
        process = started(folder, mix, "killed")
        wait_for_step(folder / "killed", 20 * (kill + 1))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    train(folder, mix, "killed")
    whole, killed = (final_weights(folder / name) for name in ("whole", "killed"))
    equal = all(torch.equal(whole[name], killed[name]) for name in whole)
    rate = NUM_STEPS * BATCH_SIZE / seconds
    yield "run in 2 processes", f"{seconds:.0f} s, {rate:.0f} images/s with the start"
    yield f"its weights after {num_kills} kills and resumes", "equal" if equal else "DIFFERENT"
    for number in (1, 4):
        train(folder, mix, f"by_{number}", processes=number)
        apart = max(map(abs, differences(folder / "whole", folder / f"by_{number}")))
        yield f"largest difference of a loss, {number} and 2 processes", f"{apart:.1e}"


def outages_change_nothing(
    folder: Path, mix: dict[str, float], server: RangedServer, count: int
) -> Iterator[tuple[str, str]]:
    """Yield whether a run whose store is stopped now and then ends with the same weights."""
    shutil.rmtree(folder / "cache")
    process = started(folder, mix, "stopped")
    num_failed = 0
    for outage in range(count):
        wait_for_step(folder / "stopped", 20 * outage) if outage else time.sleep(9)
        for shard in (folder / "cache").glob("?" * 64):  # so that shards are needed
            shutil.rmtree(shard, ignore_errors=True)
        with server.lock:
            server.faults.num_failed = 10**6
        time.sleep(OUTAGE_SECONDS)
        with server.lock:
            num_failed += 10**6 - server.faults.num_failed
            server.faults.num_failed = 0
    if process.wait():
        raise SystemExit((folder / "stopped.err").read_text()[-3000:])
    whole, stopped = (final_weights(folder / name) for name in ("whole", "stopped"))
    equal = all(torch.equal(whole[name], stopped[name]) for name in whole)
    what = f"its weights after {count} outages of {OUTAGE_SECONDS} s, {num_failed} reads refused"
    yield what, "equal" if equal else "DIFFERENT"


def differences(first: Path, second: Path) -> Iterator[float]:
    """Yield the relative differences of the training losses of two runs."""
    for one, other in zip(losses(first), losses(second), strict=True):
        yield (one - other) / one


def losses(run: Path) -> list[float]:
    """Return the training losses of a run."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def wait_for_step(run: Path, step: int) -> None:
    """Wait until a run has written the checkpoint of a step, and a little longer."""
    while not (run / "checkpoints" / f"step_{step:08}.pt").exists():
        time.sleep(0.05)
    time.sleep(0.7)


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a run's last checkpoint."""
    state: dict[str, torch.Tensor] = checkpoint.load(
        run / "checkpoints" / f"step_{NUM_STEPS:08}.pt"
    )["task"]
    return state


def config(folder: Path, mix: dict[str, float]) -> PretrainConfig:
    """Return the options of the run."""
    return parse_pretrain([*flags(folder, mix), "--out", str(folder / "options")])


def flags(folder: Path, mix: dict[str, float]) -> list[str]:
    """Return the options of the run as flags."""
    no_batch_norm = yaml.safe_dump({"backbone": {"options": {"norm_layer": "groupnorm1"}}})
    data = yaml.safe_dump({"data": {"mix": mix, "cache_dir": str(folder / "cache")}})
    layers = [OPTIONS, RUN, no_batch_norm, data]
    head = ["--task.head.dropout", "0", "--num_samples", "0"]
    return [*(word for layer in layers for word in ("--config", layer)), *head]


def started(
    folder: Path, mix: dict[str, float], name: str, *, processes: int = 2
) -> subprocess.Popen[bytes]:
    """Start a run in a process group of its own."""
    command = ["pretrain", *flags(folder, mix), "--out", str(folder / name)]
    command += ["--processes", str(processes)] if processes < 3 else []
    launcher = [sys.executable, "-m"]
    if processes > 2:  # more than cores, which --processes refuses
        launcher += ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    return subprocess.Popen(
        [*launcher, "virtex.cli", *command],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=(folder / f"{name}.err").open("ab"),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def train(folder: Path, mix: dict[str, float], name: str, *, processes: int = 2) -> None:
    """Train a run to its end, from wherever it is."""
    process = started(folder, mix, name, processes=processes)
    if process.wait():
        raise SystemExit((folder / f"{name}.err").read_text()[-3000:])


def pack(data: Path, out: Path, shard_size: int) -> None:
    """Pack a data set in COCO's layout."""
    virtex(
        "pack", "--data.source", "coco", "--data.root", str(data), "--out", str(out),
        "--split", "train", "--shard_size", str(shard_size),
    )  # fmt: skip


def virtex(*arguments: str) -> None:
    """Run a command of the package."""
    done = subprocess.run([sys.executable, "-m", "virtex.cli", *arguments], capture_output=True)
    if done.returncode:
        raise SystemExit(done.stderr.decode()[-3000:])


if __name__ == "__main__":
    main()
