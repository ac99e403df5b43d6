"""`--data.source auto` finds what a root holds, or says what it looked for."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.data.sources.layouts import jpeg, write, write_coco, write_tar
from tests.data.sources.lists import FLICKR30K, KAGGLE, write_flickr, write_karpathy
from tests.small_run import small_config
from virtex.data.checks import quoted
from virtex.data.layout_search import LAYOUTS
from virtex.data.source import Needs, SourceConfig, open_source, resolved
from virtex.data.source_options import check_options
from virtex.data.sources.scenes import ScenesSource
from virtex.engine.run import RunFolder
from virtex.errors import ConfigError
from virtex.pretrain import parse_pretrain, pretrain
from virtex.run_options import settled

CAPTIONS, LABELS, BOXES = Needs(captions=True), Needs(labels=True), Needs(objects=True)


def folder(root: Path) -> Path:
    for name in ("a/1", "a/2", "b/3"):
        write(root / f"{name}.jpg", jpeg())
        write(root / f"{name}.txt", "a cat")
    return root


def img2dataset(root: Path) -> Path:
    write(root / "00000/000000017.jpg", jpeg())
    write(root / "00000/000000017.json", '{"caption": "a cat"}')
    return root


def classes(root: Path) -> Path:
    for name in ("train/cat/1", "train/dog/2", "val/cat/3", "val/dog/4"):
        write(root / f"{name}.JPEG", jpeg())
    return root


def one_set_of_classes(root: Path) -> Path:
    classes(root / "above")
    return root / "above" / "train"


def webdataset(root: Path) -> Path:
    write_tar(root / "train" / "0.tar", {"1.jpg": jpeg(), "1.txt": "a cat"})
    return root


def table(root: Path) -> Path:
    write(root / "images" / "1.jpg", jpeg())
    return write(root / "pairs.csv", "image,caption\nimages/1.jpg,a cat\n")


def json_list(root: Path) -> Path:
    write(root / "1.jpg", jpeg())
    return write(root / "a.json", ' [{"image": "1.jpg", "caption": "a cat"}]')


def text_table(root: Path) -> Path:
    write(root / "1.jpg", jpeg())
    return write(root / "a.txt", "image\tcaption\n1.jpg\ta cat\n")


def folder_with_table(root: Path) -> Path:
    write(root / "1.jpg", jpeg())
    write(root / "README.txt", "about")
    write(root / "more.json", "{}")
    write(root / "metadata.jsonl", '{"file_name": "1.jpg", "text": "a cat"}')
    return root


def coco_file(root: Path) -> Path:
    return write_coco(root) / "annotations" / "captions_train2017.json"


def coco_beside_a_table(root: Path) -> Path:
    write(root / "labels.tsv", "image\tcaption\n")
    return write_coco(root)


def lvis(root: Path) -> Path:
    write(root / "annotations" / "lvis_v1_train.json", "{}")
    write(root / "train2017" / "1.jpg", jpeg())
    return root


def lvis_and_coco(root: Path) -> Path:
    return lvis(write_coco(root))


def inaturalist(root: Path) -> Path:
    write(root / "train2018.json", "{}")
    write(root / "train_val2018/Plants/1/2.jpg", jpeg())
    return root


def voc(root: Path) -> Path:
    write(root / "VOCdevkit/VOC2007/ImageSets/Main/train.txt", "")
    write(root / "VOCdevkit/VOC2007/JPEGImages/1.jpg", jpeg())
    return root


def karpathy_folder(root: Path) -> Path:
    return write_karpathy(root).parent


def kaggle(root: Path) -> Path:
    return write_flickr(root, KAGGLE, name="captions.txt", images="Images").parent


def flickr30k(root: Path) -> Path:
    return write_flickr(root, FLICKR30K, name="results.csv")


def brackets(root: Path) -> Path:
    return write_coco(root / "COCO [x] *")


@pytest.mark.parametrize(
    ("write_layout", "needs", "source"),
    [
        (write_coco, CAPTIONS, "coco"),
        (coco_file, CAPTIONS, "coco"),
        (coco_beside_a_table, CAPTIONS, "coco"),
        (brackets, CAPTIONS, "coco"),
        (lvis, BOXES, "lvis"),
        (lvis_and_coco, CAPTIONS, "coco"),
        (write_karpathy, CAPTIONS, "karpathy"),
        (karpathy_folder, CAPTIONS, "karpathy"),
        (write_flickr, CAPTIONS, "flickr"),
        (kaggle, CAPTIONS, "flickr"),
        (flickr30k, CAPTIONS, "flickr"),
        (folder, CAPTIONS, "folder"),
        (folder, LABELS, "classes"),
        (folder, Needs(), "folder"),
        (img2dataset, CAPTIONS, "folder"),
        (classes, LABELS, "classes"),
        (classes, Needs(), "classes"),
        (one_set_of_classes, LABELS, "classes"),
        (webdataset, CAPTIONS, "webdataset"),
        (table, CAPTIONS, "table"),
        (json_list, CAPTIONS, "table"),
        (text_table, CAPTIONS, "table"),
        (folder_with_table, CAPTIONS, "table"),
        (inaturalist, LABELS, "inaturalist"),
        (voc, LABELS, "voc"),
    ],
)
def test_a_layout_is_found(
    tmp_path: Path,
    write_layout: Callable[[Path], Path],
    needs: Needs,
    source: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = write_layout(tmp_path)
    with caplog.at_level("INFO"):
        config = resolved(SourceConfig(root=root), needs)
    assert config.source == source
    assert [record.getMessage() for record in caplog.records] == [
        f"data: {quoted(root)} is read as --data.source {source} ({dict(LAYOUTS)[source]})"
    ]
    if needs == CAPTIONS:
        opened = open_source(SourceConfig(root=root), split="train", needs=needs)
        assert opened is not None
        assert opened.captions(0)


def test_without_a_root_scenes_are_drawn() -> None:
    assert isinstance(open_source(SourceConfig(num_images=2), split="train"), ScenesSource)
    assert resolved(SourceConfig("coco"), CAPTIONS) == SourceConfig("coco")


def test_a_recipe_for_data_of_your_own_draws_no_scenes(tmp_path: Path) -> None:
    named = SourceConfig(needs_root=True)
    with pytest.raises(ConfigError, match=r"Name .* with --data.root, or .*\n- coco: annotations"):
        resolved(named, CAPTIONS)
    for config in (replace(named, source="scenes"), replace(named, root=voc(tmp_path / "voc"))):
        check_options(resolved(config, Needs()), Needs())


@pytest.mark.parametrize("recipe", ["own_data", "own_data_gpu", "cpu_small_vit"])
def test_recipes_for_data_of_your_own_say_so(recipe: str, tmp_path: Path) -> None:
    flags = ["--config", recipe, "--out", str(tmp_path / "run")]
    with pytest.raises(ConfigError, match="none are named"):
        settled(parse_pretrain(flags), RunFolder(tmp_path / "run"))
    drawn = parse_pretrain([*flags, "--data.source", "scenes"])
    assert settled(drawn, RunFolder(tmp_path / "run")).data.source == "scenes"
    quick = parse_pretrain(["--config", "quickstart", *flags[2:]])
    assert settled(quick, RunFolder(tmp_path / "run")).data.source == "scenes"


@pytest.mark.parametrize("recorded", ["auto", "scenes"])
def test_a_run_that_began_on_scenes_goes_on(recorded: str, tmp_path: Path) -> None:
    pretrain(small_config(tmp_path, "--run.num_steps=1"))
    path = tmp_path / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    stored["data"]["source"] = recorded
    del stored["data"]["needs_root"]  # as an earlier version wrote it
    path.write_text(yaml.safe_dump(stored, sort_keys=False))
    assert pretrain(parse_pretrain(["--out", str(tmp_path), "--data.needs_root"])).step == 1


def test_what_a_task_can_do_without_is_no_annotation(tmp_path: Path) -> None:
    needs = Needs(objects=True, can_do_without="--task.masks false")
    assert resolved(SourceConfig(root=voc(tmp_path / "voc")), needs).source == "voc"
    needs = Needs(can_do_without="--task.caption_weight 0")
    assert resolved(SourceConfig(root=classes(tmp_path / "classes")), needs).source == "classes"
    needs = Needs(captions=True, objects=True, can_do_without="--task.caption_weight 0")
    with pytest.raises(ConfigError) as caught:
        resolved(SourceConfig(root=tmp_path / "voc"), needs)
    message = str(caught.value)
    assert "lacks the captions that the task needs. --task.caption_weight 0 does" in message


def empty(root: Path) -> Path:
    return root


def shards_and_captions(root: Path) -> Path:
    return write_tar(folder(root) / "0.tar", {"1.jpg": jpeg()}).parent


def parts(root: Path) -> Path:
    write_coco(root / "a")
    write_karpathy(root / "b")
    write(root / "c" / "1.jpg", jpeg())
    write(root / "c" / "1.txt", "a cat")
    return root


def heic(root: Path) -> Path:
    write(root / "1.heic", "x")
    return write(root / "2.HEIC", "x").parent


def images_without_captions(root: Path) -> Path:
    write(root / "1.jpg", jpeg())
    return root


@pytest.mark.parametrize(
    ("write_layout", "needs", "part"),
    [
        (empty, CAPTIONS, "has no layout that is known. There are no images in it. "),
        (lambda root: root / "gone", CAPTIONS, "does not exist"),
        (lambda root: write(root / "a.xyz", "x"), CAPTIONS, "has no layout that is known"),
        (classes, CAPTIONS, "has the layout classes, which lacks the captions that the task needs"),
        (parts, CAPTIONS, "other layouts in its folders: a (coco), b (karpathy)"),
        (heic, CAPTIONS, "There are no images in it (passed over 2 files: 2 .heic)"),
        (voc, CAPTIONS, "has the layout voc, which lacks"),
        (images_without_captions, CAPTIONS, "It holds 1 image, without captions"),
        (images_without_captions, LABELS, "has the layout folder, which lacks"),
        (lvis_and_coco, BOXES, "has the layouts coco and lvis. Name the layout"),
        (shards_and_captions, CAPTIONS, "has the layouts webdataset and folder. Name"),
    ],
)
def test_what_does_not_fit_is_said_with_what_was_looked_for(
    tmp_path: Path, write_layout: Callable[[Path], Path], needs: Needs, part: str
) -> None:
    with pytest.raises(ConfigError) as error:
        resolved(SourceConfig(root=write_layout(tmp_path)), needs)
    assert part in str(error.value)
    if "exist" not in part:
        assert "--data.source" in str(error.value)
    is_unknown = "no layout that is known" in str(error.value)
    for source, marks in LAYOUTS:
        assert (f"- {source}: {marks}" in str(error.value)) is is_unknown


def test_the_validation_root_decides_between_two(tmp_path: Path) -> None:
    root, val_root = lvis_and_coco(tmp_path / "a"), write_coco(tmp_path / "b", "val2017")
    assert resolved(SourceConfig(root=root, val_root=val_root), BOXES).source == "coco"
    config = SourceConfig(root=folder(tmp_path / "c"), val_root=folder(tmp_path / "d"))
    val = open_source(config, split="val")
    assert val is not None
    assert len(val) == 3


def test_a_folder_that_cannot_be_listed_or_is_deep_is_no_trouble(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 100)
    deep.mkdir(parents=True)
    write(tmp_path / "x" / "1.jpg", jpeg())
    write(tmp_path / "x" / "1.txt", "a cat")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert resolved(SourceConfig(root=tmp_path), CAPTIONS).source == "folder"


def test_a_run_keeps_the_layout_that_it_found(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos")
    for number in range(8):
        write(root / f"{number}.jpg", jpeg(number))
        write(root / f"{number}.txt", f"a photo of the number {number}")
    flags = ["--data.root", str(root), "--data.num_images", "8000"]
    flags += ["--data.num_val_images", "1000", "--data.image_size", "96"]
    flags += ["--run.num_steps", "1", "--tokenizer.vocab_size", "60"]
    run = tmp_path / "run"
    assert pretrain(small_config(run, *flags)).step == 1
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["source"] == "folder"
    write(root / "annotations" / "captions_train.json", json.dumps({}))
    assert pretrain(parse_pretrain(["--out", str(run)])).step == 1
    with pytest.raises(ConfigError, match=r"data.source was 'folder', now 'coco'"):
        pretrain(small_config(run, *flags, "--data.source", "auto"))


def test_options_go_with_the_layout_that_was_found(tmp_path: Path) -> None:
    config = SourceConfig(root=folder(tmp_path), val_share=0.5, image_column="x")
    with pytest.raises(ConfigError, match=r"image_column x means nothing to --data\.source folder"):
        open_source(config, split="train")
    sides = [
        open_source(replace(config, image_column=None), split=split) for split in ("train", "val")
    ]
    assert sum(len(side) for side in sides if side is not None) == 3


def test_suffixes_in_upper_case_show_a_layout(tmp_path: Path) -> None:
    write_tar(tmp_path / "shards" / "0.TAR", {"1.jpg": jpeg(), "1.txt": "a cat"})
    write(tmp_path / "folder" / "A.JPG", jpeg())
    write(tmp_path / "folder" / "A.TXT", "a cat")
    write(tmp_path / "table" / "1.jpg", jpeg())
    write(tmp_path / "table" / "PAIRS.CSV", "image,caption\n1.jpg,a cat\n")
    for name, source in (("shards", "webdataset"), ("folder", "folder"), ("table", "table")):
        config = resolved(SourceConfig(root=tmp_path / name), CAPTIONS)
        assert config.source == source
        opened = open_source(config, split="train")
        assert opened is not None
        assert len(opened) == 1
