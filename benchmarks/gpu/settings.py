"""What is measured and at which size, as every section's process gets it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self


@dataclass(frozen=True)
class Settings:
    """Options of a call, and the sizes that follow from them."""

    work: Path
    """Folder of drawn photographs and runs, which is removed at the end."""
    device: Literal["cuda", "cpu"]
    is_toy: bool = False
    """Whether everything is tiny, to show that it runs."""
    captions: Path | None = None
    """Folder in COCO's layout; None for drawn photographs."""
    voc: Path | None = None
    """Folder with VOC2007."""
    batch_size: int = 256
    """Images in a step; halved until they fit the GPU's memory."""

    @property
    def image_size(self) -> int:
        """Side of the network's input, in pixels."""
        return 64 if self.is_toy else 224

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Precision of all training: bf16, and fp32 on a CPU, which may lack it."""
        return "bf16" if self.device == "cuda" else "fp32"

    def write(self, path: Path) -> None:
        """Write the settings for another process."""
        path.write_text(json.dumps(asdict(self), default=str))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what `write` wrote."""
        values = json.loads(path.read_text())
        for name in ("work", "captions", "voc"):
            values[name] = values[name] and Path(values[name])
        return cls(**values)
