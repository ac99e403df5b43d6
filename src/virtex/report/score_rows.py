"""Rows of a comparison: results of the same weights, one for each random seed."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from virtex.report.same_data import grouped
from virtex.report.weights import plain_path, weights_key
from virtex.transfer.protocol import Result, digest

Row = list[Result]
OF_CHECKPOINT = frozenset({"step", "sha256", "backbone"})
"""Parts of an origin that may differ within a run: results of early stopping have no SHA-256, and
those of version 0.1 no backbone either."""


def rows_of(results: Sequence[Result]) -> tuple[list[Row], list[Row]]:
    """Return the rows by descending mean, and rows of the results that one of them represents.

    A run is represented by one checkpoint: of those with the most seeds, the one with the best
    mean. Several results of the same weights and seed are represented by the first.
    """
    chosen, others = Row(), Row()
    for run in _runs(results):
        if not _is_one_run(run):
            chosen += run
            continue
        checkpoints = grouped(_completed(run), lambda result: result.initialisation.get("step"))
        best = max(checkpoints, key=_rank)
        for checkpoint in checkpoints:
            (chosen if checkpoint is best else others).extend(checkpoint)
    shown = set(map(weights_key, chosen))
    groups = grouped([*chosen, *others], weights_key)
    rows = [_one_per_seed(group) for group in groups if weights_key(group[0]) in shown]
    superseded = [_one_per_seed(group) for group in groups if weights_key(group[0]) not in shown]
    superseded += [[result] for group in groups for result in _repeated(group)]
    return sorted(rows, key=mean, reverse=True), superseded


def mean(row: Sequence[Result]) -> float:
    """Return the mean score of a row."""
    return fmean(result.score for result in row)


def _runs(results: Sequence[Result]) -> list[Row]:
    """Return the results of each run, also where INIT is spelled in several ways.

    Such spellings have weights in common. So has a copy of a run that was trained differently from
    there on, which stays a run of its own.
    """
    runs: list[Row] = []
    for group in grouped(results, _run):
        keys = set(map(weights_key, group))
        same, others = list[Row](), list[Row]()
        for run in runs:
            (others if keys.isdisjoint(map(weights_key, run)) else same).append(run)
        merged = [result for run in [*same, group] for result in run]
        runs = [*others, merged] if _is_one_run(merged) else [*runs, group]
    return runs


def _run(result: Result) -> str:
    """Return what the checkpoints of one run have in common; weights without a step are alone.

    The same INIT in two folders of results may be two runs, since a path may be relative.
    """
    origin = result.initialisation
    if origin.get("step") is None:
        return digest(origin)
    common = {name: value for name, value in origin.items() if name not in OF_CHECKPOINT}
    return digest([{**common, "init": plain_path(origin["init"])}, result.folder])


def _is_one_run(results: Sequence[Result]) -> bool:
    """Return whether all have one network, and each step has one file of weights."""
    origins = [result.initialisation for result in results]
    backbones = {digest(one["backbone"]) for one in origins if one.get("backbone")}
    files = {(one.get("step"), one["sha256"]) for one in origins if one.get("sha256")}
    return len(backbones) <= 1 and len(files) == len({step for step, _ in files})


def _completed(run: Sequence[Result]) -> Row:
    """Return a run's results with what others of the run and step record; complete ones first."""
    complete = sorted(run, key=lambda result: not result.initialisation.get("sha256"))
    origins = [result.initialisation for result in complete]
    backbone = next((one["backbone"] for one in origins if one.get("backbone")), None)
    files = {one.get("step"): one["sha256"] for one in origins if one.get("sha256")}
    shared = [{"backbone": backbone, "sha256": files.get(one.get("step"))} for one in origins]
    return [
        replace(result, initialisation={**result.initialisation, **recorded})
        for result, recorded in zip(complete, shared, strict=True)
    ]


def _rank(checkpoint: Row) -> tuple[int, float, int]:
    """Return what the best checkpoint has most of; of equal ones it is the earliest."""
    row = _one_per_seed(checkpoint)
    return len(row), mean(row), -(row[0].initialisation.get("step") or 0)


def _one_per_seed(results: Row) -> Row:
    return [same[0] for same in grouped(results, lambda result: result.seed)]


def _repeated(results: Row) -> Row:
    """Return the results whose numbers differ from those of the first with their seed."""
    first = {result.seed: result.numbers for result in _one_per_seed(results)}
    return [result for result in results if result.numbers != first[result.seed]]
