"""LocCa: the sequences of captions and boxes, their losses, and images with nothing to say."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.data.small_objects import example_of, filled
from tests.models.small import SLIM
from tests.oracles import locca as twin
from tests.oracles.textual_head import PaddedCaptioner
from tests.small_run import small_config
from tests.tasks.small_tasks import SCENES, scenes_batch, without_gradient
from tests.tasks.small_tasks import build as build_on_scenes
from virtex.data.captions import class_words
from virtex.data.example import Example
from virtex.data.layouts.layout_writer import write_scenes
from virtex.data.masks import box_around
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.data.transforms import ImageConfig, normalize
from virtex.errors import ConfigError, DataError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.textual_head import HeadConfig
from virtex.pretrain import pretrain
from virtex.tasks.base import TaskData
from virtex.tasks.locca import LocCa, LocCaConfig
from virtex.tokens import EOS_ID

CATEGORIES = ("dog", "fire_hydrant", "cat")
CAPTIONS = ("a dog on the left", "two cats sleep", "a fire hydrant")
TOKENIZER = train_tokenizer([*CAPTIONS, "right", "dog cat"], vocab_size=60)
HEAD = HeadConfig(hidden_size=24, num_heads=3, num_layers=2, dropout=0.0, max_tokens=30)
SIZE = 64
PLAIN = ImageConfig(size=SIZE, flip_prob=0.0, jitter_prob=0.0)
OBJECTS = [
    [(3, 5, 21, 40), (30, 10, 64, 64)],
    [(0, 0, 17, 9)],
    [(8, 8, 20, 63), (1, 2, 33, 21), (40, 0, 50, 12)],
]


def build(
    image: ImageConfig = PLAIN, *, categories: tuple[str, ...] = CATEGORIES, **options: object
) -> LocCa:
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM))
    config = LocCaConfig(**{"head": HEAD, "zoom": (1.0, 1.0), "num_bins": 20, **options})
    task = config.build(backbone, TaskData(image, TOKENIZER, categories))
    for parameter in task.captioner.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return task


def example(*boxes: tuple[int, int, int, int], **changes: object) -> Example:
    """An image that is bright within its boxes, of which box i is of class i."""
    return example_of(*(filled(SIZE, SIZE, box) for box in boxes), **changes)


def examples() -> list[Example]:
    return [
        example(*boxes, captions=(caption,))
        for boxes, caption in zip(OBJECTS, CAPTIONS, strict=True)
    ]


def without_objects(**changes: object) -> Example:
    boxes = np.zeros((0, 4), np.float32)
    return example((0, 0, 5, 5), boxes=boxes, box_labels=(), masks=(), **changes)


def words(text: str) -> list[int]:
    return TOKENIZER.encode(text)


def sequences(encoded: dict[str, Tensor]) -> list[list[int]]:
    """The sequences of an encoded image that predict something."""
    found = encoded["tokens"].split(encoded["lengths"].tolist())
    return [one.tolist() for one in found if len(one) > 1]


def boxes_in(task: LocCa, encoded: dict[str, Tensor]) -> np.ndarray:
    """The boxes (M, 4) in pixels that an encoded image names."""
    locations = task.encode.read.locations
    tokens = [
        [token for token in sequence if token >= locations.first_id]
        for sequence in sequences(encoded)
    ]
    return locations.decode(torch.tensor([one for one in tokens if one]).view(-1, 4))


def batch_of(task: LocCa, found: list[Example]) -> dict[str, Tensor]:
    return task.collate([task.encode(one, np.random.default_rng(i)) for i, one in enumerate(found)])


WEIGHTED = {"caption_weight": 0.5, "aref_weight": 2.0, "gcap_weight": 3.0}
TWIN_OPTIONS = {
    "all": {},
    "weighted": WEIGHTED,
    "given": {"predict_given": False, **WEIGHTED},
    "boxes_alone": {"caption_weight": 0.0, "gcap_weight": 0.0},
}


@pytest.mark.parametrize("options", TWIN_OPTIONS.values(), ids=TWIN_OPTIONS.keys())
def test_the_loss_is_that_of_the_slow_twin(options: dict[str, float]) -> None:
    task = build(**options)
    task.backbone.eval()
    batch = batch_of(task, examples())
    padded = PaddedCaptioner(task.captioner).eval()
    grids = padded.visual(normalize(batch["image"]))
    sums = [[], [], []]
    for index, boxes in enumerate(OBJECTS):
        named = [(words(CATEGORIES[i].replace("_", " ")), box) for i, box in enumerate(boxes)]
        caption = words(CAPTIONS[index])
        for read in twin.sequences(caption, named, vocab_size=60, num_bins=20, size=SIZE):
            given, following = twin.losses(padded, grids[index : index + 1], read)
            sums[read.reading] += (
                following if options.get("predict_given") is False else (given + following)
            )
    means = [torch.stack(one).mean() for one in sums]
    weights = [options.get(f"{name}_weight", 1.0) for name in ("caption", "aref", "gcap")]
    output = task(batch)
    expected = sum(weight * mean for weight, mean in zip(weights, means, strict=True))
    torch.testing.assert_close(output.loss, expected)
    for name, weight, mean in zip(("caption", "aref", "gcap"), weights, means, strict=True):
        assert (name in output.logs) == (weight > 0)
        if weight:
            torch.testing.assert_close(output.logs[name], mean)


def test_the_halves_that_follow_are_logged_by_themselves() -> None:
    whole, halves = build(), build(predict_given=False)
    halves.load_state_dict(whole.state_dict())
    batches = [batch_of(task.eval(), examples()) for task in (whole, halves)]
    logs, expected = whole(batches[0]).logs, halves(batches[1]).logs
    torch.testing.assert_close(logs["aref_box"], expected["aref"])
    torch.testing.assert_close(logs["gcap_words"], expected["gcap"])
    assert expected.keys() == {"caption", "aref", "gcap"}


def test_sequences_are_written_as_the_paper_writes_them() -> None:
    task = build(num_bins=SIZE)
    one = example((3, 5, 21, 40), captions=("two cats sleep",), box_labels=(1,))
    size = len(TOKENIZER)
    hydrant, box = words("fire hydrant"), [size + 3 + value for value in (3, 5, 21, 40)]
    assert sequences(task.encode(one, np.random.default_rng(0))) == [
        [size, *words("two cats sleep"), EOS_ID],
        [size + 1, *hydrant, *box],
        [size + 2, *box, *hydrant, EOS_ID],
    ]


def test_a_flip_mirrors_the_boxes_and_swaps_left_and_right() -> None:
    task = build(dataclasses.replace(PLAIN, flip_prob=1.0), num_bins=SIZE, gcap_weight=0.0)
    one = example((3, 5, 21, 40), captions=("a dog on the left",))
    encoded = task.encode(one, np.random.default_rng(0))
    caption, _ = sequences(encoded)
    assert TOKENIZER.decode([token for token in caption if token < len(TOKENIZER)]) == (
        "a dog on the right"
    )
    assert np.abs(boxes_in(task, encoded) - [[43, 5, 61, 40]]).max() <= 0.5
    assert np.abs(box_around(encoded["image"][0].numpy() > 0) - [43, 5, 61, 40]).max() == 0


@pytest.mark.parametrize("seed", range(12))
def test_a_box_lies_where_the_zoomed_image_shows_the_object(seed: int) -> None:
    image = ImageConfig(size=80, jitter_prob=0.0)
    task = build(image, num_bins=80, zoom=(0.6, 2.0), caption_weight=0.0, gcap_weight=0.0)
    one = example_of(filled(60, 90, (20, 5, 71, 44)))
    encoded = task.encode(one, np.random.default_rng(seed))
    padding = encoded["image"][:, -1, -1]
    seen = encoded["image"][0].numpy() >= 128
    assert encoded["image"].shape == (3, 80, 80)
    assert padding.tolist() in ([124, 116, 104], [0, 0, 0], [255, 255, 255])
    assert np.abs(box_around(seen) - boxes_in(task, encoded)[0]).max() <= 1.5


def test_an_object_that_the_crop_leaves_out_has_no_sequence() -> None:
    task = build(num_bins=SIZE, zoom=(2.0, 2.0), caption_weight=0.0, gcap_weight=0.0)
    corners = example((0, 0, 20, 20), (44, 44, 64, 64))
    counts = [
        len(sequences(task.encode(corners, np.random.default_rng(seed)))) for seed in range(40)
    ]
    assert {0, 1} <= set(counts)


def test_crowds_are_left_out_and_difficult_objects_are_not() -> None:
    task = build(num_bins=SIZE, caption_weight=0.0, gcap_weight=0.0)
    one = example(*OBJECTS[2], crowd=(False, True, False), difficult=(True, False, False))
    for encode in (task.encode, task.encode_validation):
        found = boxes_in(task, encode(one, np.random.default_rng(0)))
        expected = [[8, 8, 20, 63], [40, 0, 50, 12]]
        assert np.abs(found[found[:, 0].argsort()] - expected).max() <= 0.5


def test_objects_are_drawn_in_training_and_the_first_ones_are_taken_in_validation() -> None:
    task = build(num_bins=SIZE, max_objects=2, caption_weight=0.0, gcap_weight=0.0)
    one = example(*OBJECTS[2])
    drawn = {
        tuple(np.round(boxes_in(task, task.encode(one, np.random.default_rng(seed)))[:, 0]))
        for seed in range(40)
    }
    assert len(drawn) == 6  # each pair in either order
    validation = task.encode_validation(one, np.random.default_rng(3))
    assert np.abs(boxes_in(task, validation) - OBJECTS[2][:2]).max() <= 0.5


def test_an_encoding_is_a_function_of_its_generator() -> None:
    task = build(ImageConfig(size=SIZE), zoom=(0.8, 1.25))
    encode = pickle.loads(pickle.dumps(task.encode))
    for seed in range(5):
        first, again = (
            each(examples()[2], np.random.default_rng(seed)) for each in (task.encode, encode)
        )
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_an_image_without_objects_learns_from_its_caption_alone() -> None:
    task = build().eval()
    captions = [without_objects(captions=(caption,)) for caption in CAPTIONS]
    output = task(batch_of(task, captions))
    torch.testing.assert_close(output.loss.detach(), output.logs["caption"])
    assert output.logs["aref"] == output.logs["gcap"] == 0
    mixed = batch_of(task, [*examples(), without_objects(captions=("two cats sleep",))])
    alone = batch_of(task, examples())
    assert torch.equal(mixed["num_targets"][1:], alone["num_targets"][1:])
    torch.testing.assert_close(task(mixed).logs["aref"], task(alone).logs["aref"])


def test_a_batch_with_nothing_to_predict_has_no_loss_and_no_gradient() -> None:
    task = build(caption_weight=0.0)
    output = task(batch_of(task, [without_objects()] * 3))
    output.loss.backward()
    assert output.loss == 0
    assert without_gradient(task) == []
    assert all(not parameter.grad.any() for parameter in task.parameters())


def test_every_parameter_learns() -> None:
    task = build_on_scenes(LocCaConfig(head=HEAD))
    task(scenes_batch(task)).loss.backward()
    assert without_gradient(task) == []


def test_long_names_are_cut_to_leave_room_for_a_box() -> None:
    head = dataclasses.replace(HEAD, max_tokens=8)
    task = build(head=head, num_bins=SIZE)
    assert len(words("fire hydrant")) > 2
    one = example((3, 5, 21, 40), captions=("a dog on the left two cats",), box_labels=(1,))
    caption, aref, gcap = sequences(task.encode(one, np.random.default_rng(0)))
    assert (len(caption), len(aref), len(gcap)) == (8, 7, 8)
    assert aref[1:3] == gcap[5:7] == words("fire hydrant")[:2]


def test_it_writes_no_captions() -> None:
    assert not LocCaConfig.writes_captions
    assert build().writer is None


REFUSED = [
    ({"aref_weight": 0.0, "gcap_weight": 0.0}, "leaves no boxes.*--task captioning"),
    ({"caption_weight": -1.0}, "caption_weight -1.0 must be at least 0"),
    ({"aref_weight": float("nan")}, "aref_weight nan"),
    ({"max_objects": 0}, "max_objects 0 must be at least 1"),
    ({"num_bins": 1}, "num_bins 1 must be at least 2"),
    ({"zoom": (1.2, 0.8)}, "zoom"),
    ({"head": HeadConfig(max_tokens=6)}, "head.max_tokens 6 must be at least 7"),
    ({"label_smoothing": 1.0}, "label_smoothing"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_options_that_cannot_work_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LocCaConfig(**options)


def scenes_run(tmp_path: Path, layout: str, *flags: str) -> Path:
    """A run of a step on drawn scenes in a public data set's layout."""
    data, run = tmp_path / layout, tmp_path / "run"
    write_scenes(layout, data, num_train=16, num_val=4, image_size=64)
    options = ("--run.num_steps", "1", "--run.validate_every", "1", "--num_samples", "0")
    source = ("--data.source", layout, "--data.root", str(data))
    pretrain(small_config(run, "--task", "locca", *options, *source, *flags))
    return run


def test_voc_has_no_captions_and_its_vocabulary_is_the_words_of_its_classes(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"captions are needed, and .* voc has none"):
        scenes_run(tmp_path / "refused", "voc")
    run = scenes_run(tmp_path, "voc", "--task.caption_weight=0", "--data.val_split=test")
    tokenizer = Tokenizer.load(run / "tokenizer.model")
    for name in map(class_words, SCENES.categories):
        assert tokenizer.decode(tokenizer.encode(name)) == name
    assert '"val/aref"' in (run / "log.jsonl").read_text()


def test_coco_gives_captions_and_boxes_together(tmp_path: Path) -> None:
    log = (scenes_run(tmp_path, "coco") / "log.jsonl").read_text()
    assert all(f'"val/{name}"' in log for name in ("caption", "aref_box", "gcap_words"))


def test_a_class_without_a_name_is_refused() -> None:
    with pytest.raises(DataError, match=r"2 of 3 classes .* no words in their names: '', '_'"):
        build(categories=("dog", "", "_"))
