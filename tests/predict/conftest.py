import numpy as np
import pytest

from tests.predict.photo_run import save_run
from tests.predict.small_captioner import IMAGE, TEXTS, small_task
from virtex.data.tokenizer import train_tokenizer
from virtex.predict.predictor import Predictor


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=60)


@pytest.fixture(scope="module")
def task(tokenizer):
    return small_task(tokenizer)


@pytest.fixture(scope="module")
def predictor(task, tokenizer):
    return Predictor(task.captioner, tokenizer, IMAGE)


@pytest.fixture(scope="module")
def images():
    """Five arrays (H, W, 3) of different sizes."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (60 + 4 * i, 80, 3), dtype=np.uint8) for i in range(5)]


@pytest.fixture(scope="module")
def run(task, tokenizer, tmp_path_factory):
    """The folder of a run that trained `task`."""
    return save_run(tmp_path_factory.mktemp("run"), task, tokenizer)
