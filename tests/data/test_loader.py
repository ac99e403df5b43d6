"""Batches are a function of seed and step alone, and bad images are replaced, named and counted."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.oracles import loader as oracle
from virtex.data.example import Example, Source
from virtex.data.images import BadImageError, decode_image
from virtex.data.loader import (
    Batch,
    Encoded,
    LoaderConfig,
    TrainingBatches,
    validation_batches,
)
from virtex.data.loader import training_batches as batches_in_pieces
from virtex.data.order import permutation
from virtex.distributed import Share
from virtex.errors import ConfigError, DataError

IN_PROCESS = LoaderConfig(num_workers=0)


class Numbers(Source):
    """`count` examples, some of which cannot be read."""

    def __init__(self, count: int, bad: Sequence[int] = ()) -> None:
        self.count, self.bad = count, frozenset(bad)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        is_bad = index in self.bad
        image = Path(f"gone/{index}.jpg") if is_bad else np.zeros((2, 2, 3), np.uint8)
        return Example(str(index), image)

    def identity(self) -> dict[str, str | int]:
        return {"source": "numbers", "count": self.count}


def encode(example: Example, rng: np.random.Generator) -> Encoded:
    decode_image(example.image, name=example.location)
    number = torch.tensor(int(example.image_id))
    return {"number": number, "draw": torch.tensor(rng.random()), "pid": torch.tensor(os.getpid())}


def encode_threads(example: Example, rng: np.random.Generator) -> Encoded:
    return {"threads": torch.tensor(torch.get_num_threads())}


def encode_wrongly(example: Example, rng: np.random.Generator) -> Encoded:
    raise DataError("image 3 has no caption")


def collate(encoded: Sequence[Encoded]) -> Batch:
    return {key: torch.stack([item[key] for item in encoded]) for key in encoded[0]}


class Whole:
    """Training batches of one piece each."""

    def __init__(self, batches: TrainingBatches) -> None:
        self.batches = batches

    def __iter__(self) -> "Whole":
        return self

    def __next__(self) -> Batch:
        (batch,) = next(self.batches)
        return batch

    def __getattr__(self, name: str) -> object:
        return getattr(self.batches, name)


def training_batches(*arguments: object, **options: object) -> Whole:
    return Whole(batches_in_pieces(*arguments, **options))


def test_pieces_are_collated_by_themselves_and_join_to_the_batch() -> None:
    options = {"seed": 3, "batch_size": 12, "share": Share(1, 2), "config": IN_PROCESS}
    whole = next(training_batches(Numbers(20), encode, collate, **options))
    pieces = next(batches_in_pieces(Numbers(20), encode, collate, num_pieces=3, **options))
    assert [len(piece["number"]) for piece in pieces] == [2, 2, 2]
    for name, value in whole.items():
        assert torch.equal(torch.cat([piece[name] for piece in pieces]), value)
    with pytest.raises(ConfigError, match="2 processes with 4 pieces each"):
        batches_in_pieces(Numbers(20), encode, collate, num_pieces=4, **options)


def assert_same(ours: Batch, expected: Batch) -> None:
    for key in ("number", "draw"):
        assert torch.equal(ours[key], expected[key])


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("share", [Share(0, 1), Share(1, 2), Share(3, 4)])
def test_batches_equal_the_oracles_for_any_workers_and_ranks(
    num_workers: int, share: Share
) -> None:
    source = Numbers(21, bad=[4])
    ours = training_batches(
        source,
        encode,
        collate,
        seed=7,
        batch_size=8,
        start_step=3,
        share=share,
        config=LoaderConfig(num_workers=num_workers),
    )
    for step, batch in zip(range(3, 9), ours, strict=False):
        expected = oracle.training_batch(
            source,
            encode,
            collate,
            seed=7,
            step=step,
            batch_size=8,
            **share._asdict(),
        )
        assert_same(batch, expected)
    ours.close()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("share", [Share(0, 1), Share(0, 2), Share(1, 2)])
def test_validation_batches_equal_the_oracles(num_workers: int, share: Share) -> None:
    source = Numbers(21, bad=[0, 5, 20])
    config = LoaderConfig(num_workers=num_workers)
    ours = list(
        validation_batches(source, encode, collate, batch_size=4, share=share, config=config)
    )
    expected = list(
        oracle.validation_batches(source, encode, collate, batch_size=4, **share._asdict())
    )
    assert len(ours) == len(expected)
    for batch, twin in zip(ours, expected, strict=True):
        assert_same(batch, twin)


def test_the_ranks_together_validate_every_example_once() -> None:
    numbers = [
        number
        for rank in range(4)
        for batch in validation_batches(
            Numbers(21), encode, collate, batch_size=8, share=Share(rank, 4), config=IN_PROCESS
        )
        for number in batch["number"].tolist()
    ]
    assert sorted(numbers) == list(range(21))


def test_an_example_is_augmented_differently_in_each_epoch() -> None:
    batches = training_batches(Numbers(1), encode, collate, seed=0, batch_size=4, config=IN_PROCESS)
    assert len(set(next(batches)["draw"].tolist())) == 4


def test_global_randomness_is_neither_read_nor_moved() -> None:
    def first_batch() -> Batch:
        config = LoaderConfig(num_workers=1)
        return next(
            training_batches(Numbers(9), encode, collate, seed=1, batch_size=3, config=config)
        )

    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    batch = first_batch()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    torch.manual_seed(2)
    assert_same(first_batch(), batch)


def test_starting_late_costs_no_reading_of_what_went_before() -> None:
    source = Numbers(1_000_000)
    permutation(0, 0, len(source))
    start = time.process_time()
    batches = training_batches(
        source, encode, collate, seed=0, batch_size=10, start_step=99_000, config=IN_PROCESS
    )
    next(batches)
    assert time.process_time() - start < 0.1


def test_bad_images_are_named_and_counted_as_often_as_met(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Numbers(50, bad=[13])
    for num_workers in (0, 2):
        caplog.clear()
        batches = training_batches(
            source,
            encode,
            collate,
            seed=0,
            batch_size=10,
            config=LoaderConfig(num_workers=num_workers),
        )
        with caplog.at_level(logging.WARNING, logger="virtex"):
            numbers = torch.cat([batch["number"] for batch in islice(batches, 10)])
        assert 13 not in numbers
        assert len(numbers) == 100
        assert {location for location, _ in batches.bad_images} == {"gone/13.jpg"}
        assert batches.num_bad_uses >= 2
        assert "gone/13.jpg: No such file" in caplog.text
        batches.close()


def test_a_single_early_bad_image_stops_nothing() -> None:
    source = Numbers(2, bad=[0])
    batches = training_batches(source, encode, collate, seed=0, batch_size=2, config=IN_PROCESS)
    assert next(batches)["number"].tolist() == [1, 1]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_too_many_bad_images_stop_the_run(num_workers: int) -> None:
    config = LoaderConfig(num_workers=num_workers, bad_image_limit=0.01)
    batches = training_batches(
        Numbers(100, bad=range(0, 100, 10)), encode, collate, seed=0, batch_size=10, config=config
    )
    with pytest.raises(DataError, match=r"11 of \d+ examples .* 1\.00%.*gone/\d+\.jpg") as caught:
        list(islice(batches, 100))
    assert not isinstance(caught.value, BadImageError)
    assert "Traceback" not in str(caught.value)


def test_a_fraction_of_bad_images_within_the_limit_goes_on() -> None:
    config = LoaderConfig(num_workers=0, bad_image_limit=0.11)
    batches = training_batches(
        Numbers(100, bad=range(0, 100, 10)), encode, collate, seed=0, batch_size=10, config=config
    )
    assert len(list(islice(batches, 300))) == 300
    assert batches.num_bad_uses > 250


def test_a_limit_of_zero_allows_no_bad_image() -> None:
    config = LoaderConfig(num_workers=0, bad_image_limit=0.0)
    with pytest.raises(DataError, match="bad_image_limit"):
        next(
            training_batches(
                Numbers(4, bad=[2]), encode, collate, seed=0, batch_size=4, config=config
            )
        )


@pytest.mark.parametrize("num_workers", [0, 1])
def test_data_that_is_all_bad_stops_at_once(num_workers: int) -> None:
    source, config = Numbers(10**6, bad=range(10**6)), LoaderConfig(num_workers=num_workers)
    batches = training_batches(source, encode, collate, seed=0, batch_size=256, config=config)
    with pytest.raises(DataError, match="drawn in a row"):
        next(batches)
    with pytest.raises(DataError):
        list(validation_batches(source, encode, collate, batch_size=256, config=config))


def test_a_small_validation_set_that_is_all_bad_is_an_error() -> None:
    with pytest.raises(DataError, match="none of the 5 examples"):
        list(
            validation_batches(
                Numbers(5, bad=range(5)), encode, collate, batch_size=2, config=IN_PROCESS
            )
        )


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_the_annotations_arrives_as_it_was_raised(num_workers: int) -> None:
    config = LoaderConfig(num_workers=num_workers)
    batches = training_batches(
        Numbers(4), encode_wrongly, collate, seed=0, batch_size=2, config=config
    )
    with pytest.raises(DataError) as caught:
        next(batches)
    assert str(caught.value) == "image 3 has no caption"


def test_workers_use_one_thread_each() -> None:
    config = LoaderConfig(num_workers=1)
    batches = training_batches(
        Numbers(4), encode_threads, collate, seed=0, batch_size=4, config=config
    )
    assert next(batches)["threads"].tolist() == [1] * 4
    batches.close()


def test_closing_early_ends_the_workers() -> None:
    config = LoaderConfig(num_workers=2)
    batches = training_batches(Numbers(500), encode, collate, seed=0, batch_size=5, config=config)
    workers = {int(pid) for batch in islice(batches, 6) for pid in batch["pid"]}
    assert len(workers) == 2
    start = time.monotonic()
    batches.close()
    assert time.monotonic() - start < 5
    assert not any(is_running(pid) for pid in workers)
    assert next(batches, None) is None


def test_leaving_validation_early_ends_the_workers() -> None:
    config = LoaderConfig(num_workers=1)
    batches = validation_batches(Numbers(500), encode, collate, batch_size=5, config=config)
    worker = int(next(batches)["pid"][0])
    del batches
    assert not is_running(worker)


def test_workers_die_with_a_killed_main_process() -> None:
    program = (
        "import time\n"
        "from tests.data.test_loader import *\n"
        "batches = training_batches(Numbers(500), encode, collate, seed=0, batch_size=5,\n"
        "                           config=LoaderConfig(num_workers=2))\n"
        "print(*{int(pid) for batch in islice(batches, 6) for pid in batch['pid']}, flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root
    ) as main:
        assert main.stdout is not None
        workers = [int(pid) for pid in main.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(is_running, workers))
        main.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 20
        while any(map(is_running, workers)) and time.monotonic() < deadline:
            time.sleep(0.2)
    assert not any(map(is_running, workers))


def test_a_batch_that_cannot_be_split_is_an_error() -> None:
    with pytest.raises(ConfigError, match="batch_size 6 must be a multiple of the 4"):
        training_batches(Numbers(9), encode, collate, seed=0, batch_size=6, share=Share(0, 4))


def test_a_negative_seed_is_an_error() -> None:
    with pytest.raises(ConfigError, match="seed -1"):
        training_batches(Numbers(9), encode, collate, seed=-1, batch_size=6)


def test_an_empty_source_is_an_error() -> None:
    with pytest.raises(DataError, match="no examples"):
        training_batches(Numbers(0), encode, collate, seed=0, batch_size=2)


def test_all_wrong_loader_options_are_reported_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)num_workers -1.*prefetch 0.*bad_image_limit 2"):
        LoaderConfig(num_workers=-1, prefetch=0, bad_image_limit=2)


def is_running(pid: int) -> bool:
    """Whether a process lives; one that ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_repetitions_of_an_example_are_changed_in_other_ways() -> None:
    batches = training_batches(
        Numbers(3), encode, collate, seed=0, batch_size=9, repeats=np.full(3, 3.0),
        config=IN_PROCESS,
    )  # fmt: skip
    batch = next(batches)
    assert sorted(batch["number"].tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(set(batch["draw"].tolist())) == 9


def test_a_repetition_shares_its_randomness_with_no_other_use_of_an_example() -> None:
    batches = training_batches(
        Numbers(3), encode, collate, seed=5, batch_size=9, repeats=np.full(3, 3.0),
        config=IN_PROCESS,
    )  # fmt: skip
    draws = set(next(batches)["draw"].tolist())
    own, others = (
        {
            torch.tensor(np.random.default_rng([5, 0, index, *more]).random()).item()
            for index in range(3)
            for more in streams
        }
        for streams in ([()], [(1,), (2,)])
    )
    assert own < draws
    assert not others & draws
