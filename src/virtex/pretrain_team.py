"""Pretraining by the processes that `--processes` asks for."""

from virtex.engine.loop import FitResult
from virtex.engine.run import RunFolder
from virtex.engine.work import work_of_run
from virtex.errors import VirTexError
from virtex.pretrain import PretrainConfig, check, pretrain
from virtex.processes import Requested, choose
from virtex.run_data import RunData
from virtex.supervisor import DeadProcessError, spread


def pretrain_in_team(config: PretrainConfig, requested: Requested) -> FitResult:
    """Train or resume a run in processes that this one starts; see `pretrain`.

    Raises:
        VirTexError: What `pretrain` raises; wrong options before any process is started. Or a
            process died; the message names the step that the same command goes on from.
    """
    team = choose(requested, work_of_run(config.run, began_with=_began_with(config)))
    if team is not None and team.number > 1:
        check(config)
    try:
        return spread(pretrain, config, team)
    except DeadProcessError as error:
        step = max(RunFolder(config.out).checkpoints.steps(), default=0)
        raise VirTexError(f"{error}: step {step:,}") from error


def _began_with(config: PretrainConfig) -> int | None:
    """Return the number of processes of the run that is resumed; None for a new run."""
    folder = RunFolder(config.out)
    if not folder.has_begun():
        return None
    data = RunData.read(folder.path)
    return (data and data.num_processes) or 1
