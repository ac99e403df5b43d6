"""The captioning protocol from end to end, on drawn scenes written as COCO's captions are."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.small_run import small_config
from tests.transfer.color_runs import diverged
from tests.transfer.two_processes import measure_by_two
from virtex.config import parse, with_recipes
from virtex.data.example import Example, Source
from virtex.data.layouts import write_scenes
from virtex.data.source import SourceConfig
from virtex.data.sources.coco import CocoSource
from virtex.data.transforms import ImageConfig
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.models.decoding import DecodingConfig
from virtex.predict.loading import load_captioner
from virtex.pretrain import pretrain
from virtex.transfer.caption_generation import Generation
from virtex.transfer.captioning import CaptioningProtocolConfig, as_in_paper, generation_of, run
from virtex.transfer.protocol import Result

NUM_IMAGES = 6
BROKEN = 0
"""Place of the image that cannot be read: the first of its batch."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps that says something."""
    out = tmp_path_factory.mktemp("captioning") / "run"
    pretrain(small_config(out, "--run.num_steps", "4", "--task.head.max_tokens", "12"))
    return out


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "coco"
    write_scenes("coco", root, num_train=2, num_val=NUM_IMAGES, image_size=64)
    return root


@pytest.fixture
def config(trained: Path, scenes: Path, tmp_path: Path) -> CaptioningProtocolConfig:
    return CaptioningProtocolConfig(
        init=str(trained),
        out=tmp_path / "results",
        data=SourceConfig("coco", root=scenes),
        num_beams=2,
        batch_size=4,
        num_workers=0,
        device="cpu",
    )


@pytest.fixture
def damaged(config: CaptioningProtocolConfig, tmp_path: Path) -> CaptioningProtocolConfig:
    """The same with one image that cannot be read."""
    root = Path(shutil.copytree(config.data.root, tmp_path / "coco"))
    broken = CocoSource(root, split="val")[BROKEN].image
    assert isinstance(broken, Path)
    broken.write_bytes(b"no image")
    return replace(config, data=SourceConfig("coco", root=root))


def captions_path(config: CaptioningProtocolConfig) -> Path:
    (path,) = config.out.glob("captions/*.json")
    return path


def written(config: CaptioningProtocolConfig) -> list[dict]:
    return json.loads(captions_path(config).read_text())


def put_captions(config: CaptioningProtocolConfig, texts: list[str]) -> None:
    """Say something else of the images than the model did."""
    rows = [{**row, "caption": text} for row, text in zip(written(config), texts, strict=True)]
    captions_path(config).write_text(json.dumps(rows))


def test_captions_are_written_in_cocos_layout_and_scored(
    config: CaptioningProtocolConfig,
) -> None:
    (result,) = run(config)
    source = CocoSource(config.data.root, split="val")
    rows = written(config)
    assert [str(row["image_id"]) for row in rows] == [example.image_id for example in source]
    assert all(isinstance(row["image_id"], int) and row["log_likelihood"] < 0 for row in rows)
    (path,) = config.out.glob("captioning-*.json")
    assert Result.read(path) == result
    assert (result.headline, result.numbers["num_images"]) == ("CIDEr-D", NUM_IMAGES)
    assert result.initialisation["step"] == 4
    assert result.data["test"]["split"] == "val2017"
    assert not result.as_in_paper
    assert result.splits == "val2017"
    assert "; val2017; " in result.summary()
    names = {"CIDEr-D", "BLEU-1", "BLEU-4", "ROUGE-L", "unique_captions", "repeated_word"}
    names |= {"repeated_trigram", "empty_captions", "mean_words", "vocabulary", "num_bad"}
    assert names < result.numbers.keys()


def test_the_captions_are_those_of_the_predictor(config: CaptioningProtocolConfig) -> None:
    run(config)
    predictor = load_captioner(config.init)
    source = CocoSource(config.data.root, split="val")
    decoding = DecodingConfig(num_beams=2, max_steps=12)
    expected = predictor.caption([example.image for example in source], decoding)
    assert [row["caption"] for row in written(config)] == [one.text for one in expected]
    likelihoods = [row["log_likelihood"] for row in written(config)]
    assert likelihoods == pytest.approx([one.log_likelihood for one in expected], abs=1e-4)


def test_numbers_are_those_of_the_captions_that_were_kept(
    config: CaptioningProtocolConfig,
) -> None:
    run(config)
    source = CocoSource(config.data.root, split="val")
    put_captions(config, [example.captions[0] for example in source])
    (perfect,) = run(config)
    assert perfect.numbers["BLEU-4"] == pytest.approx(100)
    put_captions(config, ["a a bear"] * NUM_IMAGES)
    (dull,) = run(config)
    assert dull.numbers["unique_captions"] == pytest.approx(100 / NUM_IMAGES)
    assert dull.numbers["repeated_word"] == 100
    assert dull.numbers["mean_words"] == 3
    assert dull.score < perfect.score


def test_other_settings_get_captions_of_their_own(config: CaptioningProtocolConfig) -> None:
    run(config)
    run(replace(config, metrics=("rouge",)))
    assert len(list(config.out.glob("captions/*.json"))) == 1
    run(replace(config, num_beams=1))
    run(replace(config, nucleus=0.9, seed=3))
    run(replace(config, nucleus=0.9, seed=4))
    assert len(list(config.out.glob("captions/*.json"))) == 4


@pytest.mark.parametrize(
    "quirk", [("--image.original", "true"), ("--image.validation_resize", "96")], ids=str
)
def test_images_are_seen_as_in_transfer_however_the_run_validated_itself(
    config: CaptioningProtocolConfig, tmp_path: Path, quirk: tuple[str, str]
) -> None:
    out = tmp_path / "quirky"
    pretrain(small_config(out, "--run.num_steps", "1", "--task.head.max_tokens", "12", *quirk))
    own = replace(config, init=str(out))
    predictor = load_captioner(own.init)
    size = predictor.image.size
    assert predictor.image.validation_short_side != round(size * 256 / 224)
    (result,) = run(own)
    assert result.settings["validation_short_side"] == round(size * 256 / 224)
    for original in (False, True):
        generation = generation_of(replace(own, original=original), image_size=size, max_tokens=12)
        assert generation.image == ImageConfig(size=size)
        assert generation.decoding.original is original


class Val2017(Source):
    """As many images as the paper's."""

    def __len__(self) -> int:
        return 5000

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        raise NotImplementedError

    def identity(self) -> dict[str, str | int]:
        return {"source": "coco", "split": "val2017"}


@pytest.mark.parametrize(
    ("image", "decoding", "is_so"),
    [
        (ImageConfig(), DecodingConfig(original=True), True),
        (ImageConfig(validation_resize=256), DecodingConfig(original=True), True),
        (ImageConfig(original=True), DecodingConfig(original=True), False),
        (ImageConfig(size=192), DecodingConfig(original=True), False),
        (ImageConfig(), DecodingConfig(), False),
        (ImageConfig(), DecodingConfig(original=True, num_beams=3), False),
    ],
)
def test_figures_are_the_papers_only_with_its_short_side_and_search(
    image: ImageConfig, decoding: DecodingConfig, is_so: bool
) -> None:
    generation = Generation(decoding, image)
    assert as_in_paper(generation, Val2017()) is is_so
    assert generation.settings()["validation_short_side"] == image.validation_short_side


def test_captions_of_other_images_are_an_error(config: CaptioningProtocolConfig) -> None:
    run(config)
    rows = written(config)
    captions_path(config).write_text(json.dumps([{**rows[0], "image_id": 77}, *rows[1:]]))
    with pytest.raises(DataError, match=r"no references \(77\)"):
        run(config)
    captions_path(config).write_text("[{]")
    with pytest.raises(DataError, match="Remove it"):
        run(config)


@pytest.mark.parametrize(
    "changed",
    [
        {"caption": 5},
        {"caption": None},
        {"image_id": ["1"]},
        {"image_id": True},
        {"log_likelihood": "x"},
        {"log_likelihood": float("nan")},
        {"image_id": None},
    ],
    ids=str,
)
def test_an_edited_cache_is_named_with_the_remedy(
    config: CaptioningProtocolConfig, changed: dict
) -> None:
    run(config)
    rows = written(config)
    path = captions_path(config)
    path.write_text(json.dumps([{**rows[0], **changed}, *rows[1:]]))
    with pytest.raises(DataError, match=r"does not hold captions .* Remove it"):
        run(config)


@pytest.mark.parametrize("content", ["{}", "[]", "3", "[3]", "[" * 100_000, '["a"]', "\xff"])
def test_a_damaged_cache_is_named_with_the_remedy(
    config: CaptioningProtocolConfig, content: str
) -> None:
    run(config)
    captions_path(config).write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=r"does not hold captions .* Remove it"):
        run(config)


def test_a_cache_with_an_image_twice_is_refused(config: CaptioningProtocolConfig) -> None:
    run(config)
    rows = written(config)
    captions_path(config).write_text(json.dumps([*rows, {**rows[0], "caption": "a dog"}]))
    with pytest.raises(DataError, match="an image occurs twice"):
        run(config)


@pytest.mark.parametrize("nucleus", [None, 0.9])
def test_captions_of_a_model_of_nan_are_an_error_and_not_cached(
    config: CaptioningProtocolConfig, tmp_path: Path, nucleus: float | None
) -> None:
    init = str(diverged(Path(config.init), tmp_path / "nan"))
    with pytest.raises(CheckpointError, match="not numbers"):
        run(replace(config, init=init, nucleus=nucleus))
    assert not list(config.out.glob("**/*.json"))


@pytest.mark.parametrize("nucleus", [None, 0.9])
def test_captions_depend_neither_on_the_batch_size_nor_on_bad_images(
    config: CaptioningProtocolConfig, damaged: CaptioningProtocolConfig, nucleus: float | None
) -> None:
    reported = []
    for name, data, size in (("1", config, 6), ("2", damaged, 2), ("3", damaged, 6)):
        own = replace(data, out=config.out / name, batch_size=size, nucleus=nucleus)
        run(own)
        reported.append({row["image_id"]: row["caption"] for row in written(own)})
    assert reported[1] == reported[2]
    assert reported[1].items() < reported[0].items()
    if nucleus:
        assert len(set(reported[0].values())) == NUM_IMAGES  # each image has draws of its own


def test_bf16_captions_all_images(config: CaptioningProtocolConfig) -> None:
    (result,) = run(replace(config, precision="bf16"))
    assert result.numbers["num_images"] == NUM_IMAGES


def test_a_corrupt_image_is_counted_and_left_out(damaged: CaptioningProtocolConfig) -> None:
    (result,) = run(damaged)
    assert (result.numbers["num_images"], result.numbers["num_bad"]) == (NUM_IMAGES - 1, 1)
    reported = [str(row["image_id"]) for row in written(damaged)]
    expected = [example.image_id for example in CocoSource(damaged.data.root, split="val")]
    del expected[BROKEN]
    assert reported == expected


def test_two_processes_give_the_result_of_one(damaged: CaptioningProtocolConfig) -> None:
    config = replace(damaged, nucleus=0.9)
    alone, together = replace(config, out=config.out / "1"), replace(config, out=config.out / "2")
    (expected,) = run(alone)
    measure_by_two({"captioning": together})
    (path,) = together.out.glob("captioning-*.json")
    assert Result.read(path).numbers == pytest.approx(expected.numbers)
    reported = [
        [(row["image_id"], row["caption"]) for row in written(one)] for one in (together, alone)
    ]
    assert reported[0] == reported[1]


def test_mistakes_in_the_options_are_all_named(config: CaptioningProtocolConfig) -> None:
    wrong = replace(config, batch_size=0, num_workers=-1, metrics=("cider", "rogue"), init="random")
    with pytest.raises(ConfigError) as raised:
        run(wrong)
    assert all(
        word in str(raised.value) for word in ("batch_size 0", "num_workers -1", "rogue", "random")
    )


def test_data_without_a_val_split_are_refused(
    config: CaptioningProtocolConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no images to caption"):
        run(replace(config, data=SourceConfig("scenes", num_images=4, num_val_images=0)))


def test_weights_that_write_no_captions_are_refused(
    config: CaptioningProtocolConfig, tmp_path: Path
) -> None:
    out = tmp_path / "classes"
    pretrain(small_config(out, "--task", "token_classification", "--run.num_steps", "1"))
    with pytest.raises(CheckpointError, match="writes no captions"):
        run(replace(config, init=str(out)))


def test_the_recipe_is_the_papers(tmp_path: Path) -> None:
    flags = ["--config", "captioning", "--init", "RUN", "--out", str(tmp_path)]
    recipe = parse(CaptioningProtocolConfig, with_recipes(flags, "transfer"), prog="virtex")
    assert recipe == CaptioningProtocolConfig(init="RUN", out=tmp_path, original=True)
    assert as_in_paper(generation_of(recipe, image_size=224, max_tokens=30), Val2017())
    assert (recipe.num_beams, recipe.metrics[0], recipe.data.source) == (5, "cider", "coco")
