"""Images per second of the loader on one core, compared with the bare JPEG decode of the files.

    python benchmarks/loader.py                            # drawn 640 x 480 files
    python benchmarks/loader.py --root COCO --only-size 640x480
    python benchmarks/loader.py --root FLICKR8K/val2017 --size 64

The reference is the fastest ordinary call of the installed JPEG decoders (simplejpeg, torchvision,
OpenCV and Pillow) on whole files. All alternate in one process with one thread; the best round of
each counts, in processor time, which depends less on other work on the machine.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import simplejpeg
import torch
import torchvision
from PIL import Image, ImageDraw

from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.color_jitter import jitter_colors
from virtex.data.example import Example, Source
from virtex.data.images import open_image
from virtex.data.loader import Batch, Encoded, LoaderConfig, training_batches
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import (
    TRAINING_SURPLUS,
    ImageConfig,
    TrainTransform,
    random_box,
    resize,
)

CAPTION = "a man on the left rides a brown horse past {} trees and a parked car"
Round = Callable[[], None]


class Files(Source):
    """JPEG files, each with a caption."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        return Example(str(index), self.paths[index], captions=(CAPTION.format(index),))

    def identity(self) -> dict[str, str | int]:
        return {"source": "files", "count": len(self.paths)}


class Encode:
    """Encoder of an example, as in captioning."""

    def __init__(self, config: ImageConfig, encode_caption: EncodeCaption) -> None:
        self.transform, self.encode_caption = TrainTransform(config), encode_caption

    def __call__(self, example: Example, rng: np.random.Generator) -> Encoded:
        image, caption = self.transform(example, example.captions[0], rng)
        return {"image": image, "tokens": self.encode_caption(caption)}


def collate(encoded: Sequence[Encoded]) -> Batch:
    """Return images (B, 3, H, W) and padded tokens (B, T)."""
    tokens, lengths = pad_tokens([item["tokens"] for item in encoded])
    images = torch.stack([item["image"] for item in encoded])
    return {"image": images, "tokens": tokens, "lengths": lengths}


def main() -> None:
    """Measure and print."""
    options = parse_options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = find_files(options) if options.root else draw_files(Path(folder), 64)
        config = ImageConfig(size=options.size)
        tokenizer = train_tokenizer((CAPTION.format(n) for n in range(100)), vocab_size=60)
        encode = Encode(config, EncodeCaption(tokenizer, max_tokens=30))
        encoded = [path.read_bytes() for path in paths]
        print(f"{len(paths)} files, {sum(map(len, encoded)) / len(encoded) / 1e3:.0f} kB each")
        decoders = decode_rounds(encoded)
        loader = {"loader": partial(run_loader, paths, encode, batch_size=32)}
        parts = part_rounds(encoded, encode, config)
        best = take_turns({**decoders, **loader, **parts}, num_rounds=options.rounds)
    report(best, num_images=len(paths), decoders=list(decoders), parts=list(parts))


def parse_options() -> argparse.Namespace:
    """Parse the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, help="folder with JPEG files, searched throughout")
    parser.add_argument("--size", type=int, default=224, help="side of the network input")
    parser.add_argument("--only-size", help="take files of this size alone, as 640x480")
    parser.add_argument("--limit", type=int, default=200, help="maximum number of files")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def find_files(options: argparse.Namespace) -> list[Path]:
    """Return the first JPEG files under the root, of the requested size."""
    paths = sorted(options.root.rglob("*.jpg"))
    if options.only_size:
        width, height = map(int, options.only_size.split("x"))
        paths = [path for path in paths if _size(path) == (height, width)]
    if not paths:
        raise SystemExit(f"no fitting .jpg under {options.root}")
    return paths[: options.limit]


def draw_files(folder: Path, num_files: int) -> list[Path]:
    """Draw textured 640 x 480 images as JPEG files of about the size of photos."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(num_files)]
    for path in paths:
        coarse = rng.integers(0, 256, (15, 20, 3)).astype(np.uint8)
        image = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        for left, top, size in rng.integers(0, 400, (25, 3)).tolist():
            draw.ellipse((left, top, left + size, top + size / 2), fill=(left % 256, top % 256, 90))
        noise = rng.normal(0, 12, (480, 640, 1))
        pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
    return paths


def decode_rounds(encoded: list[bytes]) -> dict[str, Round]:
    """Return each decoder's ordinary call on all files."""
    decoders: dict[str, Callable[[bytes], object]] = {
        "simplejpeg": simplejpeg.decode_jpeg,
        "torchvision": _decode_torchvision,
        "pillow": lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
    }
    try:
        import cv2

        cv2.setNumThreads(1)
        decoders["opencv"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), 1)
    except ImportError:
        print("opencv is not installed: left out")
    return {f"decode {name}": partial(_each, encoded, call) for name, call in decoders.items()}


def part_rounds(encoded: list[bytes], encode: Encode, config: ImageConfig) -> dict[str, Round]:
    """Return the separate parts of the loader, with prepared pixels."""
    rng = np.random.default_rng(0)
    images = [open_image(data) for data in encoded]
    boxes = [
        random_box(image.height, image.width, rng, scale=config.scale, ratio=config.ratio)
        for image in images
    ]
    pairs = list(zip(images, boxes, strict=True))
    min_size = int(TRAINING_SURPLUS * config.size)
    crops = [image.decode(box, min_size=min_size) for image, box in pairs]
    squares = [resize(crop, height=config.size, width=config.size).numpy() for crop in crops]
    jitter = partial(jitter_colors, rng=rng, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    captions = [CAPTION.format(number) for number in range(len(encoded))]
    return {
        "part: decode the crop": partial(
            _each, pairs, lambda pair: pair[0].decode(pair[1], min_size=min_size)
        ),
        "part: resize": partial(
            _each, crops, lambda crop: resize(crop, height=config.size, width=config.size)
        ),
        f"part: jitter (of {config.jitter_prob:.0%})": partial(_each, squares, jitter),
        "part: caption": partial(_each, captions, encode.encode_caption),
    }


def run_loader(paths: list[Path], encode: Encode, *, batch_size: int) -> None:
    """Load one epoch from files to batches, rounded up to whole batches."""
    config = LoaderConfig(num_workers=0)
    batches = training_batches(
        Files(paths), encode, collate, seed=0, batch_size=batch_size, config=config
    )
    for _ in islice(batches, -(-len(paths) // batch_size)):
        pass


def take_turns(rounds: dict[str, Round], *, num_rounds: int) -> dict[str, float]:
    """Return the processor seconds of the best round of each."""
    best = dict.fromkeys(rounds, float("inf"))
    for _ in range(num_rounds):
        for name, run in rounds.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return best


def report(
    best: dict[str, float], *, num_images: int, decoders: list[str], parts: list[str]
) -> None:
    """Print images per second, and the ratio of the loader to the bare decode."""
    in_batches = -(-num_images // 32) * 32
    for name in (*decoders, *parts):
        seconds = best[name] / num_images
        print(f"{name:24s} {seconds * 1e6:7.0f} us   {1 / seconds:8.0f} images/s")
    loader = best["loader"] / in_batches
    print(f"{'loader':24s} {loader * 1e6:7.0f} us   {1 / loader:8.0f} images/s")
    floor = min(best[name] for name in decoders) / num_images
    print(f"loader / bare decode: {floor / loader:.2f}")


def _each(items: Sequence[object], call: Callable[..., object]) -> None:
    for item in items:
        call(item)


def _size(path: Path) -> tuple[int, int]:
    height, width = simplejpeg.decode_jpeg_header(path.read_bytes())[:2]
    return height, width


def _decode_torchvision(data: bytes) -> torch.Tensor:
    buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return torchvision.io.decode_jpeg(buffer, mode=torchvision.io.ImageReadMode.RGB)


if __name__ == "__main__":
    main()
