"""The page of a check, for a terminal of 80 columns."""

import textwrap
from collections.abc import Sequence

from virtex.data_check.check_findings import Finding
from virtex.data_check.check_table import (
    CAPTIONS,
    COLUMN,
    HIGH,
    IMAGES,
    LOW,
    NONE,
    Row,
    percent,
    shortened,
)
from virtex.data_check.split_check import SplitCheck
from virtex.errors import one_line

WIDTH, LABEL = 80, 22
WHAT, COUNT, SHARE = 37, 11, 10
"""Columns of the findings; what to do fills the rest."""
EXAMPLE = 4
LEGEND = f"a (b - c): median, and the range of {round((HIGH - LOW) * 100)} in 100"


def page(title: str, checks: Sequence[SplitCheck], findings: Sequence[Finding]) -> str:
    """Return the page: a table, the findings, and the most frequent captions."""
    lines = [*textwrap.wrap(one_line(title), WIDTH), "", _row("", [check.name for check in checks])]
    lines += _table(IMAGES, checks)
    with_captions = [check for check in checks if check.captions is not None]
    if with_captions:
        lines += _table(CAPTIONS, checks)
    lines += [LEGEND, "", *_findings(findings)]
    lines += _frequent(with_captions[0]) if with_captions else []
    return "\n".join(line.rstrip() for line in lines)


def _table(rows: Sequence[Row], checks: Sequence[SplitCheck]) -> list[str]:
    lines = []
    for label, cell in rows:
        cells = [cell(check) for check in checks]
        if set(cells) != {NONE}:
            lines.append(_row(label, cells))
    return lines


def _row(label: str, cells: Sequence[str]) -> str:
    return f"{label:<{LABEL}}" + "".join(f"{shortened(cell, COLUMN):>{COLUMN}}" for cell in cells)


def _findings(findings: Sequence[Finding]) -> list[str]:
    if not findings:
        return ["Nothing to mend."]
    lines = []
    for split in dict.fromkeys(one.split for one in findings):
        lines.append(f"found in {split}")
        for one in (one for one in findings if one.split == split):
            cells = f"{one.count:>{COUNT},}{percent(one.count, one.total):>{SHARE}}"
            lines.append(f"  {one.what:<{WHAT}}{cells}  {one.remedy}")
            lines += [_example(text) for text in one.examples]
            lines += [_example(f"or {one.option}")] if one.option else []
        lines.append("")
    return lines[:-1]


def _frequent(check: SplitCheck) -> list[str]:
    """Return the captions that the most images share."""
    assert check.shared is not None
    if not check.shared.most_frequent:
        return []
    lines = ["", f"captions of the most images in {check.name}"]
    for count, position in check.shared.most_frequent:
        text = f"{count:>{COUNT},}  {one_line(check.caption_at(position)[:WIDTH])}"
        lines.append(shortened(text, WIDTH))
    return lines


def _example(text: str) -> str:
    return " " * EXAMPLE + shortened(one_line(text), WIDTH - EXAMPLE)
