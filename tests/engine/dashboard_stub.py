"""Stand-ins for trackio and wandb: they append each call to the file that CALLS names.

BEHAVIOR says what `log` does: it works, raises, or never returns; from step FIRST_BAD on.
"""

import json
import os
import time
from pathlib import Path
from typing import Any


def _record(*call: Any) -> None:
    with Path(os.environ["CALLS"]).open("a") as file:
        file.write(json.dumps(call, default=str) + "\n")


def init(**options: Any) -> None:
    _record("init", options)


def _fail() -> None:
    if os.environ.get("BEHAVIOR") == "raises":
        raise RuntimeError("the disk of the\ndashboard is full")
    while os.environ.get("BEHAVIOR") == "blocks":
        time.sleep(1)


def log(values: dict[str, Any], step: int) -> None:
    if step >= int(os.environ.get("FIRST_BAD", "0")):
        _fail()
    _record("log", values, step)


def finish() -> None:
    _record("finish")
