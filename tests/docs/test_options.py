"""Options that the pages name in their text, and the study that they spell out."""

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from scripts.docs.blocks import ROOT, blocks, pages
from virtex.config import parse
from virtex.pretrain_config import PretrainConfig
from virtex.study import StudyConfig
from virtex.study.plan import planned_runs
from virtex.study.scores import columns
from virtex.tasks import registry
from virtex.transfer.protocols import PROTOCOLS

TASK_ATTRIBUTES = {"task.backbone"}
"""Names in design.md that look like options."""


def options_of(config: type, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all options of a dataclass."""
    for name, kind in typing.get_type_hints(config).items():
        yield prefix + name
        for part in (kind, *typing.get_args(kind)):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                yield from options_of(part, f"{prefix}{name}.")


@pytest.fixture(scope="module")
def known() -> set[str]:
    names = {*options_of(PretrainConfig), *options_of(StudyConfig), *TASK_ATTRIBUTES}
    for choice in registry.TASKS.values():
        names |= {*options_of(choice.config_class, "task.")}
    for command in PROTOCOLS.values():
        names |= {*options_of(command.config)}
    return names


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in pages()])
def test_options_that_a_text_names_exist(page: str, known: set[str]) -> None:
    groups = "|".join({name.partition(".")[0] for name in known if "." in name})
    option = re.compile(rf"(?<![\w/.-])(?:--)?((?:{groups})(?:\.[a-z][a-z_0-9]*)+)(?![\w.*])")
    spans = re.findall(r"`([^`\n]+)`", (ROOT / page).read_text(encoding="utf-8"))
    named = {name for span in spans for name in option.findall(span)}
    unknown = {
        name for name in named - known if not name.endswith((".help", ".json", ".txt", ".py"))
    }
    assert unknown == set()


def test_the_study_of_the_page_on_studies_can_be_planned(tmp_path: Path) -> None:
    [text] = [one.text for one in blocks(ROOT / "docs/studies.md") if one.text.startswith("rows:")]
    (tmp_path / "study.yaml").write_text(text)
    words = ["--config", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "study")]
    config = parse(StudyConfig, words, prog="virtex study")
    rows = yaml.safe_load(text)["rows"]
    assert len(planned_runs(config)) == 3 * len(rows)
    assert columns(config) == ["linear, top1", "linear, knn_top1", "5 shots"]
