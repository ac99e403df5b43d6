"""Protocol: a way to measure a backbone. Result: its numbers with their whole provenance."""

import hashlib
import json
import platform
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from virtex import files
from virtex.data.example import Source
from virtex.data.source_options import Needs
from virtex.errors import DataError, VirTexError

if TYPE_CHECKING:  # reading results, as a report does, needs no torch
    import torch

    from virtex.models.backbone import Backbone

PACKAGES = (
    "virtex", "torch", "torchvision", "timm", "scikit-learn", "faster-coco-eval", "numpy",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Result:
    """The numbers of one protocol, and all that is needed to get them again."""

    protocol: str
    """The protocol's name: voc07, linear, ..."""
    headline: str
    """The key in `numbers` of the one that stands for all."""
    numbers: dict[str, float]
    settings: dict[str, Any]
    """Every choice of the protocol's that may change the numbers."""
    initialisation: dict[str, Any]
    """Where the backbone's weights came from: INIT, step, sha256 of the weights."""
    data: dict[str, dict[str, str | int]]
    """Identity of the data under `train` and `test`."""
    seed: int
    versions: dict[str, str]
    device: str
    seconds: float
    """Wall time of the measurement; less where parts of it were there from before."""
    as_in_paper: bool = False
    """Whether settings and data are those of the paper's own figure."""

    @property
    def score(self) -> float:
        """The headline number."""
        return self.numbers[self.headline]

    @property
    def splits(self) -> str:
        """`train -> val`: on what the figure stands; `val` where nothing was trained on.

        Empty where the data have no splits.
        """
        roles = [role for role in ("train", "test") if role in self.data]
        splits = [str(self.data[role].get("split", "")) for role in roles]
        return " -> ".join(splits) if all(splits) else ""

    @property
    def companions(self) -> dict[str, float]:
        """The headline's own kind taken in other ways: knn_top1 to top1, box_AP to mask_AP."""
        kind = self.headline.rpartition("_")[2]
        return {
            name: number
            for name, number in self.numbers.items()
            if name.rpartition("_")[2] == kind and name != self.headline
        }

    @property
    def settings_hash(self) -> str:
        """The same for two results exactly if their protocols had the same settings."""
        return digest({"protocol": self.protocol, **self.settings})

    @property
    def file_name(self) -> str:
        """A name that the same measurement always gets, and another one does not."""
        init = re.sub(r"[^\w.-]+", "_", Path(str(self.initialisation["init"])).name).strip("_.")
        identity = [self.settings_hash, self.initialisation, self.data, self.seed]
        return f"{self.protocol}-{init or 'init'}-{digest(identity)[:8]}.json"

    def summary(self) -> str:
        """The result in a line: the number, and others of its kind; of what, on what."""
        init, step = self.initialisation["init"], self.initialisation.get("step")
        about = [
            f"{init}, step {step}" if step else str(init),
            self.splits,
            f"{self.settings['image_size']} px" if "image_size" in self.settings else "",
            f"{self.seconds:.0f} s",
        ]
        told = "; ".join(part for part in about if part)
        shown = {self.headline: self.score, **self.companions}
        scores = ", ".join(f"{name} {number:.2f}" for name, number in shown.items())
        return f"{self.protocol} {scores} ({told})"

    def write(self, path: Path, *, error: type[VirTexError] = DataError) -> Path:
        """Write as JSON, whole or not at all; a folder gets a file of this result's own name.

        Returns:
            The path of the file.

        Raises:
            VirTexError: `error`, where the file cannot be written.
        """
        path = path if path.suffix == ".json" else path / self.file_name
        values = {**asdict(self), "settings_hash": self.settings_hash}
        files.write(path, json.dumps(values, indent=2) + "\n", error=error)
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """The result that `write` put into a file.

        Raises:
            DataError: No such file, or not a result.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            result = cls(
                **{
                    field.name: values[field.name]
                    for field in fields(cls)
                    if field.name in values or field.default is MISSING
                }
            )
            result.score  # noqa: B018
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is not a transfer result ({type(error).__name__}: {error}). Results are "
                "the JSON files that `virtex transfer` writes; remove or restore this one."
            ) from error
        return result


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """A way to measure a backbone: learns something small on top of it and tests that.

    A subclass is a frozen dataclass of its options.
    """

    headline: ClassVar[str]
    needs: ClassVar[Needs] = Needs(labels=True)
    """What each image must come with."""
    name: str
    seed: int = 0

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Every choice that may change the numbers, as plain values."""

    def check(self, train: Source, test: Source) -> None:  # noqa: B027
        """Find what is wrong with the data for this protocol, before any work is done.

        Raises:
            ConfigError, DataError: A mistake of the user's.
        """

    @abstractmethod
    def measure(self, backbone: "Backbone", *, train: Source, test: Source) -> dict[str, float]:
        """The numbers, `headline` among them; called on every process, the main one's count."""

    def as_in_paper(self, train: Source, test: Source) -> bool:
        """Whether settings and data are those of the paper's own figure."""
        del train, test
        return False

    @property
    @abstractmethod
    def device(self) -> "torch.device":
        """Where the backbone runs."""

    def run(
        self,
        backbone: "Backbone",
        *,
        train: Source,
        test: Source,
        initialisation: Mapping[str, Any],
    ) -> Result:
        """Measure, and record with what.

        Args:
            initialisation: Where the weights came from; at least `init`.
        """
        from virtex import distributed  # brings torch, which reading results does not need

        self.check(train, test)
        start = time.perf_counter()
        numbers = self.measure(backbone, train=train, test=test)
        return Result(
            protocol=self.name,
            headline=self.headline,
            numbers=distributed.gather_objects(numbers)[0],  # type: ignore[arg-type]
            settings=self.settings(),
            initialisation=dict(initialisation),
            data={"train": train.identity(), "test": test.identity()},
            seed=self.seed,
            versions=versions(),
            device=device_name(self.device),
            seconds=round(time.perf_counter() - start, 2),
            as_in_paper=self.as_in_paper(train, test),
        )


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def device_name(device: "torch.device") -> str:
    """What the device is called: `cpu`, or the GPU's product name; how many, if several."""
    from virtex import distributed

    name = device.type
    if device.type == "cuda":
        import torch

        name = torch.cuda.get_device_name(device)
    number = distributed.world_size()
    return f"{number} x {name}" if number > 1 else name


def digest(values: Any) -> str:
    """A short hash of plain values; the order of keys does not matter."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
