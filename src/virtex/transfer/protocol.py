"""Protocols, which measure a backbone, and results, their numbers with full provenance."""

import hashlib
import json
import platform
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from virtex import files
from virtex.data.example import Source
from virtex.data.source_options import Needs
from virtex.errors import ConfigError, DataError, VirTexError, listing
from virtex.options.bounded_yaml import load_json
from virtex.transfer.identities import identities_of
from virtex.version import VERSION

if TYPE_CHECKING:  # reading results, as a report does, needs no torch
    import torch

    from virtex.models.backbone import Backbone

PACKAGES = ("torch", "torchvision", "timm", "scikit-learn", "faster-coco-eval", "numpy")
MAX_BYTES = 2**22
"""Most bytes of a result's file."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The numbers of one protocol, and everything needed to reproduce them."""

    protocol: str
    """The protocol's name: voc07, linear, ..."""
    headline: str
    """Key of the main number in `numbers`."""
    numbers: dict[str, float]
    settings: dict[str, Any]
    """All options of the protocol that may change the numbers."""
    initialisation: dict[str, Any]
    """Origin of the weights: INIT, step, sha256."""
    data: dict[str, dict[str, str | int]]
    """Identities of the data, under `train` and `test`."""
    seed: int
    versions: dict[str, str]
    device: str
    seconds: float
    """Wall time of the measurement, which is shorter where parts of it were cached."""
    as_in_paper: bool = False
    """Whether settings and data are those of the paper's own figure."""
    folder: Path | None = field(default=None, compare=False)
    """Folder of the file that it was read from."""

    @property
    def score(self) -> float:
        """The headline number."""
        return self.numbers[self.headline]

    @property
    def splits(self) -> str:
        """Splits of the data: `train -> val`, `val` where nothing is trained, or empty."""
        roles = [role for role in ("train", "test") if role in self.data]
        splits = [str(self.data[role].get("split", "")) for role in roles]
        return " -> ".join(splits) if all(splits) else ""

    @property
    def companions(self) -> dict[str, float]:
        """Other numbers of the headline's kind: knn_top1 for top1, box_AP for mask_AP."""
        kind = self.headline.rpartition("_")[2]
        return {
            name: number
            for name, number in self.numbers.items()
            if name.rpartition("_")[2] == kind and name != self.headline
        }

    @property
    def settings_hash(self) -> str:
        """Hash of the protocol and its settings."""
        return digest({"protocol": self.protocol, **self.settings})

    @property
    def file_name(self) -> str:
        """File name that identifies the measurement."""
        init = re.sub(r"[^\w.-]+", "_", Path(str(self.initialisation["init"])).name).strip("_.")
        identity = [self.settings_hash, self.initialisation, self.data, self.seed]
        return f"{self.protocol}-{init or 'init'}-{digest(identity)[:8]}.json"

    def summary(self) -> str:
        """Return a line with the headline number, others of its kind, INIT and the data."""
        init, step = self.initialisation["init"], self.initialisation.get("step")
        about = [
            f"{init}, step {step}" if step else str(init),
            self.splits,
            f"{self.settings['image_size']} px" if "image_size" in self.settings else "",
            f"{self.seconds:.0f} s",
        ]
        details = "; ".join(part for part in about if part)
        shown = {self.headline: self.score, **self.companions}
        scores = ", ".join(f"{name} {number:.2f}" for name, number in shown.items())
        return f"{self.protocol} {scores} ({details})"

    def write(self, path: Path, *, error: type[VirTexError] = DataError) -> Path:
        """Write the result as JSON, atomically; in a folder under its own file name.

        Returns:
            The path of the file.

        Raises:
            VirTexError: `error`: the file cannot be written.
        """
        path = path if path.suffix == ".json" else path / self.file_name
        values = {**asdict(self), "settings_hash": self.settings_hash}
        del values["folder"]
        files.write(path, json.dumps(values, indent=2) + "\n", error=error)
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a result that `write` wrote.

        Raises:
            DataError: No such file, or not a result.
        """
        try:
            values = load_json(files.read_text(path, most=MAX_BYTES), "a value")
            _check_result(values)
        except (ValueError, ConfigError) as error:
            raise DataError(
                f"{path} is not a transfer result ({error}). Results are the JSON files that "
                "`virtex transfer` writes; remove or restore this one."
            ) from error
        known = {name: values[name] for name in RESULT_TYPES if name in values}
        return cls(**known, folder=path.parent.resolve())


RESULT_TYPES: dict[str, tuple[type, ...]] = {
    "protocol": (str,), "headline": (str,), "numbers": (dict,), "settings": (dict,),
    "initialisation": (dict,), "data": (dict,), "seed": (int,), "versions": (dict,),
    "device": (str,), "seconds": (int, float), "as_in_paper": (bool,),
}  # fmt: skip
INITIALISATION_TYPES: dict[str, tuple[type, ...]] = {
    "init": (str,), "step": (int, NoneType), "sha256": (str, NoneType),
    "backbone": (dict, NoneType),
}  # fmt: skip


def _check_result(values: object) -> None:
    """See that plain values are those of a result.

    Raises:
        ValueError: Something is missing or has another type.
    """
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    _check_types({"as_in_paper": False, **values}, RESULT_TYPES)
    origin = dict.fromkeys(INITIALISATION_TYPES) | values["initialisation"]
    _check_types(origin, INITIALISATION_TYPES)
    numbers, headline = values["numbers"], values["headline"]
    if not all(type(number) in (int, float) for number in numbers.values()):
        raise ValueError("numbers holds something else")
    if not headline or headline not in numbers or not values["protocol"]:
        raise ValueError(f"numbers has no {headline[:100]!r}, the headline")
    if not all(isinstance(identity, dict) for identity in values["data"].values()):
        raise ValueError("data holds something else than the identities of data")
    if values["seconds"] < 0:
        raise ValueError("seconds is negative")


def _check_types(values: Mapping[str, object], types: Mapping[str, tuple[type, ...]]) -> None:
    wrong = [name for name, allowed in types.items() if type(values.get(name)) not in allowed]
    if wrong:
        raise ValueError(f"{listing(wrong)}: missing, or of another type")


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """A measurement of a backbone, by what can be learned on top of it.

    A subclass is a frozen dataclass of its options.
    """

    headline: ClassVar[str]
    needs: ClassVar[Needs] = Needs(labels=True)
    """Annotations that each image must have."""
    name: str
    seed: int = 0

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return all options that may change the numbers, as plain values."""

    def check(self, train: Source, test: Source) -> None:  # noqa: B027
        """Refuse data that this protocol cannot use, before any work is done.

        Raises:
            ConfigError, DataError: Options or data that do not fit.
        """

    @abstractmethod
    def measure(self, backbone: "Backbone", *, train: Source, test: Source) -> dict[str, float]:
        """Return the numbers with `headline`, on the main process; called on every process."""

    def as_in_paper(self, train: Source, test: Source) -> bool:
        """Return whether settings and data are those of the paper's own figure."""
        del train, test
        return False

    @property
    @abstractmethod
    def device(self) -> "torch.device":
        """Device of the backbone."""

    def run(
        self,
        backbone: "Backbone",
        *,
        train: Source,
        test: Source,
        initialisation: Mapping[str, Any],
    ) -> Result:
        """Measure a backbone, and return the result.

        Args:
            initialisation: Origin of the weights, with `init` at least.
        """
        from virtex import distributed  # imports torch, which reading results does not need

        self.check(train, test)
        start = time.perf_counter()
        numbers = self.measure(backbone, train=train, test=test)
        return Result(
            protocol=self.name,
            headline=self.headline,
            numbers=distributed.gather_objects(numbers)[0],
            settings=self.settings(),
            initialisation=dict(initialisation),
            data=identities_of(train, test),
            seed=self.seed,
            versions=versions(),
            device=device_name(self.device),
            seconds=round(time.perf_counter() - start, 2),
            as_in_paper=self.as_in_paper(train, test),
        )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    own = {"python": platform.python_version(), "virtex": VERSION}
    return own | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    """Return a package's version, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def device_name(device: "torch.device") -> str:
    """Return the name of the device: `cpu`, or the GPU's product name; `2 x NAME` for several."""
    from virtex import distributed

    name = device.type
    if device.type == "cuda":
        import torch

        name = torch.cuda.get_device_name(device)
    number = distributed.world_size()
    return f"{number} x {name}" if number > 1 else name


def digest(values: Any) -> str:
    """Return a short hash of plain values; the order of keys does not matter."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
