"""Pages of the reference: every public name, option and recipe is there, with its meaning."""

import importlib
import inspect
import re
from functools import cache

import pytest

import virtex
from scripts.docs import options, recipes
from scripts.docs.blocks import ROOT
from virtex import errors
from virtex.cli import COMMANDS
from virtex.config import recipe_paths
from virtex.options.layers import Layers
from virtex.transfer.protocol_names import ABOUT

EXTENSION_POINTS = (
    "virtex.data.example.Example",
    "virtex.data.example.Source",
    "virtex.data.source_options.Needs",
    "virtex.tasks.base.Task",
    "virtex.tasks.base.TaskConfig",
    "virtex.tasks.base.TaskData",
    "virtex.tasks.base.TaskOutput",
    "virtex.transfer.protocol.Protocol",
    "virtex.transfer.protocol.Result",
    *(
        f"virtex.errors.{name}"
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.VirTexError)
    ),
)
PUBLIC = [f"virtex.{name}" for name in virtex.__all__ if name != "__version__"]
NO_STATEMENT = ("Of", "As", "Where", "What", "None")
"""First words of a line that leans on the name above it."""


@cache
def names() -> frozenset[str]:
    """Return the names that the pages of the reference document."""
    found = set[str]()
    for page in (ROOT / "docs/reference").glob("*.md"):
        text = page.read_text()
        found |= set(re.findall(r"auto(?:class|function|data):: (\S+)", text))
        for module, members in re.findall(r"automodule:: (\S+)\n +:members: (.+)", text):
            found |= {f"{module}.{name.strip()}" for name in members.split(",")}
    return frozenset(found)


@pytest.mark.parametrize("name", [*PUBLIC, *EXTENSION_POINTS])
def test_a_public_name_is_on_a_page_with_a_whole_statement(name: str) -> None:
    assert name in names()
    module, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute)
    first = (inspect.getdoc(value) or "").partition("\n\n")[0]
    assert first[:1].isupper()
    assert first.endswith(".")
    assert first.split()[0] not in NO_STATEMENT
    assert not first.startswith(f"{attribute}(")  # what dataclass writes by itself


def test_every_name_on_a_page_exists() -> None:
    for name in names():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_every_command_has_a_page() -> None:
    two_words = {"data": ["data check"], "transfer": [f"transfer {name}" for name in ABOUT]}
    every = [full for name in COMMANDS for full in two_words.get(name, [name])]
    assert sorted(every) == sorted(options.COMMANDS)
    assert set(options.pages()) == {*map(options.page_name, every), "tasks", "commands"}


@pytest.mark.parametrize("command", options.COMMANDS)
def test_every_option_of_a_command_is_on_its_page(command: str) -> None:
    own, groups = options.tables(options.COMMANDS[command])
    rows = [*own, *(row for _, inner in groups.values() for row in inner)]
    text = options.page(command) + options.tasks_page()
    for flag in Layers(options.COMMANDS[command]).flags():
        assert f"| `--{flag}` |" in text, flag
    for row in rows:
        assert row.type, row.name
        assert row.default, row.name
        assert row.meaning, row.name


def test_the_page_of_pretraining_has_defaults_and_allowed_words() -> None:
    text = options.page("pretrain")
    assert "| `--run.batch_size` | whole number | `256` |" in text
    assert "| `--out` | path | required |" in text
    assert "| `--task.help`" not in text
    assert "bicaptioning, captioning, masked_lm" in text
    assert "| `--optim.optimizer` | sgd, adamw | `sgd` | SGD with momentum, or AdamW. |" in text


@pytest.mark.parametrize("kind", recipes.KINDS)
def test_every_recipe_is_on_its_page_with_what_it_states(kind: str) -> None:
    text = recipes.page(kind)
    for path in recipe_paths(kind):
        assert f"\n## {path.stem}\n\n" in text
    assert "```yaml" in text


def test_a_recipe_that_extends_another_shows_all_that_they_state() -> None:
    (path,) = [one for one in recipe_paths("pretrain") if one.stem == "clip"]
    text = recipes.section(path)
    assert "| `optim.lr` | `0.0005` |" in text  # its own
    assert "| `run.num_steps` | `500000` |" in text  # that of base


def test_the_paper_page_names_every_study_and_protocol() -> None:
    text = (ROOT / "docs/paper.md").read_text()
    for path in recipe_paths("study"):
        assert not path.stem.startswith("paper") or f"configs/study/{path.name}" in text
    for name in ("voc07", "imagenet", "inaturalist", "captioning", "voc-detection"):
        assert f"virtex transfer {name} " in text
