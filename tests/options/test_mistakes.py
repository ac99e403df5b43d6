"""A command line with several mistakes is refused with all of them, and each in words."""

import logging
from pathlib import Path

import pytest

from virtex.errors import ConfigError
from virtex.options.mistakes import every_mistake, in_words
from virtex.pretrain import parse_pretrain


def message(*arguments: str) -> str:
    with pytest.raises(ConfigError) as raised:
        parse_pretrain([*arguments, "--out", "unused"])
    return str(raised.value)


def test_mistakes_of_all_stages_are_told_at_once() -> None:
    told = message(
        "--run.precision", "fp7", "--run.batch_size=x", "--optim.lr", "abc", "--image.sise", "3",
        "--task", "mocco", "--task.queue_size", "5", "--loader.num_workers", "-3",
    )  # fmt: skip
    for part in (
        "\n- unknown run.precision 'fp7'. Allowed: auto,",
        "\n- run.batch_size x: give a whole number\n",
        "\n- optim.lr abc: give a number\n",
        "\n- unknown option --image.sise. Did you mean",
        "\n- no task 'mocco'. Did you mean moco",
        "num_workers -3 must be at least 0",
    ):
        assert told.count(part) == 1, part
    assert "queue_size" not in told  # whose meaning depends on the task
    assert told.count("--help` lists the options.") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--run.num_epochs", "q"], "run.num_epochs q: give a number or null\n"),
        (["--run.num_steps", "2.5"], "run.num_steps 2.5: give a whole number\n"),
        (["--optim.milestones", "[a]"], "optim.milestones a: give a whole number\n"),
    ],
)
def test_one_mistake_is_told_as_it_stands_and_in_words(arguments: list[str], told: str) -> None:
    assert message(*arguments).startswith(told)


def test_an_option_that_is_missing_once_a_mistake_is_left_out_is_no_mistake() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_pretrain(["--out", "a\0b", "--optim.lr", "abc"])
    assert "optim.lr abc: give a number" in str(raised.value)
    assert "required" not in str(raised.value)


def test_texts_that_name_nothing_or_repeat_end_the_search() -> None:
    asked = []

    def parse(arguments: list[str]) -> None:
        asked.append(arguments)
        raise ConfigError("a is wrong")

    given = ["--a", "1", "--a.b", "2", "--c=3", "word"]
    assert every_mistake(ConfigError("a is wrong"), given, parse) == ["a is wrong"]
    assert asked == [["--c=3", "word"]]
    assert every_mistake(ConfigError("all is wrong"), given, parse) == ["all is wrong"]
    assert len(asked) == 1


def test_nothing_is_logged_twice(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.INFO)
    first = tmp_path / "first.yaml"
    first.write_text("task: {name: bicaptioning, token_weight: 1.0}\n")
    message("--config", str(first), "--task", "moco", "--optim.lr", "a", "--run.batch_size", "b")
    left_out = [one for one in caplog.messages if one.startswith("left out")]
    assert len(left_out) <= 1
    assert not logging.getLogger("virtex").disabled


def test_other_messages_stay_as_they_are() -> None:
    for text in ("unknown option --x", 'Parser key "a.b":\n  odd', "Got value: 3"):
        assert in_words(text) == text
    kept = "Parser key \"a\":\n  Expected a <class 'Path'>. Got value: 3"
    assert in_words(kept) == kept
