"""Blocks that are marked `run`, and README's Python, on toy data."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from scripts.docs.blocks import ROOT, Block, blocks, commands, logical_lines, pages
from tests.drawn_images import photo, write_classes
from tests.small_run import small_config
from virtex import cli
from virtex.pretrain import pretrain

MARKED = [block for page in pages() for block in blocks(page) if block.is_run]
README = [block for block in blocks(ROOT / "README.md") if "load_captioner(" in block.text]
CAPTIONS = ("a red square on the left", "a blue circle above a green square", "two dogs on a beach")
TOY = [
    "--processes", "1", "--image.size", "64", "--run.num_steps", "2", "--run.batch_size", "8",
    "--tokenizer.vocab_size", "100", "--run.tensorboard", "false",
    "--backbone.options", '{"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}',
]  # fmt: skip
"""Options that make a pretraining a matter of a second."""


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name: RUN, PHOTOS, CLASSES, photo.jpg, ..."""
    folder = tmp_path_factory.mktemp("toy")
    pretrain(small_config(folder / "RUN"))
    (folder / "PHOTOS").mkdir()
    for number in range(16):
        image = Image.fromarray(photo(number % 8)).resize((64 + number, 64))
        image.save(folder / f"PHOTOS/{number}.jpg")
        (folder / f"PHOTOS/{number}.txt").write_text(f"{CAPTIONS[number % 3]} {number}\n")
    for name in ("photo.jpg", "other.jpg", "a.jpg", "b.jpg"):
        (folder / name).symlink_to("PHOTOS/1.jpg")
    (folder / "photos").symlink_to("PHOTOS")
    (folder / "captions.txt").write_text("\n".join(CAPTIONS) + "\n")
    write_classes(folder / "split")
    (folder / "CLASSES").symlink_to("split/train")
    return folder


@pytest.fixture
def _inside(toy_folder: Path) -> Iterator[None]:
    with contextlib.chdir(toy_folder):
        yield


def run(block: Block) -> str:
    """Return what a block prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if block.kind == "python":
            exec(compile(block.text, block.place, "exec"), {"__name__": "__main__"})
        for line in logical_lines(block.text) if block.kind == "shell" else ():
            for _, *arguments in commands(line):
                extra = TOY if arguments[0] == "pretrain" else []
                assert cli.main([*arguments, *extra]) == 0, f"{block.place}: {line}"
    return printed.getvalue()


@pytest.mark.usefixtures("_inside")
@pytest.mark.parametrize("page", dict.fromkeys(block.page for block in MARKED), ids=str)
def test_the_blocks_of_a_page_that_are_marked_run_do_run(page: Path) -> None:
    for block in MARKED:
        if block.page == page:
            run(block)


@pytest.mark.usefixtures("_inside")
@pytest.mark.parametrize("block", README, ids=lambda block: block.place)
def test_the_python_of_readme_runs(block: Block) -> None:
    run(block)


@pytest.mark.usefixtures("_inside")
def test_the_entropy_of_captions_is_below_that_of_equal_tokens() -> None:
    (block,) = [block for block in MARKED if block.page.name == "flat_loss.md"]
    assert 1 < float(run(block)) < 5.52  # ln(250)


def test_enough_blocks_run() -> None:
    assert len(MARKED) >= 7
    assert README
