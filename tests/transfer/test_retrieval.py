"""Retrieval from end to end, by runs that learned to name colors."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.transfer.color_runs import TASKS, diverged, train_on_colors, write_captioned_colors
from tests.transfer.two_processes import measure_by_two
from virtex.data.source import SourceConfig
from virtex.data.sources.folder import FolderSource
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.predict.embedder import Embedder
from virtex.predict.loading import load_matcher
from virtex.transfer import zero_shot
from virtex.transfer.protocol import Result
from virtex.transfer.retrieval import RetrievalConfig, run, texts_of
from virtex.transfer.zero_shot import ZeroShotConfig


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colors") / "colors"
    write_captioned_colors(root)
    return root


@pytest.fixture(scope="module", params=TASKS)
def init(request: pytest.FixtureRequest, colors: Path) -> str:
    return str(train_on_colors(colors, colors.parent / request.param, request.param))


@pytest.fixture
def config(init: str, colors: Path, tmp_path: Path) -> RetrievalConfig:
    return RetrievalConfig(
        init=init,
        out=tmp_path,
        data=SourceConfig("folder", root=colors / "train", val_root=colors / "single"),
        batch_size=2,
        num_workers=0,
        device="cpu",
    )


def test_colors_and_their_captions_find_each_other(config: RetrievalConfig) -> None:
    (result,) = run(config)
    (path,) = config.out.glob("retrieval-*.json")
    assert Result.read(path) == result
    assert (result.headline, result.score) == ("text_to_image_R@1", 100)
    assert result.numbers["image_to_text_R@1"] == 100
    medians = [result.numbers[f"{way}_median_rank"] for way in ("text_to_image", "image_to_text")]
    assert medians == [1, 1]
    assert (result.numbers["num_images"], result.numbers["num_texts"]) == (3, 3)
    assert result.settings["prior"] == 1.0
    assert "image_to_text_R@1 100.00" in result.summary()


def test_captions_that_images_share_count_against(config: RetrievalConfig, colors: Path) -> None:
    data = SourceConfig("folder", root=colors / "train", val_root=colors / "val")
    (result,) = run(replace(config, data=data))
    assert result.numbers["num_images"] == 15  # five of each colour
    assert result.numbers["image_to_text_R@1"] == 0
    assert result.numbers["image_to_text_R@5"] == 100
    assert result.numbers["text_to_image_R@5"] == 100
    assert result.numbers["text_to_image_R@1"] == pytest.approx(100 / 5)


def test_numbers_are_those_of_all_scores_at_once(config: RetrievalConfig, colors: Path) -> None:
    source = FolderSource(colors / "single")
    matcher, texts = load_matcher(config.init), [source.captions(i)[0] for i in range(3)]
    if isinstance(matcher, Embedder):
        images = matcher.embed_images([source[i].image for i in range(3)])  # type: ignore[misc]
        scores = images @ matcher.embed_texts(texts).T
    else:
        scores = torch.tensor(
            [matcher.score([source[i].image] * 3, texts) for i in range(3)]  # type: ignore[list-item]
        )
    (result,) = run(replace(config, prior=0.0))
    own = scores.diagonal()
    assert result.numbers["text_to_image_median_rank"] == (scores >= own).sum(0).median()
    assert result.numbers["image_to_text_median_rank"] == (scores >= own[:, None]).sum(1).median()


def test_the_seed_draws_the_images(config: RetrievalConfig, colors: Path) -> None:
    data = SourceConfig("folder", root=colors / "train", val_root=colors / "val")
    drawn = [
        run(replace(config, data=data, num_images=4, seed=seed))[0].data["test"]
        for seed in (0, 0, 1)
    ]
    assert [one["subset"] for one in drawn] == [4, 4, 4]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(ConfigError, match="num_images 16 of 15 images"):
        run(replace(config, data=data, num_images=16))


def test_a_model_of_nan_is_an_error(config: RetrievalConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not numbers"):
        run(replace(config, init=str(diverged(Path(config.init), tmp_path / "nan"))))
    assert not list(config.out.glob("*.json"))


def test_captions_that_are_read_in_part_are_ranked_and_counted(
    config: RetrievalConfig, colors: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = Path(shutil.copytree(colors / "single", tmp_path / "single"))
    paths = sorted(root.glob("*/*.txt"))
    paths[0].write_text("a photo of a blue wall 犬\n")
    paths[1].write_text("a photo of a green wall" + " of a wall" * 9 + "\n")
    (result,) = run(replace(config, data=replace(config.data, val_root=root), prior=0.0))
    assert result.numbers["num_texts"] == 3
    assert "1 of 3 captions have characters that the vocabulary lacks" in caplog.text
    assert "1 of 3 captions are cut to the model's 14 tokens" in caplog.text
    caplog.clear()
    run(config)
    assert "captions" not in caplog.text


@pytest.mark.parametrize("init", ["bicaptioning"], indirect=True)
def test_a_prior_changes_which_text_an_image_finds_and_not_the_other_way(
    config: RetrievalConfig, colors: Path
) -> None:
    data = SourceConfig("scenes", num_val_images=12)
    results = [run(replace(config, data=data, prior=prior))[0].numbers for prior in (0.0, 1.0)]
    ways = [
        [{k: v for k, v in numbers.items() if k.startswith(way)} for numbers in results]
        for way in ("text_to_image", "image_to_text")
    ]
    assert ways[0][0] == ways[0][1]
    assert ways[1][0] != ways[1][1]


@pytest.mark.parametrize("init", ["contrastive"], indirect=True)
def test_a_contrastive_run_refuses_what_is_for_captioners(config: RetrievalConfig) -> None:
    with pytest.raises(ConfigError, match=r"direction 'both' .* prior 1\.0 .* for captioners"):
        run(replace(config, direction="both", prior=1.0))


def write_captions(folder: Path, *captions: str) -> FolderSource:
    """An image, never read, for each string: its captions."""
    folder.mkdir()
    for number, text in enumerate(captions):
        (folder / f"{number}.png").write_bytes(b"never read")
        (folder / f"{number}.txt").write_text("\n".join(text))
    return FolderSource(folder)


def test_the_first_captions_of_each_image_are_taken(tmp_path: Path) -> None:
    source = write_captions(tmp_path / "three", "abc", "d", "ef")
    found = texts_of(source, 2)
    assert (found.texts, found.owners.tolist()) == (("a", "b", "d", "e", "f"), [0, 0, 1, 2, 2])
    assert texts_of(source, 0).owners.tolist() == [0, 0, 0, 1, 2, 2]
    with pytest.raises(DataError, match="at least two"):
        texts_of(write_captions(tmp_path / "one", "ab"), 0)


def test_mistakes_in_the_options_are_all_named(tmp_path: Path) -> None:
    wrong = RetrievalConfig(init="x", out=tmp_path, captions_per_image=-1, batch_size=0, seed=-1)
    with pytest.raises(ConfigError) as raised:
        run(wrong)
    reported = ("captions_per_image -1", "batch_size 0", "seed -1")
    assert all(word in str(raised.value) for word in reported)


def test_data_without_a_val_split_are_refused(tmp_path: Path) -> None:
    data = SourceConfig("scenes", num_images=4, num_val_images=0)
    with pytest.raises(ConfigError, match="no images to rank"):
        run(RetrievalConfig(init="x", out=tmp_path, data=data, device="cpu"))


@pytest.mark.parametrize("init", ["bicaptioning"], indirect=True)
def test_two_processes_rank_what_one_does_but_for_what_cannot_be_read(
    config: RetrievalConfig, colors: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(colors, tmp_path / "damaged"))
    (root / "val" / "green" / "2.png").write_bytes(b"no image")
    retrieval = replace(config, data=replace(config.data, val_root=root / "val"), batch_size=4)
    classification = ZeroShotConfig(
        init=config.init, out=config.out, data=SourceConfig("classes", root=root),
        templates=("a {}", "{} photo"), batch_size=4, num_workers=0, device="cpu",
    )  # fmt: skip
    expected = [*run(retrieval), *zero_shot.run(classification)]
    assert [result.numbers["num_bad"] for result in expected] == [1, 1]
    assert [result.numbers["num_images"] for result in expected] == [14, 14]
    assert expected[0].numbers["num_texts"] == 14
    together = {
        name: replace(one, out=tmp_path / "two")
        for name, one in (("retrieval", retrieval), ("zero-shot", classification))
    }
    measure_by_two(together)
    found = [Result.read(path) for path in sorted((tmp_path / "two").glob("*.json"))]
    assert [result.numbers for result in found] == [
        pytest.approx(result.numbers) for result in expected
    ]
