"""What all `virtex transfer` commands share: which backbone, how it runs, where results go."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from virtex.data.example import Source
from virtex.data.source import Needs, SourceConfig, Split, open_source
from virtex.engine.run import choose_device
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.transfer.features import Extraction
from virtex.transfer.protocol import Protocol, Result
from virtex.zoo.weights import Initialisation, open_backbone


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Options of every protocol that works on frozen features."""

    init: str
    """Whose backbone: random, imagenet, a run folder, or a weights file."""
    out: Path
    """Folder for the result (or a .json file), and for features/, which a second call reuses."""
    backbone: BackboneConfig | None = None
    """The architecture where INIT does not say it: for random, imagenet, bare weights."""
    backbone_from: str | None = None
    """For `--init random`: take the architecture of this run folder or weights file."""
    image_size: int = 224
    """Side of the centre crop, in pixels; the short side is resized to image_size * 256 / 224."""
    batch_size: int = 64
    """Images at once through the backbone."""
    num_workers: int = 2
    """Processes that decode images, and threads that solve for classes."""
    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1, mps."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the backbone."""
    seed: int = 0
    """Of random initial weights and of whatever the protocol draws."""


def extraction(config: TransferConfig) -> Extraction:
    """How this command turns images into features."""
    if config.image_size < 1 or config.batch_size < 1 or config.num_workers < 0:
        raise ConfigError(
            f"image_size {config.image_size}, batch_size {config.batch_size} and num_workers "
            f"{config.num_workers} cannot work: the first two must be at least 1, the last 0."
        )
    if _folder(config.out).is_file():
        raise ConfigError(f"out {config.out} is a file; give a folder (or a .json file in one).")
    return Extraction(
        image_size=config.image_size,
        precision=config.precision,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        device=choose_device(config.device),
        cache=_folder(config.out) / "features",
    )


def load(config: TransferConfig) -> tuple[Backbone, Initialisation]:
    """The backbone that the command names, and where it came from.

    Raises:
        ConfigError: Options that contradict each other.
        CheckpointError: Weights that cannot be found or read.
    """
    architecture = config.backbone
    if config.backbone_from is not None:
        if config.init != "random" or architecture is not None:
            raise ConfigError(
                f"backbone_from gives `--init random` its architecture; with init {config.init!r}"
                f"{' and backbone.*' if architecture else ''} it says nothing. Leave one out."
            )
        architecture = open_backbone(config.backbone_from)[1].backbone
    return open_backbone(config.init, config=architecture, seed=config.seed)


def run_protocol(protocol: Protocol, config: TransferConfig, data: SourceConfig) -> Result:
    """Measure the backbone that a command names on its data, and write the result to its `out`.

    Raises:
        ConfigError, DataError, CheckpointError: A mistake of the user's.
    """
    train, test = open_splits(data)
    backbone, initialisation = load(config)
    result = protocol.run(backbone, train=train, test=test, initialisation=asdict(initialisation))
    result.write(config.out)
    return result


def open_splits(data: SourceConfig) -> tuple[Source, Source]:
    """What a protocol trains on, and what it tests on.

    Raises:
        ConfigError, DataError: A mistake of the user's; a missing test split is one too.
    """
    train, test = (
        open_source(data, split=split, needs=Needs(labels=True)) for split in get_args(Split)
    )
    if train is None or test is None:
        raise ConfigError(
            f"there is no test data: name it with data.val_split, data.val_root or data.val_share "
            f"(source {data.source}, root {data.root})."
        )
    return train, test


def _folder(out: Path) -> Path:
    return out.parent if out.suffix == ".json" else out
