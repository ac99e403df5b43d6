"""`virtex data check`: a page on what is in a source, and lists of what to leave out."""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from virtex import files
from virtex.data.example import Source
from virtex.data.shards.remote_visit import VisitedShards, visited
from virtex.data.source import Split
from virtex.data.subsets import id_line
from virtex.data_check.check_config import CheckConfig
from virtex.data_check.check_findings import findings_of
from virtex.data_check.check_page import WIDTH, page
from virtex.data_check.check_remedy import leave_out
from virtex.data_check.check_summary import summary
from virtex.data_check.duplicates import common
from virtex.data_check.lenient_source import open_split, resolve
from virtex.data_check.split_check import SplitCheck, check_split
from virtex.errors import DataError, one_line, printable

PATHS = frozenset({"folder", "classes"})
"""Layouts whose images are listed by path; those of the others have ids in files of their own."""
SPLIT_NAME = re.compile(r" \(split [^)]*\)")
OWN_NAMES = PATHS | {"webdataset"}
"""Layouts whose ids are names in the folder of a split: another split's may be other images."""


def check_data(config: CheckConfig) -> str:
    """Check a source, write what the options name, and return the page.

    Raises:
        ConfigError: The options do not work together.
        DataError: The images of the source cannot be listed.
    """
    for path in (config.out, config.write_bad, config.write_good):
        if path is not None:
            files.check_out(path, is_file=True)
    config = replace(config, data=resolve(config.data))
    with visited(config.data) as remote:
        return _checked(config, remote)


def _checked(config: CheckConfig, remote: VisitedShards | None) -> str:
    """Do the check of resolved options, while shards at URLs can be read."""
    checks = _checks(config, remote)
    _compare(checks)
    findings = [finding for check in checks for finding in findings_of(check)]
    bad = [np.flatnonzero(check.is_bad(config.bad)) for check in checks]
    if config.out is not None:
        content = json.dumps(summary(config, checks, findings), indent=1)
        files.write(config.out, content + "\n")
    if config.write_bad is not None:
        _write_lines(config.write_bad, map(_shown_name, _bad_names(checks, bad, config)))
    if config.write_good is not None:
        ids = _good_ids(checks[0], bad[0])
        _write_lines(config.write_good, (id_line(one).encode() for one in ids))
    lines = [page(_title(config), checks, findings), *_notes(checks)]
    return "\n".join([*lines, *leave_out(config, checks, bad)])


def _checks(config: CheckConfig, remote: VisitedShards | None) -> list[SplitCheck]:
    """Return the checks of training and, if there is any, of validation."""
    train = open_split(config.data, "train", remote)
    assert train is not None, "only validation data may be missing"
    try:
        val = open_split(config.data, "val", remote)
    except DataError as error:
        val = None
        train.notes.append(f"validation data cannot be read: {error}")
    opened = dict(zip(get_args(Split), (train, val), strict=True))
    return [check_split(name, one, config) for name, one in opened.items() if one is not None]


def _compare(checks: Sequence[SplitCheck]) -> None:
    """Enter which training images are among validation's, by content and by id."""
    if len(checks) == 2:
        train, val = (check.images for check in checks)
        digests = val.digests[val.is_good]
        checks[0].in_validation = train.indices[train.is_good][
            common(train.digests[train.is_good], digests)
        ]
        if checks[0].config.data.source not in OWN_NAMES:
            checks[0].num_same_ids = len(common(checks[0].ids, checks[1].ids))


def _title(config: CheckConfig) -> str:
    root = config.data.root
    return f"{'drawn' if root is None else root} ({config.data.source})"


def _notes(checks: Sequence[SplitCheck]) -> list[str]:
    """Return what opening the splits logged, once each, also if each names its split."""
    notes: dict[str, str] = {}
    for note in (note for check in checks for note in check.opened.notes):
        notes.setdefault(SPLIT_NAME.sub("", note), note)
    if not notes:
        return []
    lines = [line for note in notes.values() for line in printable(note).split("\n")]
    return ["", *(part for line in lines for part in textwrap.wrap(line, WIDTH))]


def _bad_names(
    checks: Sequence[SplitCheck], bad: Sequence[NDArray[np.int64]], config: CheckConfig
) -> Iterator[str]:
    """Yield the names of the images to leave out of all splits."""
    is_path = config.data.source in PATHS
    for check, indices in zip(checks, bad, strict=True):
        skipped = check.opened.without_captions
        if skipped is not None and "no_caption" in config.bad:
            yield from (_name(skipped, index, is_path) for index in range(len(skipped)))
        yield from (_name(check.opened.source, index, is_path) for index in indices.tolist())


def _good_ids(check: SplitCheck, bad: NDArray[np.int64]) -> Iterator[str]:
    """Yield the ids of the training images that stay."""
    is_good = np.ones(len(check), np.bool_)
    is_good[bad] = False
    source = check.opened.source
    yield from (source.image_id(index) for index in np.flatnonzero(is_good).tolist())


def _name(source: Source, index: int, is_path: bool) -> str:
    return source[index].location if is_path else source.image_id(index)


def _write_lines(path: Path, lines: Iterable[bytes]) -> None:
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        for line in lines:
            file.write(line + b"\n")


def _shown_name(name: str) -> bytes:
    """Return a name as the file system has it, but for control characters, which are escaped."""
    name = one_line(name)
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass")
