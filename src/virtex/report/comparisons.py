"""Comparisons of results with the same protocol, settings and data."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from virtex.config import flat
from virtex.report.run_files import data_name
from virtex.report.same_data import grouped, grouped_by_data, locations, places
from virtex.report.score_rows import Row, mean, rows_of
from virtex.report.weights import weights_key
from virtex.transfer.identities import RULE
from virtex.transfer.protocol import Result, digest

NOT_PERCENT = frozenset({"CIDEr-D"})
"""Headlines that are not percentages."""
NOT_SCORES = frozenset(
    {"cost", "unique_captions", "repeated_word", "repeated_trigram", "empty_captions",
     "mean_words", "vocabulary"}
)  # fmt: skip
"""Numbers that describe a result and do not rank it."""
REFERENCE_NOTE = (
    "The paper's figures were measured with images resized without antialiasing; ours antialiases, "
    "so that figures may differ a little (not measured)."
)
FOLDERS_NOTE = (
    "The data lie in several folders with the same file names and annotations; that their images "
    "are the same is not known: "
)
SUPERSEDED_NOTE = (
    "Not among the scores, since another checkpoint of the run, or another result of the same "
    "weights and seed, is: "
)
MAX_DIFFERENCES = 4
"""Maximum number of settings that distinguish two comparisons."""
HASH_LENGTH = 12
"""Digits that are shown of a SHA-256."""


@dataclass(frozen=True)
class Score:
    """The score of one initialisation in a comparison: the mean over its random seeds."""

    init: str
    results: tuple[Result, ...]
    """One result per seed."""
    value: float
    deviation: float | None
    """Standard deviation over the seeds; None for one seed."""
    is_best: bool
    over_random: float | None
    """Gain over the same architecture with random weights; None if that was not measured."""

    @property
    def result(self) -> Result:
        """Result of the first seed."""
        return self.results[0]

    @property
    def written(self) -> str:
        """Text of the value, with its deviation."""
        return _written(self.results)


@dataclass(frozen=True)
class Comparison:
    """The scores of all initialisations under one protocol, with the same settings and data.

    A run with scores of several checkpoints is represented by one of them.
    """

    protocol: str
    measured: str
    """Name of the headline number, with its unit."""
    about: str
    """One line on splits, data and resolution."""
    scores: tuple[Score, ...]
    """Scores, the best first."""
    references: dict[str, float]
    """Scores in the paper by name, if settings and data are the paper's."""
    details: tuple[tuple[str, tuple[float | None, ...]], ...]
    """Name of each other number, those like the headline first, and its mean for each score."""
    notes: tuple[str, ...]
    """What differs from the paper's figures or between folders, and the results not shown."""

    @property
    def main_details(self) -> tuple[tuple[str, tuple[float | None, ...]], ...]:
        """Those of the details that are scores over all classes."""
        return tuple(
            (name, values)
            for name, values in self.details
            if "/" not in name and not name.startswith("num_") and name not in NOT_SCORES
        )

    @property
    def axis_end(self) -> float:
        """Value at the right end of the axis."""
        return max(100.0, self.scores[0].value, *self.references.values())


def compare(results: Sequence[Result]) -> tuple[Comparison, ...]:
    """Group results of the same protocol, settings and data."""
    alike = grouped(results, lambda one: digest([one.settings_hash, one.headline]))
    groups = [group for same in alike for group in grouped_by_data(same)]
    return _distinguished([_comparison(group) for group in groups])


def _distinguished(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Add the settings and data that differ to comparisons that would look the same."""
    titles = [(comparison.protocol, comparison.about) for comparison in comparisons]
    results = [comparison.scores[0].result for comparison in comparisons]
    own = [flat({**result.settings, "data": result.data}) for result in results]
    differences = _differences(titles, own)
    return tuple(
        replace(comparison, about=" · ".join([comparison.about, *shown]))
        for comparison, shown in zip(comparisons, differences, strict=True)
    )


def _differences(titles: Sequence[object], values: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return for each title the first few of its values that differ from those of equal titles."""
    differences = []
    for title, own in zip(titles, values, strict=True):
        group = [one for one, other in zip(values, titles, strict=True) if other == title]
        names = dict.fromkeys(name for one in group for name in one)
        differing = [name for name in names if len({str(one.get(name)) for one in group}) > 1]
        differences.append([_shown(name, own.get(name)) for name in differing[:MAX_DIFFERENCES]])
    return differences


def _shown(name: str, value: object) -> str:
    is_hash = name.endswith("sha256") and value is not None
    return f"{name} {str(value)[:HASH_LENGTH] if is_hash else value}"


def _comparison(results: Sequence[Result]) -> Comparison:
    rows, superseded = rows_of(results)
    firsts = [row[0] for row in rows]
    names = _names([row[0] for row in (*rows, *superseded)])
    scores = tuple(
        Score(
            init=name,
            results=tuple(row),
            value=mean(row),
            deviation=stdev(result.score for result in row) if len(row) > 1 else None,
            is_best=len(rows) > 1 and mean(row) == mean(rows[0]),
            over_random=_over_random(row, rows),
        )
        for name, row in zip(names[: len(rows)], rows, strict=True)
    )
    first = firsts[0]
    references = _paper_numbers(firsts)
    return Comparison(
        protocol=first.protocol,
        measured=first.headline if first.headline in NOT_PERCENT else f"{first.headline}, %",
        about=_about(results),
        scores=scores,
        references=references,
        details=tuple(
            (name, tuple(_mean_of(name, row) for row in rows)) for name in _other_numbers(results)
        ),
        notes=(
            *([REFERENCE_NOTE] if references else []),
            *_folders_notes(scores),
            *_superseded_notes(names[len(rows) :], superseded),
        ),
    )


def _folders_notes(scores: Sequence[Score]) -> list[str]:
    """Return which scores were measured in which folders, if these differ."""
    names: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
    for score in scores:
        for group in grouped(score.results, places):
            found = locations(group[0])
            names.setdefault(tuple(found), ([*found.values()], []))[1].append(score.init)
    lines = [f"{' and '.join(roots)} ({', '.join(inits)})" for roots, inits in names.values()]
    return [f"{FOLDERS_NOTE}{'; '.join(lines)}."] if len(lines) > 1 else []


def _superseded_notes(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    lines = [
        f"{name}: {_written(row)} (seed{'s' if len(row) > 1 else ''} "
        f"{', '.join(str(result.seed) for result in row)})"
        for name, row in zip(names, rows, strict=True)
    ]
    return [f"{SUPERSEDED_NOTE}{'; '.join(lines)}."] if lines else []


def _written(row: Sequence[Result]) -> str:
    deviation = f" ± {stdev(result.score for result in row):.1f}" if len(row) > 1 else ""
    return f"{mean(row):.1f}{deviation}"


def _other_numbers(results: Sequence[Result]) -> list[str]:
    """Return the names of all numbers but the headline, those like it (mask_AP50) first."""
    headline = results[0].headline
    names = dict.fromkeys(name for result in results for name in result.numbers)
    others = [name for name in names if name != headline]
    similar = re.compile(re.escape(headline) + (r"(?!\d)" if headline[-1].isdigit() else ""))
    return sorted(others, key=lambda name: not similar.match(name))  # a stable sort


def _mean_of(key: str, row: Sequence[Result]) -> float | None:
    values = [result.numbers[key] for result in row if key in result.numbers]
    return fmean(values) if values else None


def _paper_numbers(results: Sequence[Result]) -> dict[str, float]:
    """Return the scores of the paper's task ablations under the protocol, if it has any."""
    protocol = results[0].protocol
    if not any(result.as_in_paper for result in results) or protocol not in ("voc07", "imagenet"):
        return {}
    from virtex.zoo.models import MODELS  # which imports torch

    return {
        f"{model.name.rpartition('/')[2]} (the paper's figure)": {
            "voc07": model.voc07, "imagenet": model.imagenet,
        }[protocol]
        for model in MODELS
        if model.name.startswith("task_ablations/")
    }  # fmt: skip


def _over_random(row: Sequence[Result], rows: Sequence[Sequence[Result]]) -> float | None:
    """Return the difference to the mean of random weights of the same architecture."""
    random = [
        other
        for others in rows
        for other in others
        if other.initialisation["init"] == "random"
        and _architecture(other) == _architecture(row[0])
    ]
    is_random = row[0].initialisation["init"] == "random"
    return mean(row) - mean(random) if random and not is_random else None


def _architecture(result: Result) -> tuple[str, object]:
    """Return the backbone's name, without the tag of its published weights, and its options."""
    backbone = result.initialisation.get("backbone") or {}
    return str(backbone.get("name", "")).partition(".")[0], backbone.get("options")


def _names(results: Sequence[Result]) -> list[str]:
    """Return the shortest distinct name of each result's weights."""
    first_of = {weights_key(result): result for result in reversed(results)}
    names = dict(zip(first_of, _distinct_names(list(first_of.values())), strict=True))
    return [names[weights_key(result)] for result in results]


def _distinct_names(results: Sequence[Result]) -> list[str]:
    inits = [str(result.initialisation["init"]) for result in results]
    steps = [result.initialisation.get("step") for result in results]
    places = [
        str(result.folder) if result.folder and step is not None else ""
        for result, step in zip(results, steps, strict=True)
    ]
    names = _told_apart(
        [_short(init, set(inits)) for init in inits],
        [f"({_short(place, set(places))})" if place else "" for place in places],
    )
    names = [
        name if step is None else f"{name}, step {step}"
        for name, step in zip(names, steps, strict=True)
    ]
    names = _told_apart(names, [_architecture(result)[0] for result in results])
    differences = _differences(names, [flat(result.initialisation) for result in results])
    return _told_apart(names, [", ".join(shown) for shown in differences])


def _told_apart(names: Sequence[str], details: Sequence[str]) -> list[str]:
    """Add to equal names the details in which they differ."""
    pairs = set(zip(names, details, strict=True))
    shared = [name for name, _ in pairs]
    return [
        f"{name} {detail}".rstrip() if shared.count(name) > 1 else name
        for name, detail in zip(names, details, strict=True)
    ]


def _short(path: str, among: set[str]) -> str:
    """Return the fewest last parts of a path that distinguish it from the others."""
    parts = path.split("/")
    for count in range(1, len(parts)):
        tail = "/".join(parts[-count:])
        if tail and not any(other != path and other.endswith(tail) for other in among):
            return tail
    return path


def _about(results: Sequence[Result]) -> str:
    """Return one line with data, splits, number of images and resolution."""
    first = results[0]
    train = first.data.get("train", {})
    size = first.settings.get("image_size")
    of_places = grouped(results, places)
    counts = [_count(results, name) for name in ("num_train", "num_test", "num_images")]
    parts = [
        " and ".join(dict.fromkeys(_data_name(group[0]) for group in of_places)),
        first.splits.replace("->", "→"),
        str(train.get(RULE, "")),
        f"{' and '.join(filter(None, counts))} images" if any(counts) else "",
        f"{size} px" if size else "",
    ]
    return " · ".join(part for part in parts if part)


def _data_name(result: Result) -> str:
    tested = result.data.get("test") or result.data.get("train", {})
    return data_name(tested.get("source"), tested.get("root"))


def _count(results: Sequence[Result], name: str) -> str:
    """Return a number, or its range if results differ; empty if no result has it."""
    counts = [result.numbers[name] for result in results if name in result.numbers]
    ends = dict.fromkeys((min(counts), max(counts))) if counts else ()
    return " to ".join(f"{count:.0f}" for count in ends)
