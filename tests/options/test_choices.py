"""Choices by name, and the allow-list that options pass."""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from virtex import config
from virtex.errors import ConfigError
from virtex.options.choices import Choice, register


class Shape(ABC):
    @abstractmethod
    def area(self) -> float: ...


@dataclass(frozen=True)
class Pen:
    width: float = 1.0


@dataclass(frozen=True)
class Circle(Shape):
    radius: float = 1.0
    filled: bool = False
    pen: Pen = field(default_factory=Pen)

    def area(self) -> float:
        return 3.14 * self.radius**2


@dataclass(frozen=True)
class Square(Shape):
    side: float = 1.0
    pen: Pen = field(default_factory=Pen)

    def area(self) -> float:
        return self.side**2


register(
    Shape,
    {
        "ring": Choice(Circle, {"filled": False}),
        "disc": Choice(Circle, {"filled": True}),
        "square": Choice(Square),
    },
)


@dataclass(frozen=True)
class Drawing:
    shape: Shape = field(default_factory=Circle)
    pen: Pen | None = None
    pens: list[Pen] = field(default_factory=list)
    label: str | None = None
    options: dict[str, bool | int | list[int] | str | None] = field(default_factory=dict)
    anything: dict[str, Any] = field(default_factory=dict)


def parse(*arguments: str) -> Drawing:
    return config.parse(Drawing, arguments, prog="draw")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("disc", Circle(filled=True)),
        ({"name": "disc", "radius": 2}, Circle(2.0, True)),
        ({"radius": 2}, Circle(2.0)),
        ("Circle", Circle()),
        ({"class_path": "Circle", "init_args": {"filled": True}}, Circle(filled=True)),
        ({"class_path": f"{__name__}.Square", "init_args": {"side": 3}}, Square(3.0)),
        ({"class_path": "disc"}, Circle(filled=True)),
    ],
)
def test_a_choice_is_a_name_a_class_name_or_a_mapping(shape: object, expected: Shape) -> None:
    assert config.from_dict(Drawing, {"shape": shape}).shape == expected
    assert parse("--config", f"shape: {shape}\n").shape == expected


def test_a_choice_is_written_under_the_name_that_fixes_most_of_it() -> None:
    written = config.to_dict(Drawing(Circle(2.0, True)))["shape"]
    assert written == {"name": "disc", "radius": 2.0, "pen": {"width": 1.0}}
    assert config.to_dict(Drawing(Square()))["shape"]["name"] == "square"


def test_a_name_wins_over_earlier_options_and_keeps_those_that_it_does_not_fix() -> None:
    before = "shape: {name: ring, radius: 3, pen: {width: 2}}\n"
    assert parse("--config", before, "--shape", "disc").shape == Circle(3.0, True, Pen(2.0))
    assert parse("--config", before, "--shape", "square").shape == Square(1.0, Pen(2.0))
    assert parse("--config", before, "--shape.filled", "true").shape == Circle(3.0, True, Pen(2.0))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--shape", "disc", "--shape.filled", "false"],
        ["--shape.filled=false", "--shape=disc"],
        ["--config", "shape: {name: disc, filled: false}\n"],
    ],
)
def test_an_option_against_the_name_beside_it_is_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"shape disc means shape\.filled true, not false"):
        parse(*arguments)


def test_an_unknown_name_is_answered_with_its_like() -> None:
    with pytest.raises(ConfigError, match=r"no shape 'squre'\. Did you mean square\?"):
        parse("--shape", "squre")
    with pytest.raises(ConfigError, match="Did you mean ring"):
        config.from_dict(Drawing, {"shape": "RingConfig"})


HOSTILE = [
    {"shape": "helper.Config"},
    {"shape": {"class_path": "helper.Config"}},
    {"shape": {"name": "helper.Config"}},
    {"shape": {"class_path": "Circle", "init_args": {"pen": {"class_path": "helper.Config"}}}},
    {"shape": {"class_path": "Circle", "init_args": {"pen": "helper.Config"}}},
    {"shape": {"name": "disc", "class_path": "helper.Config"}},
    {"shape": {"class_path": "Circle", "dict_kwargs": {"x": 1}}},
    {"pen": "helper.Config"},
    {"pen": {"class_path": "helper.Config"}},
    {"pens": [{"class_path": "helper.Config"}]},
    {"pens": ["helper.Config"]},
    {"class_path": "helper.Config"},
]


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that a hostile config names."""
    (tmp_path / "helper.py").write_text("class Config:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "helper", raising=False)


@pytest.mark.usefixtures("helper")
@pytest.mark.parametrize("values", HOSTILE, ids=str)
def test_no_module_is_imported_that_options_name(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        config.from_dict(Drawing, values)
    with pytest.raises(ConfigError):
        parse("--config", f"{values}\n")
    flags = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    with pytest.raises(ConfigError):
        parse(*flags)
    assert "helper" not in sys.modules


@pytest.mark.usefixtures("helper")
@pytest.mark.parametrize("flag", ["--shape.help", "--shape.help=helper.Config"])
def test_help_imports_no_module_that_a_flag_names(flag: str) -> None:
    with pytest.raises(ConfigError, match=r"no shape 'helper\.Config'"):
        parse(*([flag] if "=" in flag else [flag, "helper.Config"]))
    assert "helper" not in sys.modules


@pytest.mark.usefixtures("helper")
def test_options_without_a_type_hold_choices_that_are_not_looked_up() -> None:
    nested = {"task": {"class_path": "helper.Config", "init_args": {"size": 3}}}
    drawing = config.from_dict(Drawing, {"anything": nested})
    assert drawing.anything == {"task": {"name": "helper.Config", "size": 3}}
    assert "helper" not in sys.modules


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 10**400, "nan"])
def test_numbers_that_are_not_finite_are_refused(number: object) -> None:
    with pytest.raises(ConfigError):
        config.from_dict(Drawing, {"pen": {"width": number}})
    with pytest.raises(ConfigError):
        parse("--pen.width", str(number))


def test_text_that_would_be_read_as_a_yaml_bomb_is_refused() -> None:
    lists = [f"&a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 8)]
    bomb = f"{{bomb: [&a0 [1, 1], {', '.join(lists)}]}}"
    with pytest.raises(ConfigError, match="values are too many"):
        parse("--options", bomb)
    with pytest.raises(ConfigError, match="values are too many"):
        config.from_dict(Drawing, {"options": bomb})


def test_an_unknown_option_is_answered_with_its_like() -> None:
    with pytest.raises(ConfigError, match=r"unknown option pen\.witdh\. Did you mean width\?"):
        config.from_dict(Drawing, {"pen": {"witdh": 3}})
