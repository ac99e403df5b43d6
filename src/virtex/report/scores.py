"""Results that may be compared, side by side: the same protocol, settings and data."""

from collections.abc import Sequence
from dataclasses import dataclass

from virtex.transfer.protocol import Result, digest


@dataclass(frozen=True)
class Score:
    """One initialisation's number in a comparison."""

    init: str
    result: Result
    value: float
    is_best: bool
    over_random: float | None
    """How much more than the same architecture at random; none where that was not measured."""
    share: float
    """The value as a share of the axis, 0 to 1."""


@dataclass(frozen=True)
class Comparison:
    """All initialisations under one protocol with the same settings, on the same data.

    A run whose checkpoints were scored one by one stands here with its best one.
    """

    protocol: str
    headline: str
    about: str
    """Splits, resolution and data, in a line."""
    scores: tuple[Score, ...]
    """Best first."""
    details: tuple[tuple[str, tuple[float | None, ...]], ...]
    """The other numbers: name, and the value for each of `scores`."""


def compare(results: Sequence[Result]) -> tuple[Comparison, ...]:
    """Group results that may be compared, in the order in which each group first appears."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        key = digest([result.settings_hash, _same_data(result), result.headline])
        groups.setdefault(key, []).append(result)
    return tuple(_comparison(group) for group in groups.values())


def _comparison(results: Sequence[Result]) -> Comparison:
    ranked = sorted(_best_steps(results), key=lambda result: -result.score)
    top = max(100.0, ranked[0].score)
    scores = tuple(
        Score(
            init=name,
            result=result,
            value=result.score,
            is_best=len(ranked) > 1 and result.score == ranked[0].score,
            over_random=_over_random(result, ranked),
            share=max(0.0, result.score / top),
        )
        for name, result in zip(_names(ranked), ranked, strict=True)
    )
    others = [key for key in ranked[0].numbers if key != ranked[0].headline]
    details = tuple((key, tuple(result.numbers.get(key) for result in ranked)) for key in others)
    return Comparison(ranked[0].protocol, ranked[0].headline, _about(ranked[0]), scores, details)


def _same_data(result: Result) -> dict[str, dict[str, str | int]]:
    """The data's identity wherever it lies."""
    return {
        role: {key: value for key, value in identity.items() if key != "root"}
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


def _over_random(result: Result, results: Sequence[Result]) -> float | None:
    """Difference to the mean of the random initialisations of the same architecture."""
    random = [
        other.score
        for other in results
        if other.initialisation["init"] == "random"
        and _architecture(other) == _architecture(result)
    ]
    if not random or result.initialisation["init"] == "random":
        return None
    return result.score - sum(random) / len(random)


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
        name if names.count(name) == 1 else f"{name} {_architecture(result)[0]}, seed {result.seed}"
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


def _about(result: Result) -> str:
    """What a reader must know beside the figure: splits, data, counts, resolution."""
    train, test = result.data.get("train", {}), result.data.get("test", {})
    source = str(test.get("source", train.get("source", "")))
    size = result.settings.get("image_size")
    num_train, num_test = (result.numbers.get(f"num_{role}") for role in ("train", "test"))
    parts = [
        source,
        result.splits.replace("->", "→"),
        f"{num_train:.0f} and {num_test:.0f} images" if num_train and num_test else "",
        f"{size} px" if size else "",
    ]
    return " · ".join(part for part in parts if part)
