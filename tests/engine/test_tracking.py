import importlib.util
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sqlite3
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.toy import toy_fit, toy_task
from virtex.engine import tracking
from virtex.engine.run import RunConfig, RunFolder
from virtex.engine.tracked_run import TrackedRun
from virtex.engine.tracker_process import Follower, Job, finite_numbers, panels_of, work
from virtex.engine.tracking import check_tracker, facts_of, send_scores
from virtex.errors import ConfigError

STUB = Path(__file__).with_name("dashboard_stub.py")


def tracked_run(*, track: str = "trackio", num_steps: int = 6, **options: Any) -> RunConfig:
    return RunConfig(
        num_steps=num_steps, batch_size=8, log_every=1, checkpoint_every=4, tensorboard=False,
        device="cpu", track=track, **options,
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[Any]]]:
    """Put a stand-in before the real trackio; return a function that reads its calls."""
    path = tmp_path / "calls.jsonl"
    monkeypatch.setenv("CALLS", str(path))
    (tmp_path / "stubs").mkdir()
    shutil.copy(STUB, tmp_path / "stubs" / "trackio.py")
    monkeypatch.syspath_prepend(tmp_path / "stubs")
    monkeypatch.delitem(sys.modules, "trackio", raising=False)

    def read() -> list[list[Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read


def steps_of(calls: list[list[Any]]) -> list[int]:
    return [call[2] for call in calls if call[0] == "log"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_free(run: Path) -> bool:
    """Whether no process sends records of a run."""
    from virtex import files

    with (run / ".tracking.lock").open("a+b", buffering=0) as file:
        return files.take_lock(file)


def test_a_run_sends_options_and_records_and_keeps_its_name(
    tmp_path: Path,
    calls: Callable[[], list[list[Any]]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("virtex"), "propagate", True)
    caplog.set_level(logging.INFO, "virtex")
    toy_fit(toy_task(), RunFolder(tmp_path / "run"), tracked_run(project="my birds"))
    assert "trackio show --project 'my birds'" in caplog.text
    (name, options), *others = calls()
    tracked = TrackedRun.read(tmp_path / "run")
    assert tracked is not None
    assert (name, options["project"], options["resume"]) == ("init", "my birds", "allow")
    assert options["name"] == tracked.name == f"run-{tracked.id}"
    assert options["config"]["environment.device"] == "cpu"
    assert steps_of(others) == [1, 2, 3, 4, 5, 6]
    assert others[0][1]["train/loss"] > 0
    assert others[-1] == ["finish"]


def test_a_dashboard_that_raises_is_dropped_with_one_message(
    tmp_path: Path,
    calls: object,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("BEHAVIOR", "raises")
    assert toy_fit(toy_task(), RunFolder(tmp_path), tracked_run()).step == 6
    [message] = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert "(RuntimeError: the disk of the dashboard is full)" in message
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 6


def test_a_dashboard_that_blocks_delays_the_end_of_a_run_by_a_bounded_time(
    tmp_path: Path,
    calls: object,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("BEHAVIOR", "blocks")
    monkeypatch.setattr(tracking, "PATIENCE", 0.5)
    start = time.monotonic()
    assert toy_fit(toy_task(), RunFolder(tmp_path), tracked_run()).step == 6
    assert time.monotonic() - start < 20
    [message] = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert "(no answer for 0.5 s)" in message


def test_a_resumed_run_sends_what_is_missing_and_nothing_twice(
    tmp_path: Path, calls: Callable[[], list[list[Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    toy_fit(toy_task(), RunFolder(run), tracked_run(num_steps=4))
    first = TrackedRun.read(run)
    monkeypatch.setenv("BEHAVIOR", "raises")
    toy_fit(toy_task(), RunFolder(run), tracked_run(num_steps=8))
    monkeypatch.delenv("BEHAVIOR")
    (run / "checkpoints" / "step_00000008.pt").unlink()  # steps 5 to 8 are repeated
    toy_fit(toy_task(), RunFolder(run), tracked_run(num_steps=10))
    (run / "checkpoints" / "step_00000010.pt").unlink()
    toy_fit(toy_task(), RunFolder(run), tracked_run(num_steps=12))
    assert steps_of(calls()) == list(range(1, 13))
    names = {call[1]["name"] for call in calls() if call[0] == "init"}
    assert first is not None
    assert names == {first.name}


@pytest.mark.parametrize("behavior", ["raises", "blocks"])
def test_a_failure_amid_the_records_of_a_long_run_repeats_none_of_them(
    tmp_path: Path,
    calls: Callable[[], list[list[Any]]],
    monkeypatch: pytest.MonkeyPatch,
    behavior: str,
) -> None:
    TrackedRun.create(tmp_path, tracker="trackio", project="p", options="").write(tmp_path)
    lines = [json.dumps({"step": step, "train/loss": 1.0}) + "\n" for step in range(1, 9)]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    monkeypatch.setenv("BEHAVIOR", behavior)
    monkeypatch.setenv("FIRST_BAD", "5")
    assert tracking.Tracker(tmp_path, Job(str(tmp_path), 2.0)).finish(60) is not None
    tracked = TrackedRun.read(tmp_path)
    assert tracked is not None
    assert (tracked.step, tracked.num_records) == (4, 1)
    assert (["finish"] in calls()) == (behavior == "raises")  # sends what the library holds
    monkeypatch.delenv("BEHAVIOR")
    assert tracking.Tracker(tmp_path, Job(str(tmp_path), 60.0)).finish(60) is None
    assert steps_of(calls()) == list(range(1, 9))


def test_a_run_that_begins_again_with_other_options_is_new_on_the_dashboard(
    tmp_path: Path,
) -> None:
    facts = {"optim.lr": 0.1, "environment.host": "a"}
    first = tracking._tracked_run(tmp_path, tracked_run(), step=0, facts=facts)
    for step, lr, host in ((0, 0.1, "b"), (20, 0.2, "a")):
        now = {"optim.lr": lr, "environment.host": host}
        assert tracking._tracked_run(tmp_path, tracked_run(), step=step, facts=now) == first
    others = [
        tracking._tracked_run(tmp_path, tracked_run(), step=0, facts={"optim.lr": 0.2}),
        tracking._tracked_run(tmp_path, tracked_run(track="wandb"), step=20, facts=facts),
        tracking._tracked_run(tmp_path, tracked_run(project="b"), step=20, facts=facts),
    ]
    assert len({first.id, *(other.id for other in others)}) == 4


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"tracker": 1}'])
def test_a_damaged_identity_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tracking.json").write_bytes(content)
    assert TrackedRun.read(tmp_path) is None


def test_a_missing_package_is_refused_and_a_folder_of_its_name_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()  # as offline runs leave
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    assert importlib.util.find_spec("wandb") is not None
    with pytest.raises(ConfigError, match="not installed: pip install wandb"):
        check_tracker(tracked_run(track="wandb"))


@pytest.mark.parametrize("project", ["", "a/b", "a" * 129])
def test_a_project_that_a_dashboard_would_refuse_is_refused(project: str) -> None:
    with pytest.raises(ConfigError, match=r"project .* must have 1 to 128 letters"):
        tracked_run(project=project)


def test_only_finite_numbers_are_sent() -> None:
    record = {"step": 3, "a": 1.5, "b": None, "c": "text", "d": float("inf"), "e": 2}
    assert finite_numbers(record) == {"a": 1.5, "e": 2}


def test_records_that_are_not_whole_yet_are_read_later(tmp_path: Path) -> None:
    class Numbers:
        def __init__(self) -> None:
            self.sent: list[tuple[dict[str, float], int]] = []

        def log(self, numbers: dict[str, float], step: int) -> None:
            self.sent.append((numbers, step))

    from contextlib import nullcontext

    tracked = TrackedRun.create(tmp_path, tracker="trackio", project="p", options="")
    numbers, log_path = Numbers(), tmp_path / "log.jsonl"
    follower = Follower(tmp_path, tracked, numbers)  # type: ignore[arg-type]
    follower.send_new(nullcontext)  # there is no log yet
    for text in ('{"step": 1, "a": 1}\n{"step": 1, ', '"b": 2}\n{"step"', ': 2, "a": 3}\n'):
        with log_path.open("a") as file:
            file.write(text)
        follower.send_new(nullcontext)
    assert numbers.sent == [({"a": 1}, 1), ({"b": 2}, 1), ({"a": 3}, 2)]


def test_panels_of_another_step_are_not_sent(tmp_path: Path) -> None:
    sample = {"panel": "panels/a.jpg", "generated": "a cat", "captions": ["the cat"]}
    (tmp_path / "panels").mkdir()
    (tmp_path / "panels" / "a.jpg").touch()
    (tmp_path / "samples.json").write_text(json.dumps({"step": 3, "samples": [sample, {}]}))
    assert panels_of(tmp_path, 2) == {}
    (tmp_path / "samples.json").write_text(json.dumps({"step": 3, "samples": [sample]}))
    assert panels_of(tmp_path, 3) == {tmp_path / "panels" / "a.jpg": "a cat (reference: the cat)"}


def test_trackio_shows_a_killed_and_resumed_run_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = tmp_path / "run"

    def train() -> None:
        def stop(step: int) -> bool:
            if step == 8:
                wait_for(lambda: (TrackedRun.read(run) or tracked).step > 4)
                os.kill(os.getpid(), signal.SIGKILL)
            return False

        tracked = TrackedRun.create(run, tracker="trackio", project="", options="")
        toy_fit(toy_task(), RunFolder(run), tracked_run(num_steps=20), is_over=stop)

    trainer = multiprocessing.get_context("fork").Process(target=train)
    trainer.start()
    trainer.join(60)
    assert trainer.exitcode == -signal.SIGKILL
    wait_for(lambda: is_free(run))  # the rest was sent
    (run / "checkpoints" / "step_00000008.pt").unlink()  # steps 5 to 8 are repeated
    config = {"optim": {"lr": 0.25}}
    toy_fit(toy_task(), RunFolder(run), tracked_run(num_steps=12), config=config)
    send_scores(run, {"transfer/voc07/mAP": 81.5}, step=12)

    tracked = TrackedRun.read(run)
    assert tracked is not None
    with sqlite3.connect(tmp_path / "trackio" / "virtex.db") as database:
        rows = database.execute(
            "SELECT run_name, step, metrics FROM metrics ORDER BY id"
        ).fetchall()
        [(stored,)] = database.execute("SELECT config FROM configs").fetchall()
    database.close()
    assert {name for name, *_ in rows} == {tracked.name}
    assert [step for _, step, _ in rows] == [*range(1, 13), 12]
    assert json.loads(rows[-1][2]) == {"transfer/voc07/mAP": 81.5}
    assert json.loads(stored)["optim.lr"] == 0.25
    assert json.loads(stored)["environment.torch"] == torch.__version__


def test_wandb_keeps_an_offline_run_with_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MODE": "offline", "SILENT": "true", "DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    run = tmp_path / "run"
    facts = facts_of({"optim": {"lr": 0.25}}, torch.device("cpu"))
    run.mkdir()
    TrackedRun.create(run, tracker="wandb", project="p", options="").write(run)
    (run / "log.jsonl").write_text('{"step": 5, "train/loss": 1.5}\n{"step": 9, "val/loss": 2}\n')
    tracker = tracking.Tracker(run, Job(str(run), 60.0, facts))
    assert tracker.finish(60) is None
    send_scores(run, {"transfer/voc07/mAP": 81.5}, step=9)
    first, second = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    tracked = TrackedRun.read(run)
    assert tracked is not None
    records = whole_wandb(first)
    begin = next(record.run for record in records if record.HasField("run"))
    options = {item.key: json.loads(item.value_json) for item in begin.config.update}
    assert (begin.run_id, begin.display_name, begin.project) == (tracked.id, tracked.name, "p")
    assert options["optim.lr"] == 0.25
    curves = [
        {
            item.nested_key[0] or item.key: json.loads(item.value_json)
            for item in record.history.item
        }
        for record in records
        if record.HasField("history")
    ]
    assert [(row["_step"], row.get("train/loss"), row.get("val/loss")) for row in curves] == [
        (5, 1.5, None), (9, None, 2),
    ]  # fmt: skip
    summary = [
        (item.key or item.nested_key[0], item.value_json)
        for record in whole_wandb(second)
        for item in record.summary.update
    ]
    assert ("transfer/voc07/mAP", "81.5") in summary


def whole_wandb(path: Path) -> list[Any]:
    """Return the records of an offline run once its end is written, by a process of wandb's own."""
    end, records = time.monotonic() + 60, read_wandb(path)
    while not any(record.HasField("exit") for record in records):
        assert time.monotonic() < end, f"{path} has no end, but {len(records)} records"
        time.sleep(0.1)
        records = read_wandb(path)
    return records


def read_wandb(path: Path) -> list[Any]:
    """Return the records of an offline run: after 7 bytes, a log in LevelDB's format."""
    from wandb.proto import wandb_internal_pb2

    content, records, position, whole = path.read_bytes(), [], 7, b""
    while position + 7 <= len(content):
        rest = -position % 32768
        if 0 < rest < 7:  # too little for a header: the next block
            position += rest
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        if kind == 0:
            break
        whole += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return records


def test_scores_wait_for_no_run_that_trains(
    tmp_path: Path, calls: object, caplog: pytest.LogCaptureFixture
) -> None:
    from virtex import files

    TrackedRun.create(tmp_path, tracker="trackio", project="p", options="").write(tmp_path)
    with files.locked(tmp_path / ".tracking.lock", subject="the dashboard"):
        send_scores(tmp_path, {"transfer/voc07/mAP": 81.5}, step=9)
    assert "the dashboard is in use by process" in caplog.text


def test_a_job_without_an_identity_says_so(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"tracking\.json"):
        work(Job(str(tmp_path), 1.0), lambda: True)
