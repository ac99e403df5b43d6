"""Dataclasses from YAML and flags, and back."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from virtex import config
from virtex.errors import ConfigError
from virtex.options.choices import Choice, register


@dataclass(frozen=True)
class Shape(ABC):
    @abstractmethod
    def area(self) -> float: ...


@dataclass(frozen=True)
class Square(Shape):
    side: float = 1.0
    """Length of a side."""

    def area(self) -> float:
        return self.side**2


@dataclass(frozen=True)
class Circle(Shape):
    radius: float = 1.0

    def area(self) -> float:
        return 3.14 * self.radius**2


SHAPES = {
    "square": Choice(Square),
    "circle": Choice(Circle),
    "dot": Choice(Circle, {"radius": 0.1}),
}
register(Shape, SHAPES)


@dataclass(frozen=True)
class Pen:
    width: int = 1
    """Width in pixels."""


@dataclass(frozen=True)
class Drawing:
    out: Path
    shape: Shape = field(default_factory=Square)
    pen: Pen = field(default_factory=Pen)
    fill: bool = False
    scale: tuple[float, float] = (0.5, 1.0)
    options: dict[str, int | list[int] | None] = field(default_factory=dict)


def parse(*arguments: str) -> Drawing:
    return config.parse(Drawing, arguments, prog="draw")


def test_flags_reach_nested_and_abstract_fields() -> None:
    drawing = parse("--out", "x", "--shape", "circle", "--shape.radius", "2", "--pen.width", "3")
    assert drawing == Drawing(Path("x"), Circle(2.0), Pen(3))


def test_later_files_win_over_earlier_and_flags_over_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("pen: {width: 2}\nshape: {name: square}\n")
    (tmp_path / "b.yaml").write_text("pen: {width: 3}\nshape: {side: 5}\n")
    files = ["--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml")]
    assert parse("--out", "x", *files) == Drawing(Path("x"), Square(5.0), Pen(3))
    assert parse("--out", "x", *files, "--pen.width", "4").pen == Pen(4)


def test_dict_and_yaml_give_the_same_config_back(tmp_path: Path) -> None:
    drawing = Drawing(
        Path("x"), Circle(2.0), Pen(3), True, (0.1, 0.2), {"layers": [1, 2], "no": None}
    )
    assert config.from_dict(Drawing, config.to_dict(drawing)) == drawing
    (tmp_path / "drawing.yaml").write_text(yaml.safe_dump(config.to_dict(drawing)))
    assert parse("--config", str(tmp_path / "drawing.yaml")) == drawing


@pytest.mark.parametrize(
    "arguments",
    [[], ["--out", "x", "--pen.width", "wide"], ["--out", "x", "--pencil", "1"],
     ["--out", "x", "--shape", "hexagon"], ["--out", "x", "--config", "absent.yaml"]],
)  # fmt: skip
def test_a_wrong_flag_is_a_config_error_that_points_to_help(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match="draw --help"):
        parse(*arguments)


def test_a_recipe_is_found_by_its_name_and_an_unknown_one_is_told_its_like() -> None:
    known = [path.stem for path in config.recipe_paths("pretrain")]
    arguments = config.with_recipes(["--config", "base", "--out", "x"], "pretrain")
    assert arguments[0] == "--config"
    assert Path(arguments[1]).is_file()
    assert arguments[2:] == ["--out", "x"]
    with pytest.raises(ConfigError, match="gpu_small"):
        config.with_recipes(["--config=gpu_smal"], "pretrain")
    with pytest.raises(ConfigError, match=re.escape(", ".join(known))):
        config.with_recipes(["--config=xyz"], "pretrain")


def test_a_file_states_only_what_differs_from_the_one_it_extends(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("pen: {width: 2}\nscale: [0.1, 0.2]\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nshape: circle\n")
    (tmp_path / "c.yaml").write_text("extends: b.yaml\npen: {width: 5}\n")
    arguments = config.with_recipes(["--out", "x", f"--config={tmp_path / 'c.yaml'}"], "pretrain")
    assert parse(*arguments) == Drawing(Path("x"), Circle(), Pen(5), scale=(0.1, 0.2))


def test_files_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(ConfigError, match="extend each other"):
        config.with_recipes(["--config", str(tmp_path / "a.yaml")], "pretrain")


def test_a_parse_leaves_nothing_for_the_next_one(capsys: pytest.CaptureFixture[str]) -> None:
    plain = ["--out", "a"]
    first = config.parse(Drawing, plain, prog="draw")
    changed = ["--shape", "dot", "--pen.width", "3", "--scale", "[1, 2]", "--options.key", "[4]"]
    config.parse(Drawing, [*plain, *changed], prog="draw")
    with pytest.raises(SystemExit):
        config.parse(Drawing, [*plain, "--print_config"], prog="draw")
    with pytest.raises(ConfigError):
        config.parse(Drawing, [*plain, "--print_config", "--pen.width", "wide"], prog="draw")
    capsys.readouterr()
    config.from_dict(Drawing, {"out": "b", "options": {"key": 1}})
    second = config.parse(Drawing, plain, prog="draw")
    assert first == second == Drawing(out=Path("a"))
    assert first.options is not second.options
    assert not capsys.readouterr().out
