"""Batches of sources in shards: alike for any number of processes, bad examples replaced alike."""

import hashlib
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.sources.manifests import write_manifest, write_shards
from virtex.data.example import Example
from virtex.data.fault_log import FaultLog
from virtex.data.images import decode_image
from virtex.data.loader import Batch, Encoded, LoaderConfig, TrainingBatches, training_batches
from virtex.data.shards.manifest import Manifest
from virtex.data.sources.mixed import MixedSource
from virtex.data.sources.shards import ShardedSource
from virtex.distributed import Share
from virtex.errors import DataError

BAD = ["000000005", "000000006", "000000017"]


def encode(example: Example, rng: np.random.Generator) -> Encoded:
    image = decode_image(example.image, name=example.location)
    caption = torch.frombuffer(bytearray(example.captions[0].ljust(40).encode()), dtype=torch.uint8)
    return {
        "image": torch.tensor(image[:2, :2]),
        "text": caption,
        "draw": torch.tensor(rng.random()),
    }


def collate(encoded: Sequence[Encoded]) -> Batch:
    return {key: torch.stack([item[key] for item in encoded]) for key in encoded[0]}


def opened(root: Path, sizes: Sequence[int] = (9, 14, 9), bad: Sequence[str] = ()) -> ShardedSource:
    write_shards(root, sizes, bad=bad)
    return ShardedSource(Manifest.read(write_manifest(root)))


def batches(
    source: ShardedSource | MixedSource,
    *,
    start_step: int = 0,
    share: Share = Share(),
    num_workers: int = 0,
    fault_limit: float = 1.0,
    fault_log: FaultLog | None = None,
) -> TrainingBatches:
    return training_batches(
        source,
        encode,
        collate,
        seed=3,
        batch_size=8,
        start_step=start_step,
        share=share,
        config=LoaderConfig(num_workers=num_workers),
        num_lanes=4,
        fault_limit=fault_limit,
        fault_log=fault_log,
    )


def digests(streams: Sequence[TrainingBatches], number: int) -> list[str]:
    """A hash of each batch, of which each stream has a part."""
    found = []
    for parts in islice(zip(*streams, strict=True), number):
        digest = hashlib.sha256()
        for name in parts[0][0]:
            digest.update(torch.cat([pieces[0][name] for pieces in parts]).numpy().tobytes())
        found.append(digest.hexdigest())
    return found


@pytest.mark.parametrize("is_mixed", [False, True])
def test_one_two_and_four_processes_see_equal_batches(tmp_path: Path, is_mixed: bool) -> None:
    source: ShardedSource | MixedSource = opened(tmp_path / "a", bad=BAD)
    if is_mixed:
        source = MixedSource([opened(tmp_path / "b"), source], [2, 1])
    expected = digests([batches(source)], 12)
    assert len(set(expected)) == 12
    for size in (2, 4):
        parts = [batches(source, share=Share(rank, size)) for rank in range(size)]
        assert digests(parts, 12) == expected
    assert digests([batches(source, start_step=5)], 7) == expected[5:]


def test_workers_change_nothing(tmp_path: Path) -> None:
    source = opened(tmp_path, bad=BAD)
    stream = batches(source, num_workers=2)
    assert digests([stream], 6) == digests([batches(source)], 6)
    stream.close()


def test_a_bad_example_is_replaced_by_the_next_in_its_shard(tmp_path: Path) -> None:
    source = opened(tmp_path, bad=BAD)
    seen = [index for pieces in islice(batches(source), 8) for index in pieces[0]["index"].tolist()]
    assert not {5, 6, 17} & set(seen)
    twice = {index for index in seen[:32] if seen[:32].count(index) > 1}
    assert twice <= {7, 18}
    assert seen[:32].count(7) == 3


def test_bad_examples_are_listed_with_their_step(tmp_path: Path) -> None:
    source, log = opened(tmp_path / "data", bad=BAD), FaultLog(tmp_path / "run")
    [*islice(batches(source, fault_log=log), 4)]
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert {line["id"] for line in lines} == {
        "00000.tar/000000005", "00000.tar/000000006", "00001.tar/000000017"
    }  # fmt: skip
    assert all(1 <= line["step"] <= 4 and line["reason"] for line in lines)
    assert log.path == tmp_path / "run" / "faults.jsonl"


def test_too_many_bad_examples_end_the_run(tmp_path: Path) -> None:
    source = opened(tmp_path, bad=BAD)
    with pytest.raises(DataError, match=r"\d of \d+ .* 0.00% that data.fault_limit allows"):
        [*islice(batches(source, fault_limit=0.0), 4)]


def test_a_resumed_list_has_each_bad_example_once(tmp_path: Path) -> None:
    for step in range(1, 5):
        FaultLog(tmp_path, start_step=step).add(step, [(f"0.tar/{step}", "no image")])
    with (tmp_path / "faults.jsonl").open("a") as file:
        file.write('{"step": 4, "id"')
    resumed = FaultLog(tmp_path, start_step=2)
    resumed.add(3, [("0.tar/3", "no image")])
    resumed.add(3, [])
    lines = [json.loads(line) for line in resumed.path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert FaultLog(tmp_path, rank=3).path.name == "faults.3.jsonl"


def test_training_goes_on_where_the_list_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = FaultLog(tmp_path / "file")
    (tmp_path / "file").write_text("no folder")
    for step in (1, 2):
        blocked.add(step, [("0.tar/1", "no image")])
    assert caplog.text.count("cannot write") == 1
