"""The blind control against a slow twin: one image and one caption at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_run import small_config
from virtex.data.layouts import write_scenes
from virtex.data.source import SourceConfig
from virtex.data.sources.coco import CocoSource
from virtex.errors import CheckpointError, DataError
from virtex.predict.loading import load_captioner
from virtex.pretrain import pretrain
from virtex.transfer import captioning
from virtex.transfer.blind import OtherImages, cyclic_permutation, losses_of
from virtex.transfer.caption_generation import GeneratedCaption
from virtex.transfer.captioning import CaptioningProtocolConfig, generation_of, scores_of

NUM_IMAGES = 5


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> CaptioningProtocolConfig:
    """A run of a few steps, and images to caption."""
    folder = tmp_path_factory.mktemp("blind")
    pretrain(small_config(folder / "run", "--run.num_steps", "4", "--task.head.max_tokens", "12"))
    write_scenes("coco", folder / "coco", num_train=2, num_val=NUM_IMAGES, image_size=64)
    return CaptioningProtocolConfig(
        init=str(folder / "run"),
        out=folder / "results",
        data=SourceConfig("coco", root=folder / "coco"),
        num_beams=2,
        batch_size=2,
        num_workers=0,
        device="cpu",
        blind=True,
        seed=3,
    )


def slow_loss(config: CaptioningProtocolConfig, images: np.ndarray) -> float:
    """The loss per token of all captions, those of image i read with that of images[i]."""
    predictor = load_captioner(config.init)
    source = CocoSource(Path(str(config.data.root)), split="val")
    total, num_tokens = 0.0, 0
    for index, image in enumerate(images.tolist()):
        for caption in source.captions(index):
            for direction in ("forward", "backward"):
                total -= predictor.score([source[image].image], caption, direction=direction)[0]
            num_tokens += min(len(predictor.tokenizer.encode(caption)), 10) + 1
    return total / num_tokens


def test_losses_are_those_of_one_caption_at_a_time(config: CaptioningProtocolConfig) -> None:
    (result,) = captioning.run(config)
    numbers, others = result.numbers, cyclic_permutation(NUM_IMAGES, seed=3)
    assert numbers["loss"] == pytest.approx(slow_loss(config, np.arange(NUM_IMAGES)), rel=1e-4)
    assert numbers["blind_loss"] == pytest.approx(slow_loss(config, others), rel=1e-4)
    assert numbers["image_gain"] == pytest.approx(numbers["blind_loss"] - numbers["loss"])
    assert numbers["image_gain"] != 0
    assert {"blind_CIDEr-D", "blind_BLEU-4", "blind_ROUGE-L"} < numbers.keys()
    assert result.companions.keys() == {"blind_CIDEr-D"}


def test_without_blind_the_other_numbers_are_the_same(
    config: CaptioningProtocolConfig,
) -> None:
    (blind,) = captioning.run(config)
    (plain,) = captioning.run(replace(config, blind=False))
    assert plain.numbers.items() <= blind.numbers.items()
    assert not any("blind" in name or "loss" in name for name in plain.numbers)
    assert plain.file_name != blind.file_name  # neither replaces the other


def test_captions_are_scored_against_the_references_of_another_image(
    config: CaptioningProtocolConfig,
) -> None:
    source = CocoSource(Path(str(config.data.root)), split="val")
    own = {one.image_id: GeneratedCaption(one.captions[0], 0.0) for one in source}
    others = OtherImages(source, seed=0)
    swapped = others.replaced(own)
    assert swapped.keys() == own.keys()
    assert all(swapped[name] is not own[name] for name in own)
    perfect, blind = (scores_of(given, source, ["bleu"]) for given in (own, swapped))
    assert perfect["BLEU-4"] == pytest.approx(100)
    assert blind["BLEU-4"] < 90
    del own[source.image_id(2)]
    assert len(others.replaced(own)) == NUM_IMAGES - 2


def test_every_image_is_replaced_by_another_and_each_is_used_once() -> None:
    for number in (2, 3, 17):
        others = cyclic_permutation(number, seed=1)
        assert sorted(others.tolist()) == list(range(number))
        assert (others != np.arange(number)).all()
    assert cyclic_permutation(17, seed=1).tolist() == cyclic_permutation(17, seed=1).tolist()
    assert cyclic_permutation(17, seed=1).tolist() != cyclic_permutation(17, seed=2).tolist()


def test_images_that_cannot_be_read_leave_both_losses(
    config: CaptioningProtocolConfig, tmp_path: Path
) -> None:
    root = tmp_path / "coco"
    write_scenes("coco", root, num_train=2, num_val=NUM_IMAGES, image_size=64)
    sorted((root / "val2017").iterdir())[0].write_bytes(b"no image")
    broken = replace(config, data=SourceConfig("coco", root=root), out=tmp_path / "out")
    (result,) = captioning.run(broken)
    assert result.numbers["num_bad"] == 1
    assert result.numbers["image_gain"] == pytest.approx(
        result.numbers["blind_loss"] - result.numbers["loss"]
    )


def test_losses_of_a_model_of_nan_are_an_error(config: CaptioningProtocolConfig) -> None:
    predictor = load_captioner(config.init)
    with torch.no_grad():
        predictor.captioner.head.output_bias[5] = float("nan")
    generation = generation_of(config, image_size=predictor.image.size, max_tokens=12)
    source = CocoSource(Path(str(config.data.root)), split="val")
    with pytest.raises(CheckpointError, match="not numbers"):
        losses_of(source, predictor, generation)


def test_one_image_alone_is_refused(config: CaptioningProtocolConfig, tmp_path: Path) -> None:
    root = tmp_path / "coco"
    write_scenes("coco", root, num_train=2, num_val=1, image_size=64)
    alone = replace(config, data=SourceConfig("coco", root=root), out=tmp_path / "out")
    with pytest.raises(DataError, match="blind needs two"):
        captioning.run(alone)
    assert not (tmp_path / "out" / "captions").exists()
