"""A study: several pretraining runs, their transfer scores, and a table and a page of these.

The recipe of a study lists the rows of the table, each with the options that differ from the
study's, and its columns. An interrupted study resumes: runs resume, and existing scores are kept.
Rows are independent, so that several processes or machines can divide a study by `--only`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from virtex import files
from virtex.errors import listing
from virtex.pretrain_team import pretrain_in_team
from virtex.processes import Requested
from virtex.study.checks import check_all, check_same_images
from virtex.study.mistakes import Mistakes
from virtex.study.page import study_page
from virtex.study.plan import (
    Run,
    is_to_run,
    left_out,
    planned_runs,
    scored_by_last,
    with_found_seeds,
)
from virtex.study.scores import empty_cells, measurements
from virtex.study.study_config import StudyConfig
from virtex.study.summary import summarize
from virtex.study.table import table
from virtex.study.tuning import tune, tuned

log = logging.getLogger("virtex")
TABLE, PAGE = "table.md", "report.html"
TABLE_LOCK = ".table.lock"
TABLE_PATIENCE = 600.0
"""Seconds for which the table is waited for while another process writes it."""


def study(config: StudyConfig, *, processes: Requested = "auto") -> Path:
    """Run the missing parts of a study, and return the path of its table, table.md.

    The table and the page, report.html, are written after each run, so that an interrupted study
    has them too.

    Args:
        processes: Number of processes that pretrain a row.

    Raises:
        ConfigError, DataError, CheckpointError: Options, data or weights of rows or columns cannot
            work; raised before anything runs.
        VirTexError: A part failed, as where training diverged; raised after all others are done.
    """
    runs = planned_runs(config)
    if absent := left_out(config):
        log.warning(
            "rows and columns whose data are not given are left out: --roots.%s DIR",
            " DIR, --roots.".join(absent),
        )
    check_all(config, runs)
    for score, rows in empty_cells(config, runs).items():
        log.info(
            "score %r needs captions, so its cells stay empty for %s", score, listing(rows, limit=8)
        )
    if short := scored_by_last(config, runs):
        log.info(
            "best_from %s is after the last step of %s: their last checkpoints are scored",
            f"{config.best_from:,}", listing(short, limit=8),
        )  # fmt: skip
    failures = Mistakes()
    for run in runs:
        if is_to_run(config, run) and carry_out(run, runs, config, processes, failures):
            check_same_images(with_found_seeds(config, runs))
            write(config, runs)
    path = write(config, runs)
    failures.raise_all("some parts failed; all others are done, and the same command tries again")
    return path


def write(config: StudyConfig, runs: Sequence[Run]) -> Path:
    """Write the table and the page of the scores that exist, and return the table's path.

    Other processes may share the folder: their seeds are listed again each time, and the lock lets
    the last of them that writes see the scores of all.
    """
    path, lock = config.out / TABLE, config.out / TABLE_LOCK
    with files.locked(lock, subject=f"the table {path}", patience=TABLE_PATIENCE):
        runs = with_found_seeds(config, runs)
        summary = summarize(config, runs)
        files.write(config.out / PAGE, study_page(summary, runs, title=config.out.resolve().name))
        files.write(path, table(summary))
    return path


def carry_out(
    run: Run,
    runs: Sequence[Run],
    config: StudyConfig,
    processes: Requested,
    failures: Mistakes,
) -> bool:
    """Tune, pretrain or resume a run that lacks scores, and measure these.

    Args:
        runs: All of the study.
        failures: Takes the errors of what fails, which other parts do not need.

    Returns:
        Whether it lacked any.
    """
    missing = [one for one in measurements(config, run) if not one.path.exists()]
    if not missing:
        return False
    name, before = f"row {run.row.name!r}, seed {run.seed}", len(failures.errors)
    if run.is_pretrained:
        with failures.of(name):
            tune(config, run, processes, runs)
            if pretrain_in_team(tuned(config, run), processes).reason == "interrupted":
                raise KeyboardInterrupt
    if len(failures.errors) == before:
        for one in missing:
            with failures.of(f"{name}, {one.path.stem} of score {one.score.name!r}"):
                one.carry_out()
    for error in failures.errors[before:]:
        log.error("%s failed, and other parts go on: %s", name, error)
    return True
