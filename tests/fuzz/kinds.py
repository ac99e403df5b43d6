"""Kinds of input files: how good ones are written, and how virtex reads them."""

import hashlib
import importlib.util
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image, PngImagePlugin

from tests.drawn_images import photo, write_classes, write_photos
from tests.first_edition import SMALL, digest, unpack
from virtex.config import parse, with_recipes
from virtex.data.concept_words import find_words
from virtex.data.example import Source
from virtex.data.images import Box, decode_image, open_image
from virtex.data.layouts import write_scenes
from virtex.data.masks import Placement
from virtex.data.objects import find_objects
from virtex.data.shards.gather import read_sample
from virtex.data.shards.index import index_shards
from virtex.data.shards.index_options import IndexConfig
from virtex.data.shards.manifest import Manifest
from virtex.data.shards.records import Records
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.source_options import WITH_OBJECTS, SourceName
from virtex.data.tokenizer import Tokenizer
from virtex.predict.loading import load_captioner
from virtex.pretrain import parse_pretrain
from virtex.report.report import write_report
from virtex.study import StudyConfig
from virtex.zoo.backbones import load_backbone
from virtex.zoo.init import open_init
from virtex.zoo.own_tokenizer import DATA_NAME, TOKENIZER_NAME
from virtex.zoo.weights_file import save_weights

NUM_EXAMPLES = 6
SIDE = 64
CAPTIONS = Needs(captions=True)
OBJECTS = Needs(objects=True, masks=True)
BOXES = Needs(objects=True)
LABELS = Needs(labels=True)


@dataclass(frozen=True)
class Kind:
    """One kind of file, good copies of which lie in a folder."""

    write: Callable[[Path], object]
    """Writes a folder with good files."""
    targets: str
    """Glob of the files that are damaged, one at a time."""
    read: Callable[[Path], object]
    """Reads the folder as a command would; raises a VirTexError where it cannot."""
    is_checked: bool = False
    """Whether what is read must be what is read from the good files, since a checksum stands by."""


def read_source(root: Path, *, source: SourceName, needs: Needs) -> object:
    """Open a source and read all annotations and a few images, as a loader does."""
    config = SourceConfig(source, root)
    if source in WITH_OBJECTS:
        config = replace(config, bad_object_limit=0.9)
    opened = open_source(config, split="train", needs=needs)
    assert opened is not None
    return [_read_example(opened, index, needs) for index in range(min(len(opened), NUM_EXAMPLES))]


def _read_example(source: Source, index: int, needs: Needs) -> object:
    example = source[index]
    assert all(isinstance(caption, str) and caption.strip() for caption in example.captions)
    image = open_image(example.image, name=example.location)
    whole = Box(0, 0, image.height, image.width)
    image.decode(whole, min_size=SIDE // 2)
    if needs.objects:
        placement = Placement(whole, SIDE, SIDE)
        shape = image.height, image.width
        objects = find_objects(example, placement, image_size=shape, with_masks=needs.masks)
        assert np.isfinite(objects.boxes).all()
        assert (objects.labels >= 1).all()
        assert (objects.labels <= len(source.categories)).all()
    return example.image_id, example.captions, example.labels


def write_layout(folder: Path, *, layout: str) -> None:
    """Write drawn scenes in a layout."""
    write_scenes(layout, folder / "data", num_train=NUM_EXAMPLES, num_val=4, image_size=SIDE)


def write_table(folder: Path, *, suffix: str) -> None:
    """Write photos and a table of their captions."""
    write_photos(folder / "photos")
    rows = [{"image": f"photos/photo{n}.png", "caption": f"a wave, or {n}"} for n in range(8)]
    path = folder / f"table.{suffix}"
    match suffix:
        case "jsonl":
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        case "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case _:
            comma = {"csv": ",", "tsv": "\t"}[suffix]
            lines = [comma.join(f'"{value}"' for value in row.values()) for row in rows]
            path.write_text("\n".join([comma.join(rows[0]), *lines]) + "\n")


def write_karpathy(folder: Path) -> None:
    """Write photos and Karpathy's list of them."""
    write_photos(folder / "images")
    images = [
        {"filename": f"photo{n}.png", "imgid": n, "split": "train", "sentids": [n],
         "sentences": [{"raw": f"a wave or {n}", "tokens": ["a"], "imgid": n, "sentid": n}]}
        for n in range(8)
    ]  # fmt: skip
    (folder / "dataset_photos.json").write_text(json.dumps({"images": images, "dataset": "photos"}))


def write_flickr(folder: Path) -> None:
    """Write photos and their captions as Flickr8k is distributed."""
    write_photos(folder / "Images")
    lines = [f"photo{n}.png,a wave or {n}\n" for n in range(8)]
    (folder / "captions.txt").write_text("".join(["image,caption\n", *lines]))


def write_images(folder: Path) -> None:
    """Write an image in each format, some with metadata."""
    folder.mkdir(parents=True)
    image = Image.fromarray(photo(3))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "a.jpg", exif=exif)
    image.save(folder / "b.jpg", progressive=True, quality=80)
    image.convert("CMYK").save(folder / "c.jpg")
    image.convert("L").save(folder / "d.jpg")
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "drawn" * 20, zip=True)
    image.save(folder / "e.png", pnginfo=text)
    image.convert("P").save(folder / "f.gif")
    image.save(folder / "g.webp")
    image.save(folder / "h.tif", compression="tiff_lzw")
    image.save(folder / "i.bmp")


def read_images(folder: Path) -> object:
    """Decode every image."""
    return [decode_image(path).shape for path in sorted(folder.iterdir())]


def write_edition(folder: Path, *, part: str) -> None:
    """Copy a part of the files of the first edition."""
    whole = unpack(folder / "whole")
    shutil.copytree(whole / part, folder / part)
    shutil.copy(whole / "vocabulary.model", folder)
    shutil.rmtree(whole)


def write_vocabulary(folder: Path) -> None:
    """Write a run that has stored the digest of its vocabulary."""
    write_edition(folder, part="bicaptioning")
    run = folder / "bicaptioning"
    (run / "weights.safetensors").unlink()
    digest = hashlib.sha256((run / TOKENIZER_NAME).read_bytes()).hexdigest()
    (run / DATA_NAME).write_text(json.dumps({"files": {TOKENIZER_NAME: digest}}))


def write_json_vocabulary(folder: Path) -> None:
    """Write a Hugging Face tokenizer.json."""
    tokens = ["[UNK]", *"abcdo", *(f"##{letter}" for letter in "abcdo"), "dog"]
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {one: n for n, one in enumerate(tokens)},
    }
    space = {"type": "Replace", "pattern": {"String": "_"}, "content": " "}
    document = {"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"},
                "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, space]},
                "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(document))


def read_json_vocabulary(folder: Path) -> object:
    """Encode and decode a caption."""
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    ids = tokenizer.encode("a dog cab")
    return ids, tokenizer.decode(ids), [word.text for word in find_words(ids, tokenizer)]


def write_weights(folder: Path) -> None:
    """Write a weights file as today's code does."""
    write_edition(folder, part="bicaptioning")
    opened = open_init(str(folder / "bicaptioning" / "weights.safetensors"))
    shutil.rmtree(folder / "bicaptioning")
    save_weights(
        folder / "weights.safetensors",
        opened.state,
        config=opened.config,
        tokenizer=opened.tokenizer,
        step=6,
    )


def read_task(init: Path) -> str:
    """Load a captioner and return the digest of its weights and vocabulary."""
    predictor = load_captioner(init)
    pieces = hashlib.sha256(predictor.tokenizer.model_bytes).hexdigest()
    return digest(predictor.captioner.state_dict()) + pieces


def read_bare_backbone(init: Path) -> str:
    """Load the weights of a backbone whose architecture the user names."""
    return digest(load_backbone(str(init), config=SMALL).state_dict())


def read_released(init: Path) -> str:
    """Load a captioner in the released layout."""
    predictor = load_captioner(init, tokenizer=init.parent.parent / "vocabulary.model")
    return digest(predictor.captioner.state_dict())


def write_run(folder: Path) -> None:
    """Copy a run and results, and leave out their networks."""
    whole = unpack(folder / "whole")
    for part in ("bicaptioning", "results"):
        shutil.copytree(whole / part, folder / part)
    shutil.rmtree(whole)
    for path in [*folder.rglob("*.safetensors"), *folder.rglob("*.pt")]:
        path.unlink()


def read_report(folder: Path) -> object:
    """Write the report on all that lies in the folder."""
    path = write_report([folder], folder / "report")
    text = path.read_text(encoding="utf-8")
    assert "root:x:0" not in text
    shutil.rmtree(folder / "report")
    return None


def write_yaml(folder: Path, *, part: str) -> None:
    """Copy the configs of the first edition, as JSON, which is YAML as well."""
    import yaml

    whole = unpack(folder / "whole")
    content = yaml.safe_load((whole / part).read_text())
    (folder / "options.yaml").write_text(json.dumps(content, default=str))
    shutil.rmtree(whole)


def read_pretrain(path: Path) -> object:
    """Read the options of a run."""
    parse_pretrain(["--config", str(path), "--out", str(path.parent / "out")])
    return None


def read_study(path: Path) -> object:
    """Read the recipe of a study."""
    flags = with_recipes(["--config", str(path), "--out", str(path.parent / "out")], "study")
    parse(StudyConfig, flags, prog="virtex study")
    return None


def write_manifest(folder: Path) -> None:
    """Index shards of which one caption is missing, so that some examples are left out."""
    write_shards(folder)
    (shard, *_) = sorted((folder / "data" / "train").glob("*.tar"))
    with tarfile.open(shard, "a") as tar:
        tar.add(folder / "image.jpg", "alone.jpg")
    index_shards(IndexConfig(str(folder / "data" / "train"), folder / "manifest"), processes=1)


def read_manifest(folder: Path) -> object:
    """Read all that a manifest holds, as training does."""
    manifest = Manifest.read(folder / "manifest")
    found: list[object] = [manifest.root, list(read_sample(folder / "manifest"))]
    for shard in range(len(manifest)):
        path, positions = manifest.records_path(shard), manifest.positions(shard)
        if path is None:
            continue
        records = Records(path)
        every = range(len(records)) if positions is None else positions.tolist()
        found += [(records.key(at), records.extents(at)) for at in every if at < len(records)]
    return found


def write_shards(folder: Path) -> None:
    """Write tar shards with names that need GNU's and pax's headers."""
    write_layout(folder, layout="webdataset")
    (shard,) = (folder / "data" / "train").glob("*.tar")
    image = folder / "image.jpg"
    Image.fromarray(photo(1)).save(image)
    caption = folder / "caption.txt"
    caption.write_text("a wave\n")
    for kind, tar_format in (("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        with tarfile.open(shard.parent / f"{kind}.tar", "w", format=tar_format) as tar:
            for number in range(3):
                key = f"{kind}/{'é' * 60}{number}"
                tar.add(image, f"{key}.jpg")
                tar.add(caption, f"{key}.txt")


def _layout(
    layout: str, targets: str, source: SourceName, needs: Needs, root: str = "data"
) -> Kind:
    return Kind(
        partial(write_layout, layout=layout),
        targets,
        lambda folder: read_source(folder / "data", source=source, needs=needs),
    )


def _table(suffix: str) -> Kind:
    name = f"table.{suffix}"
    return Kind(
        partial(write_table, suffix=suffix),
        name,
        lambda folder: read_source(folder / name, source="table", needs=CAPTIONS),
    )


KINDS: dict[str, Kind] = {
    "coco_captions": _layout("coco", "data/annotations/captions_train*", "coco", CAPTIONS),
    "coco_masks": _layout("coco", "data/annotations/instances_train*", "coco", OBJECTS),
    "coco_boxes": _layout("coco", "data/annotations/instances_train*", "coco", BOXES),
    "lvis": _layout("lvis", "data/annotations/*train*", "lvis", OBJECTS),
    "voc": _layout("voc", "data/VOCdevkit/VOC2007/Annotations/*.xml", "voc", BOXES),
    "voc_lists": _layout("voc", "data/VOCdevkit/VOC2007/ImageSets/Main/*", "voc", LABELS),
    "inaturalist": _layout("inaturalist", "data/train*.json", "inaturalist", LABELS),
    "sidecars": _layout("sidecar", "data/train/*.txt", "folder", CAPTIONS),
    "shards": Kind(
        write_shards,
        "data/train/*.tar",
        lambda folder: read_source(folder / "data", source="webdataset", needs=CAPTIONS),
    ),
    "manifest": Kind(write_manifest, "*/manifest.json", read_manifest),
    "kept": Kind(write_manifest, "*/kept.npy", read_manifest, is_checked=True),
    "records": Kind(write_manifest, "*/records/*", read_manifest),
    "sample": Kind(write_manifest, "*/captions.jsonl.gz", read_manifest),
    "karpathy": Kind(
        write_karpathy,
        "dataset_photos.json",
        lambda folder: read_source(folder, source="karpathy", needs=CAPTIONS),
    ),
    "flickr": Kind(
        write_flickr,
        "captions.txt",
        lambda folder: read_source(folder, source="flickr", needs=CAPTIONS),
    ),
    "csv": _table("csv"),
    "tsv": _table("tsv"),
    "jsonl": _table("jsonl"),
    "parquet": _table("parquet"),
    "class_images": Kind(
        lambda folder: write_classes(folder / "data"),
        "data/train/*/0.png",
        lambda folder: read_source(folder / "data", source="classes", needs=LABELS),
    ),
    "images": Kind(
        lambda folder: write_images(folder / "images"),
        "images/*",
        lambda folder: read_images(folder / "images"),
    ),
    "weights": Kind(
        write_weights,
        "weights.safetensors",
        lambda folder: read_task(folder / "weights.safetensors"),
        is_checked=True,
    ),
    "old_weights": Kind(
        partial(write_edition, part="bicaptioning"),
        "bicaptioning/weights.safetensors",
        lambda folder: read_task(folder / "bicaptioning" / "weights.safetensors"),
    ),
    "checkpoint": Kind(
        partial(write_edition, part="bicaptioning"),
        "bicaptioning/checkpoints/*.pt",
        lambda folder: read_task(next((folder / "bicaptioning" / "checkpoints").iterdir())),
        is_checked=True,
    ),
    "tokenizer": Kind(
        write_vocabulary,
        "bicaptioning/tokenizer.model",
        lambda folder: read_task(next((folder / "bicaptioning" / "checkpoints").iterdir())),
        is_checked=True,
    ),
    "released": Kind(
        partial(write_edition, part="exported"),
        "exported/original.pth",
        lambda folder: read_released(folder / "exported" / "original.pth"),
        is_checked=True,
    ),
    "timm": Kind(
        partial(write_edition, part="exported"),
        "exported/timm.pth",
        lambda folder: read_bare_backbone(folder / "exported" / "timm.pth"),
        is_checked=True,
    ),
    "report": Kind(write_run, "*/*.[jy]*", read_report),
    "config": Kind(
        partial(write_yaml, part="bicaptioning/config.yaml"),
        "options.yaml",
        lambda folder: read_pretrain(folder / "options.yaml"),
    ),
    "study": Kind(
        partial(write_yaml, part="configs/study.yaml"),
        "options.yaml",
        lambda folder: read_study(folder / "options.yaml"),
    ),
}
if importlib.util.find_spec("tokenizers"):
    KINDS["json_tokenizer"] = Kind(write_json_vocabulary, "*.json", read_json_vocabulary)
torch.set_num_threads(1)
