import io
import pickle
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from PIL import Image

from tests.data.sources.hub_sets import CLASSES, IMAGE, TEXT, captioned, datasets, images, make_set
from tests.data.sources.layouts import contents, jpeg, write
from tests.small_run import small_config
from virtex.data.images import decode_image
from virtex.data.pixels import BadImageError
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.sources import huggingface
from virtex.data.subsets import few_shots
from virtex.data.validation import check_disjoint
from virtex.errors import ConfigError, DataError
from virtex.pretrain import parse_pretrain, pretrain
from virtex.zoo.tensor_file import read_tensor_file
from virtex.zoo.weights_file import WEIGHTS_NAME

CAPTIONS, LABELS = Needs(captions=True), Needs(labels=True)


def opened(root: Path, needs: Needs = CAPTIONS, split: Any = "train", **options: Any) -> Any:
    config = SourceConfig(source="huggingface", root=root, **options)
    return open_source(config, split=split, needs=needs)


def saved(folder: Path, data: Any) -> Path:
    data.save_to_disk(folder)
    return folder


def error_of(root: Path, needs: Needs = CAPTIONS, **options: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as raised:
        opened(root, needs, **options)
    return str(raised.value)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield


def test_a_saved_set_gives_its_images_undecoded_with_their_captions(tmp_path: Path) -> None:
    root = saved(tmp_path / "set", captioned("a cat", "two dogs"))
    source = opened(root)
    assert contents(source) == {"10.jpg": ("a cat",), "11.jpg": ("two dogs",)}
    assert source[1].image == jpeg(11)
    assert decode_image(source[1].image)[0, 0].tolist() == [11, 11, 11]
    assert [source.image_id(1), source.captions(1)] == ["11.jpg", ("two dogs",)]


def test_auto_finds_a_saved_set_and_a_dictionary_of_splits(tmp_path: Path) -> None:
    one = captioned("a cat")
    for data in (one, datasets.DatasetDict({"train": one, "validation": one})):
        root = saved(tmp_path / str(type(data).__name__), data)
        assert len(open_source(SourceConfig(root=root), split="train")) == 1


def test_a_saved_set_or_split_without_rows_says_so(tmp_path: Path) -> None:
    none, one = make_set({"caption": TEXT}, caption=[]), captioned("a cat")
    root = saved(tmp_path / "none", none)
    assert "cannot be read: it has no rows" in error_of(root)
    both = datasets.DatasetDict({"train": one, "validation": none})
    assert "split validation has no rows" in error_of(saved(tmp_path / "both", both))
    selected = saved(tmp_path / "selected", one.select([]))
    assert "it has no rows" in error_of(selected)
    nothing = saved(tmp_path / "nothing", datasets.DatasetDict({}))
    assert "has no split at all. Save it again, with a split train" in error_of(nothing)


SENTENCES = [[{"raw": "a cat", "id": 1}, {"raw": "the cat", "id": 2}], [{"raw": "dogs", "id": 3}]]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (datasets.List(TEXT), [["a cat", "the cat"], ["dogs"]]),
        (datasets.List({"raw": TEXT, "id": datasets.Value("int32")}), SENTENCES),
        ({"raw": datasets.List(TEXT)}, [{"raw": ["a cat", "the cat"]}, {"raw": ["dogs"]}]),
    ],
)
def test_captions_are_strings_in_lists_and_records(tmp_path: Path, kind: Any, values: Any) -> None:
    root = saved(tmp_path / "set", make_set({"sentences": kind}, sentences=values))
    assert [one.captions for one in opened(root)] == [("a cat", "the cat"), ("dogs",)]


def test_bad_captions_beside_a_good_one_are_left_out_and_counted(tmp_path: Path) -> None:
    root = saved(tmp_path / "set", captioned(["a cat"], ["dogs", " ", None]))
    assert "rows whose caption is in part empty or not text: 1 (row 1)" in error_of(root)
    found = opened(root, missing_caption_limit=0.5)
    assert [one.captions for one in found] == [("a cat",), ("dogs",)]


def test_named_columns_come_before_the_usual_ones(tmp_path: Path) -> None:
    record = {"en": TEXT, "de": TEXT}
    data = make_set(
        {"caption": TEXT, "alt": record, "small": IMAGE},
        caption=["no"],
        alt=[{"en": "a cat", "de": "eine Katze"}],
        small=images(7),
    )
    root = saved(tmp_path / "set", data)
    source = opened(root, image_column="small", caption_column="alt.de")
    assert contents(source) == {"7.jpg": ("eine Katze",)}
    assert source.identity()["caption_column"] == "alt.de"
    assert contents(opened(root, image_column="small")) == {"7.jpg": ("no",)}


def test_what_cannot_be_told_lists_the_columns_with_their_types(tmp_path: Path) -> None:
    data = make_set({"left": IMAGE, "words": TEXT}, left=images(1), words=["a cat"])
    root = saved(tmp_path / "two", data.rename_column("image", "right"))
    listed = "The columns are left (image), words (string), right (image)."
    several = error_of(root)
    assert f"Several columns may hold images: left, right. {listed}" in several
    assert "--data.image_column" in several
    nameless = error_of(root, image_column="left")
    assert "No column of text is named caption, captions, text, title," in nameless
    assert f"{listed} Name one with --data.caption_column." in nameless
    absent = error_of(root, caption_column="alt", image_column="left")
    assert "There is no column alt. The columns are left (image), words" in absent
    assert "words is of string, and images are" in error_of(root, image_column="words")


def test_labels_come_with_the_names_of_their_classes(tmp_path: Path) -> None:
    data = make_set({"label": CLASSES, "id": datasets.Value("int64")}, label=[1, 0], id=[5, 6])
    source = opened(saved(tmp_path / "set", data), LABELS)
    assert source.categories == ("cat", "dog")
    assert [one.labels for one in source] == [(1,), (0,)]
    assert source.labels(0) == (1,)


def test_integers_are_classes_up_to_the_largest_of_all_splits(tmp_path: Path) -> None:
    integers = {"label": datasets.Value("int64")}
    splits = {name: make_set(integers, label=[value]) for name, value in (("train", 1), ("val", 3))}
    root = saved(tmp_path / "set", datasets.DatasetDict(splits))
    for split in splits:
        assert opened(root, LABELS, split).categories == ("0", "1", "2", "3")


def test_lists_of_classes_give_several_labels_and_skipped_rows_keep_theirs(tmp_path: Path) -> None:
    several = {"labels": datasets.List(CLASSES), "text": TEXT}
    data = make_set(several, labels=[[0, 1], [1], []], text=["x", "", "z"])
    root = saved(tmp_path / "set", data)
    source = opened(root, Needs(captions=True, labels=True), missing_caption_limit=0.5)
    assert [(one.image_id, one.labels) for one in source] == [("10.jpg", (0, 1)), ("12.jpg", ())]
    assert source[1].image == jpeg(12)
    assert source.identity()["skipped_images"] == 1


def test_a_label_that_a_list_repeats_counts_once(tmp_path: Path) -> None:
    data = make_set({"labels": datasets.List(CLASSES)}, labels=[[1, 1, 1], [1, 0, 1], [0]])
    source = opened(saved(tmp_path / "set", data), LABELS)
    assert [one.labels for one in source] == [(1,), (1, 0), (0,)]
    shown = [label for one in few_shots(source, 2, seed=0) for label in one.labels]
    assert sorted(shown) == [0, 0, 1, 1]


def test_labels_without_a_class_and_captions_that_are_missing_are_problems(tmp_path: Path) -> None:
    data = make_set({"label": CLASSES, "text": TEXT}, label=[-1, 0], text=["x", None])
    message = error_of(saved(tmp_path / "set", data), Needs(captions=True, labels=True))
    assert "rows without a caption: 1 (row 1)" in message
    assert "rows with a label that is no class: 1 (row 0)" in message


def test_an_image_that_is_only_a_path_is_read_if_it_is_a_file_here(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", jpeg(5))
    data = captioned("x", "y", image=[{"bytes": None, "path": str(path)}] * 2)
    listed = datasets.DatasetDict({"train": data})
    source = huggingface.HuggingFaceSource(tmp_path, listed, "train", needs=CAPTIONS)
    assert [one.image for one in source] == [path, path]
    gone = captioned("x", image=[{"bytes": None, "path": "https://a.b/c.jpg"}])
    with pytest.raises(DataError, match=r"neither in the data set nor a file: 1 \(row 0: https:"):
        huggingface.HuggingFaceSource(tmp_path, {"train": gone}, "train", needs=CAPTIONS)


def test_a_data_set_of_the_hub_names_no_files_outside_of_its_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(cache))
    inside, outside = write(cache / "a.jpg", jpeg(5)), write(tmp_path / "b.jpg", jpeg(6))
    (cache / "link.jpg").symlink_to(outside)
    for path in (inside, outside, cache / ".." / "b.jpg", cache / "link.jpg"):
        data = captioned("x", image=[{"bytes": None, "path": str(path)}])
        if path == inside:
            source = huggingface.HuggingFaceSource(
                Path("someone/pairs"), {"train": data}, "train", needs=CAPTIONS
            )
            assert source[0].image == inside
            continue
        with pytest.raises(DataError, match=r"neither in the data set nor a file: 1 \(row 0"):
            huggingface.HuggingFaceSource(
                Path("someone/pairs"), {"train": data}, "train", needs=CAPTIONS
            )


def test_a_file_larger_than_any_image_is_a_bad_image_and_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(saved(tmp_path / "set", captioned("a cat")))
    monkeypatch.setattr(huggingface, "MAX_FILE_BYTES", 10)
    with pytest.raises(BadImageError, match="a file of"):
        source[0]


def test_images_that_share_a_file_name_have_row_numbers_and_one_side(tmp_path: Path) -> None:
    pictures = [image for value in range(30) for image in images(value, value)]
    root = saved(tmp_path / "set", captioned(*(f"c {row}" for row in range(60)), image=pictures))
    assert opened(root).image_id(59) == "59"
    sides = [opened(root, split=split, val_share=0.4) for split in ("train", "val")]
    train, val = ({one.image for one in side} for side in sides)
    assert len(train) > 5
    assert len(val) > 5
    assert not train & val


def test_splits_are_found_and_named(tmp_path: Path) -> None:
    splits = {name: captioned(name) for name in ("train", "validation", "extra")}
    root = saved(tmp_path / "set", datasets.DatasetDict(splits))

    def first(split: str, **options: Any) -> str:
        return opened(root, split=split, **options)[0].captions[0]

    assert [first("train"), first("val")] == ["train", "validation"]
    assert first("train", train_split="extra") == "extra"
    assert first("val", val_split="extra") == "extra"
    assert opened(root, split="val", train_split="validation") is None
    assert "no split test, it has train, validation, extra" in error_of(root, train_split="test")
    assert "holds out other images" in error_of(root, val_share=0.5)
    alone = saved(tmp_path / "alone", captioned("alone"))
    assert opened(alone, split="val") is None
    assert first("val", val_root=alone) == "alone"
    assert "has no splits" in error_of(alone, train_split="train")


def test_rows_that_are_trained_on_are_no_validation_data(tmp_path: Path) -> None:
    splits = {name: captioned("a cat", "a dog") for name in ("train", "validation")}
    root = saved(tmp_path / "set", datasets.DatasetDict(splits))
    train = opened(root)
    with pytest.raises(ConfigError, match=r"^2 of the 2 validation images would be trained on"):
        check_disjoint(train, opened(root / "train", split="val", val_root=root / "train"))
    check_disjoint(train, opened(root, split="val", val_root=root))


def test_a_pickled_source_is_small_and_gives_the_same(tmp_path: Path) -> None:
    source = opened(saved(tmp_path / "set", captioned(*("a cat",) * 500)))
    data = pickle.dumps(source)
    assert len(data) < 60_000  # ids and captions, no images
    copied = pickle.loads(data)
    assert copied[499].image == source[499].image
    assert copied.identity() == source.identity()


def test_identity_tells_captions_and_images_apart(tmp_path: Path) -> None:
    def digest(name: str, data: Any) -> str:
        return opened(saved(tmp_path / name, data)).identity()["sha256"]

    one = digest("one", captioned("a cat"))
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    other = [{"bytes": buffer.getvalue(), "path": "10.jpg"}]
    assert digest("same", captioned("a cat")) == one
    assert digest("words", captioned("a dog")) != one
    assert digest("image", captioned("a cat", image=other)) != one


def test_a_folder_in_the_layout_of_the_hub_is_read(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        captioned(split).to_parquet(tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    for split in ("train", "val"):
        assert opened(tmp_path / "set", split=split)[0].captions[0].startswith(split)


def test_a_name_on_the_hub_is_loaded_with_revision_and_subset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def load_dataset(name: str, subset: str | None, **options: Any) -> Any:
        calls.append((name, subset, options["revision"], "trust_remote_code" in options))
        return datasets.DatasetDict({"train": captioned("a cat")})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(opened(Path("some.one/pairs@main"), subset="large")) == 1
    assert len(opened(Path("some.one/pairs"))) == 1
    assert calls == [
        ("some.one/pairs", "large", "main", False),
        ("some.one/pairs", None, None, False),
    ]
    assert "neither a folder nor the name" in error_of(Path("https://hub/a/b"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (datasets.exceptions.DatasetNotFoundError("gated"), "log in by `hf auth login`"),
        (ConnectionError("no route"), "cannot be reached for a/b"),
        (RuntimeError("Dataset scripts are no longer supported"), "a/b@refs/convert/parquet"),
        (ValueError("Config name is missing. Pick one of ['x', 'y']"), "has several subsets"),
        (ValueError("BuilderConfig 'x' not found. Available: ['y']"), "has no such subset"),
        (ValueError("Data files in the config README.md are elsewhere"), "cannot be read"),
        (KeyError("any other"), "KeyError: 'any other'"),
    ],
)
def test_what_the_hub_refuses_is_said_in_words(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    assert words in error_of(Path("a/b@x"))


def test_a_hub_that_is_offline_is_said_in_words() -> None:
    assert "cannot be reached for no/such" in error_of(Path("no/such"))


def test_without_datasets_its_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = saved(tmp_path / "set", captioned("a cat"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install datasets" in error_of(root)


def test_auto_says_how_to_name_a_data_set_of_the_hub() -> None:
    with pytest.raises(ConfigError, match=r"on the Hugging Face hub, add --data\.source"):
        open_source(SourceConfig(root=Path("some/name")), split="train")


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_damaged_set_is_refused(tmp_path: Path, name: str) -> None:
    root = saved(tmp_path / "set", captioned("a cat"))
    write(root / name, b"{damaged")
    assert "cannot be read" in error_of(root)


def test_a_run_on_a_saved_set_resumes_bit_for_bit(tmp_path: Path) -> None:
    root = saved(tmp_path / "set", captioned(*([f"a cat {row}", "dogs"] for row in range(24))))
    flags = ["--data", f"{{source: huggingface, root: {root}}}", "--tokenizer.vocab_size", "30"]
    run = tmp_path / "run"
    states = []
    for is_resumed in (False, True):
        pretrain(parse_pretrain(["--out", str(run)]) if is_resumed else small_config(run, *flags))
        states.append(read_tensor_file(run / WEIGHTS_NAME).values)
        for step in (4, 6):
            (run / "checkpoints" / f"step_{step:08d}.pt").unlink()
        (run / WEIGHTS_NAME).unlink()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
