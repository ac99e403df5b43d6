"""The quickstart: draw scenes, pretrain on their captions, transfer and report in minutes."""

import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from virtex import files
from virtex.data.layouts import write_scenes
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.sources.scenes import kinds_named_in
from virtex.errors import ConfigError
from virtex.predict.loading import load_captioner
from virtex.pretrain import PretrainConfig, parse_pretrain
from virtex.pretrain_team import pretrain_in_team
from virtex.processes import Requested
from virtex.report.report import write_report
from virtex.report.run_files import read_timings
from virtex.transfer import voc07
from virtex.transfer.protocol import Result, device_name, versions

NUM_TRAIN, NUM_VAL = 8000, 1000
TRANSFER_FRACTION = 0.25
"""Fraction of the training scenes that the SVMs train on; all validation scenes test them."""
NUM_CAPTIONED = 500
"""Number of held-out scenes that are captioned."""
NUM_PROCESSES = 2


def quickstart(out: Path, *, processes: Requested = "auto") -> Path:
    """Run or resume the quickstart in the folder `out`, and return the path of report.html.

    Args:
        processes: Number of processes that pretrain.

    Raises:
        ConfigError: `out` holds other files.
        DataError: Its timings.json is damaged.
    """
    scenes, run, results = out / "scenes", out / "run", out / "results"
    timings = _Timings(out / "timings.json")
    others = [path for path in out.glob("*") if files.PREFIX not in path.name]
    if others and not timings.path.exists():
        raise ConfigError(f"{out} holds other files; give --out a new folder")
    with timings.stage("draw scenes"):
        _draw(scenes)
    arguments = ["--config", "quickstart", "--data.source", "coco", "--data.root", str(scenes)]
    options = parse_pretrain([*arguments, "--out", str(run)])
    with timings.stage("pretrain"):
        if pretrain_in_team(options, processes).reason == "interrupted":
            raise KeyboardInterrupt
    for init in ("random", str(run)):
        with timings.stage(f"transfer {'random' if init == 'random' else 'pretrained'}"):
            voc07.run(_transfer(init, options, results))
    with timings.stage("caption held-out scenes"):
        caption_scenes(run, options.data).write(results)
    page = write_report([out], out, title="virtex quickstart", next_steps=next_steps(run))
    print(f"\n{page}")
    return page


def caption_scenes(run: Path, data: SourceConfig) -> Result:
    """Caption held-out scenes, and count how often the objects in a caption are in the image."""
    start = time.perf_counter()
    source = open_source(data, split="val", needs=Needs(captions=True, objects=True))
    assert source is not None
    predictor = load_captioner(run)
    examples = [source[index] for index in range(min(NUM_CAPTIONED, len(source)))]
    captions = predictor.caption([example.location for example in examples])
    pairs = [  # (kinds of objects in the caption, kinds in the scene)
        (kinds_named_in(caption.text), {source.categories[label] for label in example.labels})
        for caption, example in zip(captions, examples, strict=True)
    ]
    return Result(
        protocol="scene-captions",
        headline="objects right",
        numbers={
            "objects right": _percent(kind in shown for named, shown in pairs for kind in named),
            "captions all right": _percent(
                bool(named) and named <= shown for named, shown in pairs
            ),
            "captions one right": _percent(bool(named & shown) for named, shown in pairs),
        },
        settings={"num_captions": len(captions), "decoding": "beam 5"},
        initialisation={"init": str(run)},
        data={"test": source.identity()},
        seed=0,
        versions=versions(),
        device=device_name(predictor.device),
        seconds=round(time.perf_counter() - start, 2),
    )


def next_steps(run: Path) -> list[tuple[str, str]]:
    """Return what the report suggests, with the command for it."""
    return [
        ("Caption your own images", f"virtex caption {run} IMAGES"),
        ("Try the captioner in the browser", f"virtex demo {run}"),
        (
            "Pretrain on your own images and captions (IMAGES: photo.jpg beside photo.txt)",
            "virtex pretrain --config own_data --data.source folder --data.root IMAGES "
            "--data.val_share 0.05 --out RUN",
        ),
        (
            "Score a backbone on PASCAL VOC 2007",
            "virtex transfer voc07 --init RUN --data.root VOCdevkit --out RUN/results",
        ),
    ]


def _draw(scenes: Path) -> None:
    """Write the scenes; after an interruption, write all of them again."""
    if scenes.exists():
        return
    unfinished = scenes.with_name(scenes.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_scenes(
        "coco", unfinished, num_train=NUM_TRAIN, num_val=NUM_VAL, num_processes=NUM_PROCESSES
    )
    unfinished.rename(scenes)


def _transfer(init: str, options: PretrainConfig, results: Path) -> voc07.Voc07Config:
    """Return the options of an SVM per kind of object, at the resolution of pretraining."""
    return voc07.Voc07Config(
        init=init,
        out=results,
        data=replace(options.data, share=TRANSFER_FRACTION),
        leave_out_rare=True,
        backbone=options.backbone if init == "random" else None,
        image_size=options.image.size,
    )


class _Timings:
    """Seconds of each stage in a file for the report; those of an interrupted stage add up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = read_timings(path) if path.exists() else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        print(f"{name} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        self._write()
        try:
            yield
        finally:
            earlier = self.seconds.get(name, 0.0)
            self.seconds[name] = round(earlier + time.perf_counter() - start, 1)
            self._write()
        print(f"{name}: {self.seconds[name]:.0f} s", file=sys.stderr, flush=True)

    def _write(self) -> None:
        files.write(self.path, json.dumps(self.seconds, indent=1) + "\n")


def _percent(flags: Iterable[bool]) -> float:
    values = list(flags)
    return 100 * sum(values) / max(1, len(values))
