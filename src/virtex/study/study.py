"""A study: several pretraining runs, their transfer scores, and a table of these.

The recipe of a study lists the rows of the table, each with the options that differ from the
study's, and its columns. An interrupted study resumes: runs resume, and existing scores are kept.
Rows are independent, so that several processes or machines can divide a study by `--only`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from virtex import files
from virtex.engine.run import RunFolder
from virtex.pretrain import check
from virtex.pretrain_team import pretrain_in_team
from virtex.processes import Requested
from virtex.study.plan import Run, chosen_rows, left_out, planned_runs
from virtex.study.scores import check_scores, measurements
from virtex.study.study_config import StudyConfig
from virtex.study.table import table
from virtex.study.tuning import check_trials, trials, tune, tuned

log = logging.getLogger("virtex")
TABLE = "table.md"


def study(config: StudyConfig, *, processes: Requested = "auto") -> Path:
    """Run the missing parts of a study, write its table, and return the path of table.md.

    Args:
        processes: Number of processes that pretrain a row.

    Raises:
        ConfigError: Options of a row cannot work; raised before anything runs.
        DataError: The data are missing or broken; for the target, raised before anything runs.
    """
    runs = planned_runs(config)
    if absent := left_out(config):
        log.warning(
            "rows and columns whose data are not given are left out: --roots.%s DIR",
            " DIR, --roots.".join(absent),
        )
    check_all(config, runs)
    names = chosen_rows(config)
    for run in runs:
        if run.row.name in names:
            carry_out(run, config, processes)
    path = config.out / TABLE
    files.write(path, table(config, runs))
    return path


def check_all(config: StudyConfig, runs: Sequence[Run]) -> None:
    """Check the options of all rows and scores, and that what exists was made with them.

    Raises:
        ConfigError, DataError: see `study`.
    """
    checked: set[str] = set()
    for run in runs:
        planned = [trial.options for trial in trials(config, run)]
        planned += [tuned(config, run)] if run.is_pretrained else []
        for options in planned:
            # options that differ in seed, rate and length alone cannot work, or do, together
            if run.row.name not in checked or RunFolder(options.out).has_begun():
                check(options)
                checked.add(run.row.name)
    check_scores(config, runs)
    check_trials(config, runs)


def carry_out(run: Run, config: StudyConfig, processes: Requested) -> None:
    """Tune, pretrain or resume a run that lacks scores, and measure these."""
    missing = [one for one in measurements(config, run) if not one.path.exists()]
    if not missing:
        return
    if run.is_pretrained:
        tune(config, run, processes)
        if pretrain_in_team(tuned(config, run), processes).reason == "interrupted":
            raise KeyboardInterrupt
    for one in missing:
        one.carry_out()
