"""Comparisons of results with the same protocol, settings and data."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from virtex.config import flat
from virtex.report.run_files import data_name
from virtex.transfer.protocol import Result, digest

LOCATION_OR_SAMPLE = frozenset({"root", "subset_sha256"})
"""Parts of an identity that same data may differ in: the folder, and the sample of a seed."""
RULE = "drawn"
"""Part of an identity that states how a seed samples images; then their number may differ."""
NOT_PERCENT = frozenset({"CIDEr-D"})
"""Headlines that are not percentages."""
NOT_SCORES = frozenset(
    {"cost", "unique_captions", "repeated_word", "repeated_trigram", "empty_captions",
     "mean_words", "vocabulary"}
)  # fmt: skip
"""Numbers that describe a result and do not rank it."""
REFERENCE_NOTE = (
    "The paper's figures were measured with images resized without antialiasing; ours antialiases, "
    "which is worth about 0.1 mAP on VOC07."
)
MAX_DIFFERENCES = 4
"""Maximum number of settings that distinguish two comparisons."""


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
        deviation = "" if self.deviation is None else f" ± {self.deviation:.1f}"
        return f"{self.value:.1f}{deviation}"


@dataclass(frozen=True)
class Comparison:
    """The scores of all initialisations under one protocol, with the same settings and data.

    A run with scores of several checkpoints is represented by the best one.
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

    @property
    def main_details(self) -> tuple[tuple[str, tuple[float | None, ...]], ...]:
        """Those of the details that are scores over all classes."""
        return tuple(
            (name, values)
            for name, values in self.details
            if "/" not in name and not name.startswith("num_") and name not in NOT_SCORES
        )

    @property
    def note(self) -> str:
        """What differs from the paper's figures, where these stand beside ours."""
        return REFERENCE_NOTE if self.references else ""

    @property
    def axis_end(self) -> float:
        """Value at the right end of the axis."""
        return max(100.0, self.scores[0].value, *self.references.values())


def compare(results: Sequence[Result]) -> tuple[Comparison, ...]:
    """Group comparable results, in the order of each group's first result."""

    def key(result: Result) -> str:
        return digest([result.settings_hash, _same_data(result), result.headline])

    return _distinguished([_comparison(group) for group in _grouped(results, key)])


def _grouped(results: Sequence[Result], key: Callable[[Result], str]) -> list[list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return list(groups.values())


def _distinguished(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Add the settings that differ to comparisons that would look the same."""
    titles = [(comparison.protocol, comparison.about) for comparison in comparisons]
    settings = [flat(comparison.scores[0].result.settings) for comparison in comparisons]
    distinguished = []
    for comparison, title, own in zip(comparisons, titles, settings, strict=True):
        group = [one for one, other in zip(settings, titles, strict=True) if other == title]
        names = dict.fromkeys(name for one in group for name in one)
        differing = [name for name in names if len({str(one.get(name)) for one in group}) > 1]
        shown = [f"{name} {own.get(name)}" for name in differing[:MAX_DIFFERENCES]]
        distinguished.append(replace(comparison, about=" · ".join([comparison.about, *shown])))
    return tuple(distinguished)


def _comparison(results: Sequence[Result]) -> Comparison:
    by_initialisation = _grouped(_best_steps(results), lambda one: digest(one.initialisation))
    rows = sorted(by_initialisation, key=_mean, reverse=True)
    firsts = [row[0] for row in rows]
    scores = tuple(
        Score(
            init=name,
            results=tuple(row),
            value=_mean(row),
            deviation=stdev(result.score for result in row) if len(row) > 1 else None,
            is_best=len(rows) > 1 and _mean(row) == _mean(rows[0]),
            over_random=_over_random(row, rows),
        )
        for name, row in zip(_names(firsts), rows, strict=True)
    )
    first = firsts[0]
    return Comparison(
        protocol=first.protocol,
        measured=first.headline if first.headline in NOT_PERCENT else f"{first.headline}, %",
        about=_about(results),
        scores=scores,
        references=_paper_numbers(firsts),
        details=tuple(
            (name, tuple(_mean_of(name, row) for row in rows)) for name in _other_numbers(results)
        ),
    )


def _other_numbers(results: Sequence[Result]) -> list[str]:
    """Return the names of all numbers but the headline, those like it (mask_AP50) first."""
    headline = results[0].headline
    names = dict.fromkeys(name for result in results for name in result.numbers)
    others = [name for name in names if name != headline]
    similar = re.compile(re.escape(headline) + (r"(?!\d)" if headline[-1].isdigit() else ""))
    return sorted(others, key=lambda name: not similar.match(name))  # a stable sort


def _mean(row: Sequence[Result]) -> float:
    return fmean(result.score for result in row)


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


def _same_data(result: Result) -> dict[str, dict[str, str | int]]:
    """Return the identity of the data, without their folder and the sample of a seed."""
    return {
        role: {
            key: value
            for key, value in identity.items()
            if key not in LOCATION_OR_SAMPLE and not (key == "subset" and RULE in identity)
        }
        for role, identity in result.data.items()
    }


def _best_steps(results: Sequence[Result]) -> list[Result]:
    """Keep the best of several checkpoints of one run, as early stopping does."""
    best: dict[str, Result] = {}
    for result in results:
        origin = result.initialisation
        if origin.get("step") is not None:
            origin = {"init": origin["init"]}
        key = digest([origin, result.seed])
        if key not in best or result.score > best[key].score:
            best[key] = result
    return list(best.values())


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
    return _mean(row) - _mean(random) if random and not is_random else None


def _architecture(result: Result) -> tuple[str, object]:
    """Return the backbone's name, without the tag of its published weights, and its options."""
    backbone = result.initialisation.get("backbone") or {}
    return str(backbone.get("name", "")).partition(".")[0], backbone.get("options")


def _names(results: Sequence[Result]) -> list[str]:
    """Return the shortest distinct name of each initialisation."""
    inits = [str(result.initialisation["init"]) for result in results]
    steps = [result.initialisation.get("step") for result in results]
    short = {init: _short(init, set(inits)) for init in inits}
    names = [f"{short[i]}, step {s}" if s else short[i] for i, s in zip(inits, steps, strict=True)]
    return [
        name if names.count(name) == 1 else f"{name} {_architecture(result)[0]}"
        for name, result in zip(names, results, strict=True)
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
    train, test = first.data.get("train", {}), first.data.get("test", {})
    tested = test or train
    size = first.settings.get("image_size")
    counts = [_count(results, name) for name in ("num_train", "num_test", "num_images")]
    parts = [
        data_name(tested.get("source"), tested.get("root")),
        first.splits.replace("->", "→"),
        str(train.get(RULE, "")),
        f"{' and '.join(filter(None, counts))} images" if any(counts) else "",
        f"{size} px" if size else "",
    ]
    return " · ".join(part for part in parts if part)


def _count(results: Sequence[Result], name: str) -> str:
    """Return a number, or its range if results differ; empty if no result has it."""
    counts = [result.numbers[name] for result in results if name in result.numbers]
    ends = dict.fromkeys((min(counts), max(counts))) if counts else ()
    return " to ".join(f"{count:.0f}" for count in ends)
