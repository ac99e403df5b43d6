"""Results that may be compared, side by side: the same protocol, settings and data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from virtex.config import flat
from virtex.transfer.protocol import Result, digest

WHERE_OR_WHICH = frozenset({"root", "subset_sha256"})
"""What does not tell data apart: where they lie, and which images a seed drew."""
RULE = "drawn"
"""The rule by which a seed drew images; it tells data apart, and how many these are does not."""
NO_SHARES = frozenset({"CIDEr-D"})
"""Headlines that are not in percent."""
NO_SCORES = frozenset(
    {"cost", "unique_captions", "repeated_word", "repeated_trigram", "empty_captions",
     "mean_words", "vocabulary"}
)  # fmt: skip
"""Numbers that describe an outcome and do not rank it."""
MOST_DIFFERENCES = 4
"""Settings named where two comparisons would read the same."""


@dataclass(frozen=True)
class Score:
    """One initialisation's number in a comparison: the mean over its seeds."""

    init: str
    results: tuple[Result, ...]
    """One for each seed."""
    value: float
    deviation: float | None
    """Over the seeds; none where there is one."""
    is_best: bool
    over_random: float | None
    """How much more than the same architecture at random; none where that was not measured."""
    share: float
    """The value as a share of the axis, 0 to 1."""

    @property
    def result(self) -> Result:
        """The first seed's."""
        return self.results[0]

    @property
    def written(self) -> str:
        """The value with its deviation."""
        deviation = "" if self.deviation is None else f" ± {self.deviation:.1f}"
        return f"{self.value:.1f}{deviation}"


@dataclass(frozen=True)
class Reference:
    """A number that others reported, to stand beside ours."""

    name: str
    value: float
    share: float
    """The value as a share of the axis, 0 to 1."""


@dataclass(frozen=True)
class Comparison:
    """All initialisations under one protocol with the same settings, on the same data.

    A run whose checkpoints were scored one by one stands here with its best one.
    """

    protocol: str
    measured: str
    """The headline with its unit."""
    about: str
    """Splits, resolution and data, in a line."""
    scores: tuple[Score, ...]
    """Best first."""
    references: tuple[Reference, ...]
    """The paper's own, where settings and data are the paper's."""
    details: tuple[tuple[str, tuple[float | None, ...]], ...]
    """The other numbers, the headline's own kind first: name, and the mean over seeds for each of
    `scores`."""

    @property
    def main_details(self) -> tuple[tuple[str, tuple[float | None, ...]], ...]:
        """The other scores of all classes together."""
        return tuple(
            (name, values)
            for name, values in self.details
            if "/" not in name and not name.startswith("num_") and name not in NO_SCORES
        )


def compare(results: Sequence[Result]) -> tuple[Comparison, ...]:
    """Group results that may be compared, in the order in which each group first appears."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        key = digest([result.settings_hash, _same_data(result), result.headline])
        groups.setdefault(key, []).append(result)
    return _told_apart([_comparison(group) for group in groups.values()])


def _told_apart(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Where two would read the same, the settings in which they differ are added."""
    alike: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        alike.setdefault((comparison.protocol, comparison.about), []).append(comparison)
    told = {}
    for group in alike.values():
        settings = [flat(comparison.scores[0].result.settings) for comparison in group]
        names = dict.fromkeys(name for one in settings for name in one)
        differing = [name for name in names if len({str(one.get(name)) for one in settings}) > 1]
        for comparison, own in zip(group, settings, strict=True):
            shown = [f"{name} {own.get(name)}" for name in differing[:MOST_DIFFERENCES]]
            told[id(comparison)] = replace(comparison, about=" · ".join([comparison.about, *shown]))
    return tuple(told[id(comparison)] for comparison in comparisons)


def _comparison(results: Sequence[Result]) -> Comparison:
    rows = sorted(_seeds_together(_best_steps(results)), key=_mean, reverse=True)
    firsts = [row[0] for row in rows]
    numbers = _paper_numbers(firsts)
    top = max([100.0, _mean(rows[0]), *numbers.values()])
    scores = tuple(
        Score(
            init=name,
            results=tuple(row),
            value=_mean(row),
            deviation=stdev(result.score for result in row) if len(row) > 1 else None,
            is_best=len(rows) > 1 and _mean(row) == _mean(rows[0]),
            over_random=_over_random(row, rows),
            share=max(0.0, _mean(row) / top),
        )
        for name, row in zip(_names(firsts), rows, strict=True)
    )
    references = tuple(Reference(name, value, value / top) for name, value in numbers.items())
    first = firsts[0]
    details = tuple(
        (name, tuple(_mean_of(name, row) for row in rows)) for name in _other_numbers(results)
    )
    measured = first.headline if first.headline in NO_SHARES else f"{first.headline}, %"
    return Comparison(first.protocol, measured, _about(results), scores, references, details)


def _other_numbers(results: Sequence[Result]) -> list[str]:
    """All numbers' names but the headline; first those that go on from it: mask_AP50."""
    headline = results[0].headline
    names = dict.fromkeys(name for result in results for name in result.numbers)
    others = [name for name in names if name != headline]
    goes_on = re.compile(re.escape(headline) + (r"(?!\d)" if headline[-1].isdigit() else ""))
    return sorted(others, key=lambda name: not goes_on.match(name))  # a stable sort


def _mean(row: Sequence[Result]) -> float:
    return fmean(result.score for result in row)


def _mean_of(key: str, row: Sequence[Result]) -> float | None:
    values = [result.numbers[key] for result in row if key in result.numbers]
    return fmean(values) if values else None


def _seeds_together(results: Sequence[Result]) -> list[list[Result]]:
    """Results of one initialisation, whatever the seed."""
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(digest(result.initialisation), []).append(result)
    return list(rows.values())


def _paper_numbers(results: Sequence[Result]) -> dict[str, float]:
    """What the paper's task ablations reached under the same protocol; none for another one."""
    protocol = results[0].protocol
    if not any(result.as_in_paper for result in results) or protocol not in ("voc07", "imagenet"):
        return {}
    from virtex.zoo.models import MODELS  # brings torch

    return {
        f"{model.name.rpartition('/')[2]} (the paper's figure)": {
            "voc07": model.voc07, "imagenet": model.imagenet,
        }[protocol]
        for model in MODELS
        if model.name.startswith("task_ablations/")
    }  # fmt: skip


def _same_data(result: Result) -> dict[str, dict[str, str | int]]:
    """The data's identity wherever it lies, and whichever part of it a seed drew."""
    return {
        role: {
            key: value
            for key, value in identity.items()
            if key not in WHERE_OR_WHICH and not (key == "subset" and RULE in identity)
        }
        for role, identity in result.data.items()
    }


def _best_steps(results: Sequence[Result]) -> list[Result]:
    """Of several checkpoints of one run the best, as early stopping would choose."""
    best: dict[str, Result] = {}
    for result in results:
        came_from = result.initialisation
        if came_from.get("step") is not None:
            came_from = {"init": came_from["init"]}
        key = digest([came_from, result.seed])
        if key not in best or result.score > best[key].score:
            best[key] = result
    return list(best.values())


def _over_random(row: Sequence[Result], rows: Sequence[Sequence[Result]]) -> float | None:
    """Difference to the mean of the random initialisations of the same architecture."""
    random = [
        other.score
        for others in rows
        for other in others
        if other.initialisation["init"] == "random"
        and _architecture(other) == _architecture(row[0])
    ]
    if not random or row[0].initialisation["init"] == "random":
        return None
    return _mean(row) - fmean(random)


def _architecture(result: Result) -> tuple[str, object]:
    """The backbone's name without the tag of its published weights, and its options."""
    backbone = result.initialisation.get("backbone") or {}
    return str(backbone.get("name", "")).partition(".")[0], backbone.get("options")


def _names(results: Sequence[Result]) -> list[str]:
    """What to call each initialisation: as short as tells them apart."""
    inits = [str(result.initialisation["init"]) for result in results]
    steps = [result.initialisation.get("step") for result in results]
    short = {init: _short(init, set(inits)) for init in inits}
    names = [f"{short[i]}, step {s}" if s else short[i] for i, s in zip(inits, steps, strict=True)]
    return [
        name if names.count(name) == 1 else f"{name} {_architecture(result)[0]}"
        for name, result in zip(names, results, strict=True)
    ]


def _short(path: str, among: set[str]) -> str:
    """The last parts of a path, as few as no other path shares."""
    parts = path.split("/")
    for count in range(1, len(parts)):
        tail = "/".join(parts[-count:])
        if tail and not any(other != path and other.endswith(tail) for other in among):
            return tail
    return path


def _about(results: Sequence[Result]) -> str:
    """What a reader must know beside the figure: splits, data, counts, resolution."""
    first = results[0]
    train, test = first.data.get("train", {}), first.data.get("test", {})
    source = str(test.get("source", train.get("source", "")))
    size = first.settings.get("image_size")
    counts = [_count(results, name) for name in ("num_train", "num_test", "num_images")]
    parts = [
        source,
        first.splits.replace("->", "→"),
        str(train.get(RULE, "")),
        f"{' and '.join(filter(None, counts))} images" if any(counts) else "",
        f"{size} px" if size else "",
    ]
    return " · ".join(part for part in parts if part)


def _count(results: Sequence[Result], name: str) -> str:
    """How many, the least and the most where results differ; empty where none says."""
    counts = [result.numbers[name] for result in results if name in result.numbers]
    ends = dict.fromkeys((min(counts), max(counts))) if counts else ()
    return " to ".join(f"{count:.0f}" for count in ends)
