"""Write the measured table of README.md from a finished quickstart.

    make quickstart
    .venv/bin/python scripts/readme_tables.py quickstart

With `--check` nothing is written, and a table that differs is an error.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
MARKERS = re.compile(
    r"(?<=<!-- quickstart: scripts/readme_tables.py -->\n)(.*?)(?=<!-- end -->)", re.DOTALL
)


def table(quickstart: Path) -> str:
    """Return the table in Markdown."""
    results = [json.loads(path.read_text()) for path in (quickstart / "results").glob("*.json")]
    transfer = {
        one["initialisation"]["init"] == "random": one["numbers"]["mAP"]
        for one in results
        if one["protocol"] == "multilabel-svm"
    }
    (captions,) = [one["numbers"] for one in results if one["protocol"] == "scene-captions"]
    right, all_right = captions["objects right"], captions["captions all right"]
    rows = [
        (
            "classification by frozen features, mAP",
            f"{transfer[True]:.1f}",
            f"{transfer[False]:.1f}",
        ),
        ("objects in written captions that are in the scene", "", f"{right:.1f} %"),
        ("captions with objects, all of which are in the scene", "", f"{all_right:.1f} %"),
    ]
    head = ["| on held-out scenes | random | pretrained |", "|---|---:|---:|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("quickstart", type=Path, help="folder of `virtex quickstart`")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    text = README.read_text()
    changed, count = MARKERS.subn(table(options.quickstart), text)
    if count != 1:
        raise SystemExit(f"{README.name} has {count} places for the table, not one")
    if options.check and changed != text:
        raise SystemExit(f"the table of {README.name} differs from {options.quickstart}")
    README.write_text(changed)


if __name__ == "__main__":
    main()
