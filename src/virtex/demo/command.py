"""What `virtex demo` does, before anything heavy is imported."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from virtex.demo.uploads import private_folder
from virtex.errors import ConfigError

QUICKSTART = Path("quickstart") / "run"
"""Served if no model is named."""


@dataclass(frozen=True)
class DemoConfig:
    """What `virtex demo` serves, and where."""

    init: str = str(QUICKSTART)
    """A run folder, a weights file, a checkpoint, or a released VirTex file."""
    gallery: Path | None = None
    """A folder of pictures: the examples, and what is searched."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all."""
    port: int = 7860
    """0 takes a free one."""
    device: str = "auto"
    tokenizer: Path | None = None
    max_upload_mb: int = 20
    """Largest photograph, in megabytes."""
    open: bool = False
    """Whether a browser is opened."""

    def __post_init__(self) -> None:
        problems = []
        if self.init == str(QUICKSTART) and not QUICKSTART.exists():
            problems.append(
                f"there is no {QUICKSTART}: run `make quickstart`, or name a model: virtex demo RUN"
            )
        if self.max_upload_mb < 1:
            problems.append(f"--max_upload_mb is {self.max_upload_mb}, must be at least 1")
        if not 0 <= self.port <= 65535:
            problems.append(f"--port is {self.port}, must be from 0 (a free one) to 65535")
        if self.gallery is not None and not self.gallery.is_dir():
            problems.append(f"--gallery {self.gallery} is no folder")
        if problems:
            raise ConfigError("; ".join(problems))


def demo(config: DemoConfig) -> None:
    """Serve a page about a model until Ctrl-C or SIGTERM.

    Raises:
        ConfigError: gradio is not installed, an address that cannot be had, no pictures.
        CheckpointError: `init` holds no captioner.
    """
    with _sigterm_as_interrupt(), private_folder() as uploads:
        _serve()(config, uploads)


def _serve() -> Callable[[DemoConfig, Path], None]:
    """The server; it is imported late, for gradio then looks where its folder is."""
    try:
        from virtex.demo.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "virtex":
            raise
        raise ConfigError(
            f"virtex demo needs {error.name}, which is not installed: pip install 'virtex[demo]'"
        ) from error
    return serve


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the server as Ctrl-C does, so that what visitors sent is removed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
