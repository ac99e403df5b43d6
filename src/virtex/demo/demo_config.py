"""Options of `virtex demo`. Nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from virtex.config import parse
from virtex.demo.host_names import host_name
from virtex.errors import ConfigError, raise_all

QUICKSTART = Path("quickstart") / "run"
"""Model that is served by default."""


@dataclass(frozen=True)
class DemoConfig:
    """Options of `virtex demo`."""

    init: str = str(QUICKSTART)
    """A run folder, a weights file, a checkpoint, a released .pth, a zoo name."""
    gallery: Path | None = None
    """Folder of images to show as examples and to search."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of this machine's."""
    port: int = 7860
    """Port to listen on; 0 takes a free one."""
    allowed_hosts: str = ""
    """Further host names of the page, or its addresses in a browser, separated by commas."""
    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1, mps."""
    tokenizer: Path | None = None
    """Vocabulary of a released .pth, which holds none."""
    max_upload_mb: int = 20
    """Largest image file that is accepted, in megabytes."""
    open: bool = False
    """Open the page in a browser."""
    space: Path | None = None
    """Folder to write instead of serving: the same demo as a Space of the Hugging Face hub."""

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
        problems += [
            f"--allowed_hosts {name} has no host name: give a name such as demo.example (no *; "
            "other letters as xn--...), or an address of the page"
            for name in self.named_hosts
            if not host_name(name)
        ]
        if self.space is not None:
            problems += self._unused_in_space()
        raise_all(ConfigError, "the demo cannot be served", problems)

    @property
    def named_hosts(self) -> list[str]:
        """The further hosts, as they are given."""
        return [name.strip() for name in self.allowed_hosts.split(",") if name.strip()]

    def _unused_in_space(self) -> list[str]:
        """Return a problem for each option of a server here."""
        return [
            f"--{one.name} {getattr(self, one.name)} means nothing with --space, which serves "
            "nothing: leave it out"
            for one in fields(self)
            if one.name in ("host", "port", "allowed_hosts", "device", "open")
            and getattr(self, one.name) != one.default
        ]


def parse_demo(arguments: Sequence[str]) -> DemoConfig:
    """Return the config that a command line describes; INIT needs no flag.

    Raises:
        ConfigError: An unknown option, or a value that is not allowed.
    """
    return parse(
        DemoConfig,
        arguments,
        prog="virtex demo",
        description="Serve a page to try a captioner in the browser.",
        positionals=["init"],
    )
