"""The processes of a run by the variables of torchrun and SLURM, and their meeting."""

import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed import Store
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from virtex import cli, launcher, rendezvous
from virtex.errors import ConfigError
from virtex.launcher import Launch, launch_of
from virtex.rendezvous import meet

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "first", "MASTER_PORT": "29500"}  # fmt: skip
BATCH_SCRIPT = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "2", "SLURM_PROCID": "0",
                "SLURM_LOCALID": "0", "SLURM_NNODES": "1", "SLURM_NODELIST": "n01"}  # fmt: skip
STEP = {**BATCH_SCRIPT, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_STEP_NODELIST": "rack[02-03]n[07,09],z"}  # fmt: skip
IN_STEP = Launch(3, 4, 1, 2, "rack02n07", 24711)
ADDRESS = {"MASTER_ADDR": "chosen", "MASTER_PORT": "1234"}
ONE_NODE = {"SLURM_STEP_NUM_NODES": "1"}


@pytest.fixture(autouse=True)
def _no_earlier_warning() -> None:
    launcher._warn_once.cache_clear()


@pytest.mark.parametrize(
    ("environment", "has_terminal", "expected"),
    [
        ({}, False, Launch()),
        ({"WORLD_SIZE": "1", "RANK": "0"}, False, Launch()),
        (TORCHRUN, False, Launch(3, 8, 1, 2, "first", 29500)),
        ({**STEP, **TORCHRUN}, False, Launch(3, 8, 1, 2, "first", 29500)),
        (BATCH_SCRIPT, False, Launch()),
        ({**BATCH_SCRIPT, **ADDRESS}, False, Launch()),
        ({**BATCH_SCRIPT, "SLURM_STEP_ID": "4294967290"}, True, Launch()),
        (STEP, False, IN_STEP),
        ({**STEP, **ONE_NODE}, False, IN_STEP._replace(host="127.0.0.1")),
        ({**STEP, **ADDRESS}, False, IN_STEP._replace(host="chosen", port=1234)),
        ({**STEP, **ADDRESS, "WORLD_SIZE": "4"}, True, IN_STEP._replace(host="chosen", port=1234)),
        (STEP, True, Launch()),
    ],
)
def test_the_variables_say_which_process_this_is(
    environment: dict[str, str], has_terminal: bool, expected: Launch
) -> None:
    assert launch_of(environment, has_terminal=has_terminal) == expected


@pytest.mark.parametrize(("environment", "terminal"), [(BATCH_SCRIPT, False), (STEP, True)])
def test_a_process_that_is_alone_in_a_job_of_several_tasks_says_so(
    environment: dict[str, str], terminal: bool, caplog: pytest.LogCaptureFixture
) -> None:
    launch_of(environment, has_terminal=terminal)
    assert "`srun virtex ...` starts all" in caplog.text


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "RANK, MASTER_ADDR, MASTER_PORT is not set"),
        ({**TORCHRUN, "MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({**TORCHRUN, "WORLD_SIZE": "two", "RANK": "-1"}, "(?s)'two'.*RANK is '-1'"),
        ({**TORCHRUN, "WORLD_SIZE": "0"}, "from 1 to"),
        ({**TORCHRUN, "RANK": "8"}, "rank 8 must be below"),
        ({**TORCHRUN, "MASTER_PORT": "0"}, "MASTER_PORT is '0'.* from 1 to 65,535"),
        ({**TORCHRUN, "MASTER_PORT": "99999"}, "'99999'.*65,535"),
        ({**TORCHRUN, "LOCAL_RANK": "1e3"}, "LOCAL_RANK is '1e3'"),
        ({**STEP, "WORLD_SIZE": "8"}, "srun started 4 tasks"),
        ({**STEP, "SLURM_STEP_NODELIST": ""}, "set MASTER_ADDR"),
    ],
)
def test_variables_that_cannot_work_are_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        launch_of(environment)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_processes_that_do_not_come_are_named_and_waited_for_within_a_bound(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("FIRST_REPORT", "REPORT_EVERY"):  # on a busy machine the second may come late
        monkeypatch.setattr(rendezvous, name, 0.1)
    launches = [Launch(rank, 4, host="127.0.0.1", port=port) for rank in range(2)]
    refusals: list[str] = []

    def come(launch: Launch) -> None:
        with pytest.raises(ConfigError) as caught:
            meet(launch, patience=timedelta(seconds=1))
        refusals.append(str(caught.value))

    threads = [threading.Thread(target=come, args=(launch,)) for launch in launches]
    with caplog.at_level(logging.INFO, logger="virtex"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    where = f"2 of 4 processes at 127.0.0.1:{port}"
    assert f"waiting for {where} (rank 2, 3)" in caplog.text
    assert [where in refusal for refusal in refusals] == [True, True]


@pytest.mark.parametrize("rank", [0, 1])
def test_an_address_without_a_listener_is_an_error(rank: int, port: int) -> None:
    host = "no-such-host.invalid" if rank == 0 else "127.0.0.1"
    with pytest.raises(ConfigError, match="MASTER_ADDR"):
        meet(Launch(rank, 2, host=host, port=port), patience=timedelta(seconds=0.5))


def test_each_attempt_meets_for_itself_in_a_store_that_outlives_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = rendezvous.serve()
    monkeypatch.setenv(rendezvous.AGENT, "True")
    launches = [Launch(rank, 2, host="127.0.0.1", port=store.port) for rank in range(2)]

    def attempt() -> list[Store]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda each: meet(each, patience=timedelta(seconds=20)), launches))

    first = attempt()
    first[0].set("address", "old")
    with pytest.raises(ConfigError, match=r"1 of 2 .*\(rank 0\)"):  # of that attempt
        meet(launches[1], patience=timedelta(seconds=0.5))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "3")  # of the first process alone
    second = attempt()
    assert not second[1].check(["address"])
    second[0].set("address", "new")
    assert second[1].get("address") == b"new"


def test_a_store_of_torchrun_that_is_gone_is_an_error_with_a_remedy(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(rendezvous.AGENT, "True")
    with pytest.raises(ConfigError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        meet(Launch(1, 2, host="127.0.0.1", port=port), patience=timedelta(seconds=0.5))


@pytest.mark.parametrize("text", ["", "x", "-1", "9" * 20])
def test_a_strange_number_of_restarts_is_none(text: str) -> None:
    assert launcher.num_restarts({"TORCHELASTIC_RESTART_COUNT": text}) == 0


def test_torchrun_repeats_the_error_that_ended_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    assert cli.main(["pretrian"]) == 2
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(path))
    assert (
        "ConfigError: unknown command 'pretrian'"
        in ChildFailedError("virtex", {0: failure}).format_msg()
    )
