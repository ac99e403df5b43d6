"""Scores of a model, measured by `virtex transfer`, for its card."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtex.errors import DataError
from virtex.zoo.backbones import Initialisation
from virtex.zoo.weights_file import WEIGHTS_NAME


@dataclass(frozen=True)
class Score:
    """A row in the table of scores on a card."""

    protocol: str
    number: str
    """Name of the measure: mAP, accuracy, ..."""
    value: float
    data: str
    """Data sets, such as `voc trainval -> test`."""
    image_size: int | None


def scores_of(initialisation: Initialisation, run: Path, *, weights: Path) -> list[Score]:
    """Return the scores in a run's results/ that were measured on exactly these weights.

    The folder may also hold results of other steps, or of random weights for comparison.

    Args:
        weights: The file of the weights.

    Raises:
        DataError: A file is no transfer result.
    """
    scores = []
    for path in sorted((run / "results").glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if _is_of(result["initialisation"], initialisation, path=weights):
                scores.append(_score(result))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not a transfer result ({type(error).__name__}: {error}). Results are "
                "the JSON files that `virtex transfer` writes; remove or restore this one."
            ) from error
    return list(dict.fromkeys(scores))


def _is_of(measured: dict[str, Any], initialisation: Initialisation, *, path: Path) -> bool:
    """Return whether a result was measured on the weights that `initialisation` records.

    Results of early stopping, which precede the file, record the step instead of the digest.
    """
    if measured.get("sha256") is None:
        return _are_trained(path) and measured.get("step") == initialisation.step
    return bool(measured["sha256"] == initialisation.sha256)


def _are_trained(path: Path) -> bool:
    """Return whether a file of a run has its trained weights, by its name: not their average."""
    return path.name == WEIGHTS_NAME or path.absolute().parent.name == "checkpoints"


def _score(result: dict[str, Any]) -> Score:
    train, test = (result["data"][role] for role in ("train", "test"))
    splits = " -> ".join(str(part["split"]) for part in (train, test) if "split" in part)
    return Score(
        protocol=result["protocol"],
        number=result["headline"],
        value=float(result["numbers"][result["headline"]]),
        data=f"{test.get('source', '')} {splits}".strip(),
        image_size=result["settings"].get("image_size"),
    )
