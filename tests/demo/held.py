"""A model that computes for as long as a test wants, and the requests that wait meanwhile."""

import threading
import time

from virtex.demo.api import MAX_PENDING

SECONDS = 60


class Held:
    """A model that computes until it is let go."""

    def __init__(self, monkeypatch, predictor):
        self.started, self.released, self.num_calls = threading.Event(), threading.Event(), 0
        self.search = predictor.captions
        monkeypatch.setattr(predictor, "captions", self)

    def __call__(self, *arguments):
        self.num_calls += 1
        self.started.set()
        assert self.released.wait(SECONDS)
        return self.search(*arguments)


def num_pending(api):
    return MAX_PENDING - api._slots._value


def wait_until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()
