"""What `virtex transfer` measured of a model, for its card."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtex.errors import DataError
from virtex.zoo.backbones import Initialisation


@dataclass(frozen=True)
class Score:
    """One line of a card's table."""

    protocol: str
    number: str
    """What was measured: mAP, accuracy, ..."""
    value: float
    data: str
    """`voc trainval -> test`: on what the figure stands."""
    image_size: int | None


def scores_of(initialisation: Initialisation, run: Path) -> list[Score]:
    """The results in a run's results/ that were measured on exactly these weights.

    Others lie there too: of other steps, or of random weights for comparison.

    Raises:
        DataError: A file there is no result.
    """
    scores = []
    for path in sorted((run / "results").glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if _is_of(result["initialisation"], initialisation):
                scores.append(_score(result))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not a transfer result ({type(error).__name__}: {error}). Results are "
                "the JSON files that `virtex transfer` writes; remove or restore this one."
            ) from error
    return list(dict.fromkeys(scores))


def _is_of(measured: dict[str, Any], initialisation: Initialisation) -> bool:
    """Early stopping measures before there is a file, and records the step alone."""
    if measured.get("sha256") is None:
        return measured.get("step") == initialisation.step
    return bool(measured["sha256"] == initialisation.sha256)


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
