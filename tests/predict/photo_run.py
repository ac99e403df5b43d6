"""A run folder and photographs on disk, for the tests of `virtex caption`."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.predict.small_captioner import IMAGE, SLIM, TASK
from virtex.config import to_dict
from virtex.data.tokenizer import Tokenizer
from virtex.data.transforms import ImageConfig
from virtex.tasks.base import Task
from virtex.zoo.weights_file import save_weights


def save_run(folder: Path, task: Task, tokenizer: Tokenizer, *, image: ImageConfig = IMAGE) -> Path:
    """What training leaves behind."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {"class_path": type(TASK).__name__, "init_args": to_dict(TASK)}
    config = {"backbone": to_dict(SLIM), "image": to_dict(image), "task": named}
    path = folder / "weights.safetensors"
    save_weights(path, task.state_dict(), config=config, tokenizer=tokenizer, step=7)
    return folder


def write_images(folder: Path, number: int) -> Path:
    """photo0.png and so on, of noise that differs from one to the next."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 256, (60 + 4 * index, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photo{index}.png")
    return folder
