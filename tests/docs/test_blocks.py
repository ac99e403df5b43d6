"""Blocks of code in README and docs: each is checked, run, or says why not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.docs.blocks import ROOT, Block, blocks, pages
from scripts.docs.checks import problems, toy_paths

PAGES = {str(page.relative_to(ROOT)): page for page in pages()}


@pytest.fixture(scope="module", autouse=True)
def _toy_paths() -> Iterator[None]:
    with toy_paths():
        yield


def page_of(text: str) -> Path:
    page = Path.cwd() / "page.md"
    page.write_text(text)
    return page


def block_of(text: str) -> Block:
    return Block(ROOT / "docs/page.md", 1, "shell", text)


@pytest.mark.parametrize("name", PAGES)
def test_every_command_and_every_line_of_python_of_a_page_exists(name: str) -> None:
    assert [text for block in blocks(PAGES[name]) for text in problems(block)] == []


def test_blocks_have_their_line_and_kind() -> None:
    text = (
        "# A page\n\n    virtex zoo\n\ntext, `virtex zoo --help`\n\n```python\nimport virtex\n```\n"
    )
    found = [(block.line, block.kind, block.is_inline) for block in blocks(page_of(text))]
    assert found == [(3, "shell", False), (5, "shell", True), (8, "python", False)]


def test_a_tree_of_files_is_no_command() -> None:
    (block,) = blocks(page_of("text\n\n    COCO/train2017/000000000009.jpg ...\n"))
    assert block.kind == "text"
    assert not block.is_checked


def test_a_mark_holds_for_the_next_block_alone() -> None:
    text = "<!-- not run: no such thing -->\n\n    virtex nothing\n\ntext\n\n    virtex nothing\n"
    first, second = blocks(page_of(text))
    assert first.mark == "no such thing"
    assert problems(first) == []
    assert len(problems(second)) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("virtex pretrain --config cpu_small --run.num_stepz 3 --out RUN", "unknown option"),
        ("virtex pretrain --config cpu_small --run.num_steps three --out RUN", "num_steps"),
        ("virtex pretrain --config cpu_smal --out RUN", "cpu_small"),
        ("virtex pretrain --config cpu_small --run.batch_size 0 --out RUN", "at least 1"),
        ("virtex embed RUN photos --image_size 8", "out"),
        ("torchrun --nproc_per_node 2 -m virtex.cli pretrain --ot RUN", "unknown option"),
        ("find photos | virtex caption RUN - --beems 3", "unknown option"),
        ("python -m benchmarks.step --roundz 3", "no option --roundz"),
        ("python benchmarks/stepp.py", "does not exist"),
        ("make quickstarts", "no quickstarts"),
        ("pip install virtexx", "pip installs virtexx"),
        ("sbatch docs/cluster/slurmm.sh", "does not exist"),
        ("virtex zoo\nand some prose", "neither a known command nor Python"),
    ],
)
def test_a_wrong_command_is_found(text: str, expected: str) -> None:
    (problem,) = problems(block_of(text))
    assert problem.startswith("docs/page.md:1: ")
    assert expected in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import virtex\nvirtex.load(", "was never closed"),
        ("import virtex\nvirtex.load_backbones('RUN')", "virtex has no load_backbones"),
        ("import virtex\nvirtex.embed('RUN', 'a.jpg', size=2)", "unexpected keyword"),
        ("from virtex.errors import ConfigErrors", "virtex.errors has no ConfigErrors"),
    ],
)
def test_wrong_python_is_found(text: str, expected: str) -> None:
    assert expected in problems(Block(ROOT / "docs/page.md", 1, "python", text))[0]


def test_what_a_page_leaves_out_is_allowed() -> None:
    assert problems(block_of("virtex pretrain ... --early_stopping.protocol voc07")) == []
    assert (
        problems(block_of("virtex pretrain --config NAME|FILE [--field value ...] --out RUN")) == []
    )
