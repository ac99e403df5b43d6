import filecmp
import io
import json
import subprocess
import sys
import tarfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tests.small_disk import files_of_at_most
from virtex import files
from virtex.cli import main
from virtex.data.example import Example, Source
from virtex.data.layouts import LAYOUTS, write_scenes, write_sources
from virtex.data.sources.classes import ClassesSource
from virtex.data.sources.coco import CocoSource
from virtex.data.sources.folder import FolderSource
from virtex.data.sources.scenes import CATEGORIES, ScenesSource
from virtex.data.sources.voc import VocSource
from virtex.data.sources.webdataset import WebdatasetSource
from virtex.errors import ConfigError, DataError

NUM_TRAIN, NUM_VAL, SEED = 90, 30, 11


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a layout, written at its first use."""
    folders = {}

    def write(layout):
        if layout not in folders:
            folders[layout] = tmp_path_factory.mktemp(layout)
            write_scenes(layout, folders[layout], num_train=NUM_TRAIN, num_val=NUM_VAL, seed=SEED)
        return folders[layout]

    return write


@pytest.fixture(scope="module")
def train():
    return list(ScenesSource(NUM_TRAIN, seed=SEED))


def files_of(root):
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())


def assert_looks_like(image, pixels):
    """Equal but for what JPEG changes."""
    assert np.abs(np.asarray(image, int) - pixels.astype(int)).mean() < 6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_written_twice_all_files_are_identical(layout, written, tmp_path):
    write_scenes(layout, tmp_path, num_train=NUM_TRAIN, num_val=NUM_VAL, seed=SEED)
    names = files_of(tmp_path)
    assert names == files_of(written(layout))
    assert names
    _, differing, failing = filecmp.cmpfiles(tmp_path, written(layout), names, shallow=False)
    assert not differing
    assert not failing


def test_two_processes_write_the_same_as_one(tmp_path):
    for processes in (1, 2):
        write_scenes(
            "coco", tmp_path / str(processes), num_train=510, num_val=5, num_processes=processes
        )
    names = files_of(tmp_path / "1")
    assert names == files_of(tmp_path / "2")
    same, _, _ = filecmp.cmpfiles(tmp_path / "1", tmp_path / "2", names, shallow=False)
    assert len(same) == len(names) == 515 + 4


def test_coco_captions_are_those_of_the_images(written, train):
    root = written("coco")
    coco = COCO(root / "annotations" / "captions_train2017.json")
    assert len(coco.imgs) == NUM_TRAIN
    for image, example in zip(coco.loadImgs(sorted(coco.imgs)), train, strict=True):
        rows = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert tuple(row["caption"] for row in rows) == example.captions
        stored = Image.open(root / "train2017" / image["file_name"])
        assert stored.size == (image["width"], image["height"])
        assert_looks_like(stored, example.image)


def test_coco_masks_decode_to_their_area_and_box(written, train):
    coco = COCO(written("coco") / "annotations" / "instances_train2017.json")
    crowds = 0
    for row in coco.dataset["annotations"]:
        mask = coco.annToMask(row)
        assert mask.sum() == row["area"]
        rows, columns = np.nonzero(mask)
        x, y, width, height = row["bbox"]
        assert (columns.min(), rows.min()) == (x, y)
        assert (columns.max() + 1, rows.max() + 1) == (x + width, y + height)
        crowds += row["iscrowd"]
    assert crowds > 0
    assert [c["name"] for c in coco.loadCats(sorted(coco.cats))] == list(CATEGORIES)
    labels = {image_id: set() for image_id in coco.imgs}
    for row in coco.dataset["annotations"]:
        labels[row["image_id"]].add(row["category_id"] - 1)
    assert [tuple(sorted(labels[number])) for number in sorted(labels)] == [e.labels for e in train]


def test_coco_makes_one_crowd_of_many_alike(written, train):
    coco = COCO(written("coco") / "annotations" / "instances_train2017.json")
    for number, example in enumerate(train, start=1):
        rows = coco.loadAnns(coco.getAnnIds(number))
        for label, count in Counter(example.box_labels).items():
            mine = [row for row in rows if row["category_id"] == label + 1]
            assert [row["iscrowd"] for row in mine] == ([1] if count >= 4 else [0] * count)


def test_image_ids_differ_between_splits(written):
    folder = written("coco") / "annotations"
    ids = [
        {image["id"] for image in json.loads((folder / name).read_text())["images"]}
        for name in ("captions_train2017.json", "captions_val2017.json")
    ]
    assert len(ids[0] | ids[1]) == NUM_TRAIN + NUM_VAL


def test_lvis_frequencies_follow_the_number_of_images(written, train):
    document = json.loads((written("lvis") / "annotations" / "lvis_v1_train.json").read_text())
    counts = Counter(label for example in train for label in example.labels)
    letters = set()
    for category in document["categories"]:
        assert category["image_count"] == counts[category["id"] - 1]
        expected = "r" if category["image_count"] <= 10 else "c"
        assert category["frequency"] == expected
        letters.add(category["frequency"])
    assert letters == {"r", "c"}
    assert all("iscrowd" not in row for row in document["annotations"])


def test_lvis_lists_absent_and_incomplete_categories_truly(written, train):
    document = json.loads((written("lvis") / "annotations" / "lvis_v1_train.json").read_text())
    kept = Counter((row["image_id"], row["category_id"]) for row in document["annotations"])
    for image, example in zip(document["images"], train, strict=True):
        present = {label + 1 for label in example.labels}
        assert len(image["neg_category_ids"]) == 5
        assert not present & set(image["neg_category_ids"])
        assert image["coco_url"].endswith(f"train2017/{image['file_name']}")
        for category in present:
            number = Counter(example.box_labels)[category - 1]
            assert kept[image["id"], category] == min(number, 3)
            assert (category in image["not_exhaustive_category_ids"]) == (number > 3)


def test_voc_lists_agree_with_the_xml_files(written, train):
    root = written("voc") / "VOCdevkit" / "VOC2007"
    lists = root / "ImageSets" / "Main"
    ids = {split: (lists / f"{split}.txt").read_text().split()
           for split in ("train", "val", "trainval", "test")}  # fmt: skip
    assert ids["trainval"] == ids["train"] + ids["val"]
    assert [len(ids[split]) for split in ids] == [45, 45, NUM_TRAIN, NUM_VAL]
    marks_seen = Counter()
    objects_of = {i: ElementTree.parse(root / "Annotations" / f"{i}.xml").findall("object")
                  for i in ids["trainval"]}  # fmt: skip
    for category in CATEGORIES:
        name = category.replace(" ", "")
        lines = (lists / f"{name}_trainval.txt").read_text().splitlines()
        for line, image_id in zip(lines, ids["trainval"], strict=True):
            mine = [o for o in objects_of[image_id] if o.findtext("name") == name]
            easy = [o for o in mine if o.findtext("difficult") == "0"]
            assert line.split() == [image_id, "1" if easy else "0" if mine else "-1"]
            marks_seen[line.split()[1]] += 1
    assert set(marks_seen) == {"1", "0", "-1"}


def test_voc_boxes_count_pixels_from_one(written, train):
    root = written("voc") / "VOCdevkit" / "VOC2007"
    for number, example in enumerate(train, start=1):
        tree = ElementTree.parse(root / "Annotations" / f"{number:07d}.xml")
        boxes = [[float(o.findtext(f"bndbox/{c}")) for c in ("xmin", "ymin", "xmax", "ymax")]
                 for o in tree.findall("object")]  # fmt: skip
        assert np.array_equal(np.array(boxes) - (1, 1, 0, 0), example.boxes)
        assert (root / "JPEGImages" / tree.findtext("filename")).is_file()


def test_imagenet_folders_hold_the_most_prominent_object(written, train):
    root = written("imagenet")
    classes = {path.name for path in (root / "train").iterdir()}
    assert classes == {path.name for path in (root / "val").iterdir()}
    for path in root.glob("train/*/*.jpg"):
        example = train[int(path.stem) - 1]
        areas = [sum(mask["counts"][1::2]) for mask in example.masks]
        label = example.box_labels[int(np.argmax(areas))]
        assert CATEGORIES[label] == path.parent.name.replace("_", " ")
    assert len(list(root.glob("train/*/*.jpg"))) > NUM_TRAIN / 3


def test_inaturalist_files_lie_in_the_folder_of_their_category(written):
    root = written("inaturalist")
    for split, number in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        document = json.loads((root / f"{split}2018.json").read_text())
        categories = {category["id"]: category for category in document["categories"]}
        assert len(document["images"]) == len(document["annotations"]) == number
        for image, row in zip(document["images"], document["annotations"], strict=True):
            assert row["image_id"] == image["id"]
            family = categories[row["category_id"]]["supercategory"].replace(" ", "_")
            folder = f"train_val2018/{family}/{row['category_id']}/"
            assert image["file_name"].startswith(folder)
            assert (root / image["file_name"]).is_file()


def test_sidecar_files_hold_one_caption_a_line(written, train):
    folder = written("sidecar") / "train"
    images = sorted(folder.glob("*.jpg"))
    assert len(images) == NUM_TRAIN
    for image, example in zip(images, train, strict=True):
        assert tuple(image.with_suffix(".txt").read_text().splitlines()) == example.captions


def test_shards_hold_image_text_and_metadata_under_one_key(written, train):
    with tarfile.open(written("webdataset") / "train" / "000000.tar") as shard:
        members = {member.name: shard.extractfile(member).read() for member in shard}
    keys = sorted({name.partition(".")[0] for name in members})
    assert len(keys) == NUM_TRAIN
    for key, example in zip(keys, train, strict=True):
        assert tuple(members[f"{key}.txt"].decode().splitlines()) == example.captions
        assert json.loads(members[f"{key}.json"])["key"] == key
        assert_looks_like(Image.open(io.BytesIO(members[f"{key}.jpg"])), example.image)


class EncodedImages(Source):
    """Files as other sources yield them: encoded, with polygons, crowds and ignored labels."""

    categories = ("cat", "tin opener")

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return Example(
            image_id=str(index),
            image=self.path if index == 0 else self.path.read_bytes(),
            captions=("a cat",),
            labels=(0,),
            ignored_labels=(1,),
            boxes=np.array([[2, 3, 12, 9], [0, 0, 20, 10]], np.float32),
            box_labels=(0, 0),
            masks=([[2, 3, 12, 3, 12, 9]], {"size": [10, 20], "counts": [0, 200]}),
            crowd=(False, True),
        )

    def identity(self):
        return {"source": "encoded"}


def test_a_jpeg_file_is_copied_and_polygons_and_crowds_are_kept(tmp_path):
    path = tmp_path / "image.jpg"
    Image.fromarray(np.full((10, 20, 3), 90, np.uint8)).save(path, quality=35)
    write_sources("coco", tmp_path / "out", {"val": EncodedImages(path)})
    files = sorted((tmp_path / "out" / "val2017").iterdir())
    assert [file.read_bytes() for file in files] == [path.read_bytes()] * 2
    document = json.loads((tmp_path / "out/annotations/instances_val2017.json").read_text())
    rows = document["annotations"][:2]
    assert rows[0]["segmentation"] == [[2, 3, 12, 3, 12, 9]]
    assert [row["iscrowd"] for row in rows] == [0, 1]
    assert (document["images"][0]["width"], document["images"][0]["height"]) == (20, 10)


def test_a_png_file_becomes_a_jpeg_and_ignored_classes_are_difficult(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.full((10, 20, 3), 90, np.uint8)).save(path)
    write_sources("voc", tmp_path / "out", {"val": EncodedImages(path)})
    root = tmp_path / "out" / "VOCdevkit" / "VOC2007"
    assert {Image.open(file).format for file in (root / "JPEGImages").iterdir()} == {"JPEG"}
    lines = (root / "ImageSets" / "Main" / "tinopener_test.txt").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["0", "0"]


def test_mistakes_are_named_before_anything_is_written(tmp_path):
    with pytest.raises(
        ConfigError, match=r"(?s)unknown layout 'cocoa'.*Did you mean coco.*num_processes is 0"
    ):
        write_scenes("cocoa", tmp_path / "a", num_train=1, num_val=1, num_processes=0)
    with pytest.raises(ConfigError, match="give train, val or both"):
        write_sources("coco", tmp_path / "a", {"dev": ScenesSource(1)})
    assert not (tmp_path / "a").exists()
    (tmp_path / "full").write_text("")
    with pytest.raises(DataError, match="Name a new one"):
        write_scenes("coco", tmp_path, num_train=1, num_val=1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_full_disk_is_an_error_in_words(layout, tmp_path):
    with files_of_at_most(1000), pytest.raises(DataError, match=r"cannot write .*File too large"):
        write_scenes(layout, tmp_path, num_train=2, num_val=0)


def test_the_sources_of_this_package_read_the_layouts(written, train, tmp_path):
    captions = [example.captions for example in train]
    coco = CocoSource(written("coco"), split="train2017")
    assert [example.captions for example in coco] == captions
    folder = FolderSource(written("sidecar") / "train")
    assert [example.captions for example in folder] == captions
    shards = WebdatasetSource(written("webdataset") / "train", index_root=tmp_path)
    assert [example.captions for example in shards] == captions
    classes = ClassesSource(written("imagenet") / "train")
    assert len(classes.categories) > 5
    voc = VocSource(written("voc"), split="trainval", with_boxes=True)
    for example, original in zip(voc, train, strict=True):
        assert np.array_equal(example.boxes, original.boxes)
        assert len(example.labels) + len(example.ignored_labels) == len(original.labels)


def test_all_mistakes_in_the_options_are_named_at_once_and_by_their_names(tmp_path, capsys):
    flags = ["--num_train=-1", "--num_val=-2", "--num_processes=0", "--image_size=9000"]
    assert main(["scenes", "--out", str(tmp_path / "out"), *flags, "--seed=-3"]) == 2
    error = capsys.readouterr().err
    for name in ("num_train is -1", "num_val is -2", "num_processes is 0", "image_size is 9000"):
        assert f"- {name}; give " in error
    assert "- seed is -3; give 0 or more" in error
    assert "num_images" not in error
    with pytest.raises(ConfigError, match="num_train and num_val are 0; give 1 or more of one"):
        write_scenes("coco", tmp_path / "out", num_train=0, num_val=0)
    assert not (tmp_path / "out").exists()


def test_one_process_at_a_time_writes_to_a_folder(tmp_path, capsys):
    command = ["scenes", "--out", str(tmp_path), "--num_train=2", "--num_val=1"]
    with files.locked(tmp_path / ".lock", subject="the folder"):
        assert main(command) == 2
    assert f"the folder {tmp_path} is in use by process" in capsys.readouterr().err
    assert files_of(tmp_path) == [Path(".lock")]
    assert main(command) == 0  # the lock of a command that was killed
    assert (tmp_path / "annotations").is_dir()
    assert not (tmp_path / ".lock").exists()


def test_a_folder_that_was_filled_while_its_lock_was_awaited_is_left_alone(tmp_path, monkeypatch):
    @contextmanager
    def late(path, *, subject):
        path.touch()
        (tmp_path / "annotations").mkdir()  # of a command that has ended just now
        yield

    monkeypatch.setattr(files, "locked", late)
    with pytest.raises(DataError, match=r"not an empty folder.* a command that was stopped"):
        write_scenes("coco", tmp_path, num_train=2, num_val=0)
    assert [path.name for path in tmp_path.iterdir()] == ["annotations"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are listed in /proc")
def test_a_killed_command_leaves_no_process_that_writes(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "virtex.cli", "scenes", "--out", str(out)]
    parent = subprocess.Popen([*command, "--num_train=100000", "--num_processes=2"])
    wait_until(lambda: any(out.rglob("*.jpg")))
    processes = children_of(parent.pid)
    assert len(processes) >= 2
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(map(is_alive, processes)))
    with pytest.raises(DataError, match="remove what a command that was stopped has left"):
        write_scenes("coco", out, num_train=2, num_val=0)


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children_of(pid):
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def is_alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
