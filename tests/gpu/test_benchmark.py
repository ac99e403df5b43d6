"""The report on a GPU, `python -m benchmarks.gpu --toy`, in parts and on the CPU."""

import json
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import compiled_steps, solvers, step_profile, steps
from benchmarks.gpu.__main__ import SECTIONS, part_of
from benchmarks.gpu.commands import speeds
from benchmarks.gpu.jobs import Events, Skipped
from benchmarks.gpu.marked_tests import REASON, RESULT, marked_files, verdict
from benchmarks.gpu.photographs import captions_folder
from benchmarks.gpu.real import steps_in
from benchmarks.gpu.report import table, write_report
from benchmarks.gpu.runner import Section, run_section
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.stopwatch import Stopwatch
from benchmarks.gpu.training import halving
from benchmarks.gpu.worker import run_jobs
from virtex.data.source import SourceConfig, open_source
from virtex.data.source_options import Needs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def toy(tmp_path: Path) -> Settings:
    return Settings(tmp_path, "cpu", is_toy=True, batch_size=4)


@pytest.fixture
def events(tmp_path: Path) -> Events:
    return Events(tmp_path / "events.jsonl")


def test_no_job_loses_another(tmp_path: Path, toy: Settings, events: Events) -> None:
    section = Section("fragile", "Fragile", "tests.gpu.fragile_jobs", 1)
    path = tmp_path / "settings.json"
    toy.write(path)
    run_section(
        section,
        events,
        settings=path,
        log=tmp_path / "log",
        deadline=time.time() + 60,
        watch=lambda: None,
    )
    assert [row["speed"] for row in events.rows("fragile")] == [1.5, 2.5, 3.5, 3.5, 1.5]
    problems = dict(events.problems("fragile"))
    assert "ValueError: out of memory" in problems["fails"]
    assert "exit code 3" in problems["dies"]
    assert "limit" in problems["hangs"]
    assert problems["skips"] == "skipped: no GPU"
    assert "no time left" in problems["long"]
    write_report(tmp_path, [section], events, facts={"date": "today"})
    report = json.loads((tmp_path / "gpu.json").read_text())["sections"]["fragile"]
    assert len(report["rows"]) == len(report["problems"]) == 5
    assert "| 1.5 |" in (tmp_path / "gpu.md").read_text()


def test_each_network_is_measured_beside_its_bare_backbone(toy: Settings, events: Events) -> None:
    jobs = steps.jobs(toy, events)
    run_jobs([jobs[0], jobs[3]], events, section="steps", deadline=time.time() + 60)
    assert events.problems("steps") == []
    rows = events.rows("steps")
    assert [row["step"] for row in rows] == ["bare", "task"] * 2
    assert all(float(row["images_per_second"]) > 0 for row in rows)
    assert all(row["of_bare"] == 1 for row in rows[::2])
    batch, seconds = steps.plain_figures(steps.NETWORKS[0], rows, toy)
    assert batch == 4
    assert seconds == pytest.approx(float(rows[0]["ms"]) / 1000)


def test_the_operations_of_a_step_are_listed(toy: Settings, events: Events) -> None:
    jobs = step_profile.jobs(toy, events)
    run_jobs(jobs, events, section="profile", deadline=time.time() + 60)
    assert events.problems("profile") == []
    *operations, whole, host, step = events.rows("profile")
    times = [float(row["ms"]) for row in operations]
    assert times == sorted(times, reverse=True)
    assert sum(float(row["part"]) for row in operations) <= 1
    convolution = next(row for row in operations if "convolution_backward" in str(row["operation"]))
    assert convolution["calls"] == 13  # of the toy's one block a stage
    assert 0 < sum(times) <= float(whole["ms"])
    assert min(float(host["ms"]), float(step["ms"])) > 0


def test_a_compiled_step_is_measured_beside_the_plain_one(toy: Settings, events: Events) -> None:
    run_jobs(steps.jobs(toy, events)[:1], events, section="steps", deadline=time.time() + 60)
    jobs = compiled_steps.jobs(toy, events)
    run_jobs(jobs, events, section="compiled", deadline=time.time() + 60)
    assert events.problems("compiled") == []
    (row,) = events.rows("compiled")
    assert row["compile"] == "task"
    assert row["breaks"] == 0
    assert float(row["of_bare"]) > 0


def test_a_batch_is_halved_until_it_fits() -> None:
    def attempt(batch_size: int) -> str:
        if batch_size > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "fits"

    assert halving(attempt, 128) == ("fits", 32)


def test_decoding_and_svms_are_measured(toy: Settings, events: Events) -> None:
    run_jobs(solvers.jobs(toy, events), events, section="solvers", deadline=time.time() + 60)
    assert events.problems("solvers") == []
    assert len(events.rows("solvers")) == 5


def test_drawn_photographs_are_read_as_coco(toy: Settings) -> None:
    folder = captions_folder(toy)
    source = open_source(
        SourceConfig(source="coco", root=folder), split="train", needs=Needs(captions=True)
    )
    assert source is not None
    lengths = [len(text.split()) for index in range(48) for text in source.captions(index)]
    assert len(lengths) == 5 * 48
    assert 9 < sum(lengths) / len(lengths) < 13  # COCO's, without start and end
    assert captions_folder(toy) == folder


def test_records_are_weighed_by_their_time() -> None:
    made = [
        {"speed/images_per_second": rate, "speed/data_wait": wait, "step": 10}
        for rate, wait in ((100, 0.5), (300, 0.0))
    ]
    assert speeds(made)["images_per_second"] == pytest.approx(150)
    assert speeds(made)["data_wait"] == pytest.approx(0.375)


def test_results_of_pytest_are_read() -> None:
    match = RESULT.match("[gw1] [  3%] SKIPPED tests/gpu/test_steps.py::test_x[a b] ")
    assert match
    assert match.groups() == ("SKIPPED", "tests/gpu/test_steps.py::test_x[a b]")
    reason = REASON.match(
        "FAILED tests/gpu/test_steps.py::test_x - RuntimeError: called a synchronizing"
    )
    assert reason
    assert reason[1] == "tests/gpu/test_steps.py::test_x"
    assert reason[3].startswith("RuntimeError")
    reason = REASON.match("SKIPPED [48] tests/conftest.py:32: this machine has no GPU")
    assert reason
    assert reason[2] == "tests/conftest.py:32"
    assert ROOT / "tests/gpu/test_steps.py" in marked_files(ROOT / "tests")
    verdict(["PASSED", "SKIPPED"], 0)
    with pytest.raises(AssertionError, match="exit code 4"):
        verdict([], 4)
    with pytest.raises(AssertionError, match="1 of 2 tests failed"):
        verdict(["PASSED", "FAILED"], 1)
    with pytest.raises(Skipped, match="no GPU"):
        verdict(["SKIPPED"], 0)


def test_the_first_sections_get_what_they_need() -> None:
    assert SECTIONS[-1].seconds == 0
    assert part_of(3600, Section("", "", "", 100)) == 150
    assert part_of(120, Section("", "", "", 100)) == 120
    assert part_of(120, Section("", "", "", 100), kept=50) == 70
    assert part_of(480, SECTIONS[-1], kept=50) == 480
    assert part_of(-1, SECTIONS[0]) == part_of(-1, SECTIONS[-1]) == 0


def test_a_peak_of_memory_is_that_of_the_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    most = [0]
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: most.clear())
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: max(most, default=0))
    watch = Stopwatch(torch.device("cuda"), num_warmup=1, window=1, num_windows=1)
    for memory in (9, 5, 7):  # bytes: of the warm-up, of the window, of what comes later
        watch.step()
        most.append(memory * 2**30)
    assert watch.memory_gib() == 5


def test_a_stopwatch_that_was_stopped_early_says_so() -> None:
    watch = Stopwatch(torch.device("cpu"), num_warmup=1, window=1)
    watch.step()
    with pytest.raises(RuntimeError, match="stopped before"):
        watch.step_seconds()


def test_a_run_is_as_long_as_the_time_left(tmp_path: Path) -> None:
    settings = Settings(tmp_path, "cuda", batch_size=256)
    assert steps_in(600, 2560, settings) == 5400
    with pytest.raises(Skipped, match="no time left"):
        steps_in(10, 2560, settings)


def test_a_table_has_the_columns_of_all_rows() -> None:
    made = table([{"a_b": 1, "c": 0.12345}, {"a_b": 12345.6, "d": "x|y"}])
    assert made.splitlines() == [
        "| a b | c | d |",
        "| --- | --- | --- |",
        "| 1 | 0.123 |  |",
        "| 12,346 |  | x\\|y |",
    ]
