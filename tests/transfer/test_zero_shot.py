"""Zero-shot classification from end to end, by runs that learned to name colors."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.oracles.ranking import slow_top_k_accuracy
from tests.transfer.color_runs import TASKS, diverged, train_on_colors, write_captioned_colors
from virtex import cli
from virtex.data.example import Source
from virtex.data.source import SourceConfig
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.predict.loading import load_captioner
from virtex.predict.matching import MatchingConfig
from virtex.transfer.metrics.classification import true_ranks
from virtex.transfer.protocol import Result
from virtex.transfer.zero_shot import ZeroShotConfig, accuracies, names_of, open_images, run

TEMPLATE = "a photo of a {} wall"


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colors") / "colors"
    write_captioned_colors(root)
    return root


@pytest.fixture(scope="module", params=TASKS)
def init(request: pytest.FixtureRequest, colors: Path) -> str:
    return str(train_on_colors(colors, colors.parent / request.param, request.param))


def config_of(init: str, colors: Path, out: Path, **changes: object) -> ZeroShotConfig:
    config = ZeroShotConfig(
        init=init,
        out=out,
        data=SourceConfig("classes", root=colors),
        templates=(TEMPLATE,),
        batch_size=4,
        num_workers=0,
        device="cpu",
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def test_colors_learned_from_captions_are_classified(
    init: str, colors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--init", init, "--data.root", str(colors), "--out", str(tmp_path)]
    small = ["--device", "cpu", "--num_workers", "0", "--templates", f"['{TEMPLATE}', 'a {{}}']"]
    assert cli.main(["transfer", "zero-shot", *places, *small]) == 0
    assert "zero-shot top1 100.00, class_mean_top1 100.00" in capsys.readouterr().out
    (path,) = tmp_path.glob("zero-shot-*.json")
    result = Result.read(path)
    assert (result.headline, result.score) == ("top1", 100)
    assert result.numbers["chance_top1"] == pytest.approx(100 / 3)
    assert (result.numbers["num_images"], result.numbers["num_classes"]) == (15, 3)
    assert result.settings["templates"] == [TEMPLATE, "a {}"]
    assert (result.settings["direction"], result.settings["prior"]) == ("forward", 0.0)
    assert (result.data["test"]["images"], result.initialisation["step"]) == (15, 60)
    assert not result.as_in_paper


def test_names_given_in_another_order_than_the_folders_mislead(
    init: str, colors: Path, tmp_path: Path
) -> None:
    path = tmp_path / "names.txt"
    path.write_text("green\nred\nblue\n")
    (result,) = run(config_of(init, colors, tmp_path, class_names=path))
    assert result.score == 0
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"red": "red", "blue": "blue", "green": "green", "grey": "grey"}))
    (result,) = run(config_of(init, colors, tmp_path, class_names=path))
    assert result.score == 100


@pytest.mark.parametrize("init", ["bicaptioning"], indirect=True)
@pytest.mark.parametrize(("direction", "prior"), [("forward", None), ("both", 1.0)])
def test_accuracy_is_that_of_the_predictor_s_classes(
    direction: str, prior: float | None, init: str, colors: Path, tmp_path: Path
) -> None:
    names = ["blue", "green", "red"]
    templates = ("{} photo", "a {}")  # of which it is not sure
    changes = {"templates": templates, "direction": direction, "prior": prior}
    (result,) = run(config_of(init, colors, tmp_path, **changes))
    images = sorted((colors / "val").glob("*/*.png"))
    found = load_captioner(init).classify(
        images, names, templates=templates,
        matching=MatchingConfig(direction, prior or 0.0),  # type: ignore[arg-type]
    )  # fmt: skip
    hits = [one.best == image.parent.name for one, image in zip(found, images, strict=True)]
    assert result.score == pytest.approx(100 * np.mean(hits))


def test_names_with_unknown_characters_are_refused(init: str, colors: Path, tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"red": "犬", "blue": "blue", "green": "gr\u20acen"}))
    with pytest.raises(DataError) as raised:
        run(config_of(init, colors, tmp_path / "out", class_names=path))
    assert "'gr€en', '犬': the vocabulary lacks '€', '犬';" in str(raised.value)
    assert "--class_names" in str(raised.value)
    assert "byte_fallback" in str(raised.value)
    assert not list((tmp_path / "out").glob("*.json"))


def test_names_that_are_the_same_to_the_model_tie(init: str, colors: Path, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("blue\nred\nRed\n")
    (result,) = run(config_of(init, colors, tmp_path, class_names=path))
    assert result.score == pytest.approx(100 / 3)


LONG = "a photo of a red wall of a photo of a blue wall of {}"


@pytest.mark.parametrize("init", ["bicaptioning"], indirect=True)
def test_a_captioner_takes_no_text_that_it_would_cut(
    init: str, colors: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"'blue', 'green', 'red': a text of up to .* at most 14"):
        run(config_of(init, colors, tmp_path, templates=(LONG,)))


@pytest.mark.parametrize("init", ["contrastive"], indirect=True)
def test_a_contrastive_run_cuts_texts_as_long_as_classes_differ(
    init: str, colors: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="'blue', 'green', 'red': the same in the first 14 tokens"):
        run(config_of(init, colors, tmp_path, templates=(LONG,)))
    (result,) = (
        run(config_of(init, colors, tmp_path, templates=(f"{TEMPLATE} of a wall" * 4,)))
        if False
        else run(config_of(init, colors, tmp_path, templates=(TEMPLATE + " of a wall" * 4,)))
    )
    assert result.score == 100


def test_a_model_of_nan_is_an_error(init: str, colors: Path, tmp_path: Path) -> None:
    damaged = str(diverged(Path(init), tmp_path / "nan"))
    with pytest.raises(CheckpointError, match="not numbers"):
        run(config_of(damaged, colors, tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.json"))


def test_numbers_are_those_counted_by_hand() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 12 + [1] * 3 + [6] * 5)
    scores = rng.integers(0, 9, (20, 7)).astype(float)
    found = accuracies(labels, true_ranks(labels, scores), num_classes=7)
    by_class = [slow_top_k_accuracy(labels[labels == k], scores[labels == k], 1) for k in (0, 1, 6)]
    assert found == pytest.approx(
        {
            "top1": 100 * slow_top_k_accuracy(labels, scores, 1),
            "top5": 100 * slow_top_k_accuracy(labels, scores, 5),
            "class_mean_top1": 100 * np.mean(by_class),
            "chance_top1": 100 / 7,
            "num_classes": 7,
        }
    )


def write_class(folder: Path, number: int = 1) -> None:
    folder.mkdir(parents=True)
    for index in range(number):
        (folder / f"{index}.png").write_bytes(b"never read")


def opened(root: Path, **options: object) -> Source:
    return open_images(SourceConfig("classes", root=root, **options))  # type: ignore[arg-type]


def test_class_folders_need_no_split(tmp_path: Path) -> None:
    for name in ("train", "cat", "val"):  # classes of these names are no splits
        write_class(tmp_path / name)
    assert opened(tmp_path).categories == ("cat", "train", "val")


def test_a_val_split_needs_no_training_images(tmp_path: Path) -> None:
    for name in ("train", "dog"):
        write_class(tmp_path / "val" / name)
    assert opened(tmp_path).categories == ("dog", "train")
    write_class(tmp_path / "test" / "dog", number=3)
    assert len(opened(tmp_path, val_split="test")) == 3
    with pytest.raises(DataError, match="holds no class folders"):
        opened(tmp_path, val_split="dev")


def test_training_images_are_classified_only_where_the_user_says_so(tmp_path: Path) -> None:
    write_class(tmp_path / "train" / "cat")
    write_class(tmp_path / "train" / "dog", number=4)
    with pytest.raises(DataError, match=r"may have seen, say so: --data\.val_root .*train"):
        opened(tmp_path)
    assert len(opened(tmp_path, val_root=tmp_path / "train")) == 5


def test_a_share_is_held_out_as_everywhere(tmp_path: Path) -> None:
    write_class(tmp_path / "cat", number=30)
    write_class(tmp_path / "dog", number=30)
    assert 5 < len(opened(tmp_path, val_share=0.5)) < 55


def test_folders_are_read_as_words(tmp_path: Path) -> None:
    assert names_of(["polar_bear", "dog"], None) == ["polar bear", "dog"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("x.txt", "polar bear\nchien\n"), ("x.json", '{"b": "chien", "a": "polar bear"}')],
)
def test_the_mark_that_some_editors_begin_files_with_is_no_part_of_a_name(
    name: str, text: str, tmp_path: Path
) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / name).write_text(text, encoding=encoding)
        assert names_of(["a", "b"], tmp_path / name) == ["polar bear", "chien"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.txt", "cat\n", r"names 1 classes of 2"),
        ("x.txt", "cat\n\n", r"no text as name of dog"),
        ("x.json", '{"n1": "cat"}', r"has no name for 2 of 2 folders: cat, dog"),
        ("x.json", '{"cat": ["cat", "kitten"], "dog": "dog"}', r"no text as name of cat"),
        ("x.json", "3", r"holds no object"),
        ("x.json", "{", r"cannot be read"),
    ],
)
def test_names_that_do_not_fit_the_folders_are_refused(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        names_of(["cat", "dog"], tmp_path / name)


def test_mistakes_in_the_options_are_all_named(colors: Path, tmp_path: Path) -> None:
    wrong = {"templates": ("a cat",), "class_names": tmp_path / "none", "prior": 2.0}
    wrong |= {"batch_size": 0, "num_workers": -1, "num_images": -2, "bad_image_limit": 7.0}
    with pytest.raises(ConfigError) as raised:
        run(config_of("x", colors, tmp_path, **wrong))
    reported = (
        "a cat",
        "class_names",
        "prior 2.0",
        "batch_size 0",
        "num_workers -1",
        "num_images -2",
    )
    assert all(word in str(raised.value) for word in (*reported, "bad_image_limit 7.0"))


def test_images_of_several_classes_are_refused(tmp_path: Path) -> None:
    data = SourceConfig("scenes", num_val_images=6)
    with pytest.raises(DataError, match="each image must have one class"):
        run(config_of("never loaded", tmp_path, tmp_path, data=data))
