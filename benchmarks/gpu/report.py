"""The report: gpu.json, and gpu.md with one table a section."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.jobs import Events, Row
from benchmarks.gpu.runner import Section
from virtex import files


def write_report(
    out: Path, sections: Sequence[Section], events: Events, *, facts: dict[str, str]
) -> None:
    """Write both files, with all that was measured so far.

    Args:
        facts: The call's date, command and versions.
    """
    report: dict[str, Any] = {"call": facts, "sections": {}}
    for section in sections:
        report["sections"][section.name] = {
            "title": section.title,
            "note": section.note,
            "seconds": seconds_of(section.name, events),
            "rows": events.rows(section.name),
            "problems": [{"job": job, "text": text} for job, text in events.problems(section.name)],
        }
    files.write(out / "gpu.json", json.dumps(report, indent=1) + "\n")
    files.write(out / "gpu.md", markdown(report))


def seconds_of(name: str, events: Events) -> float:
    """Return the seconds from a section's first to its last event."""
    times = [event["time"] for event in events.of(name)]
    return round(times[-1] - times[0], 1) if times else 0.0


def markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    parts = ["# What a machine with a GPU tells", table(as_rows(report["call"]))]
    for section in report["sections"].values():
        parts.append(f"## {section['title']}")
        if section["note"]:
            parts.append(section["note"])
        if section["rows"]:
            parts.append(table(section["rows"]))
        if section["problems"]:
            parts.append("\n".join(f"- {p['job']}: {p['text']}" for p in section["problems"]))
        if not section["rows"] and not section["problems"]:
            parts.append("not run")
    return "\n\n".join(parts) + "\n"


def as_rows(facts: dict[str, str]) -> list[Row]:
    return [{"fact": name, "value": value} for name, value in facts.items()]


def table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table; columns are the names in the order of their appearance."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = [name.replace("_", " ") for name in names]
    lines = [head, ["---"] * len(names), *([cell(row.get(name)) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: str | int | float | None) -> str:
    """Return a figure with as many digits as it is worth."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else " ".join(value.split()).replace("|", "\\|")
