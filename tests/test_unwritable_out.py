"""An output that cannot be written is named first: before the model and the data are read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from virtex.data.source import SourceConfig
from virtex.errors import ConfigError, VirTexError
from virtex.predict.caption_files.job import caption_files
from virtex.predict.caption_files.options import CaptionFilesConfig
from virtex.predict.embed_files import embed_files
from virtex.predict.embed_options import EmbedFilesConfig
from virtex.report.report import write_report
from virtex.transfer.captioning import CaptioningProtocolConfig
from virtex.transfer.captioning import run as captioning
from virtex.transfer.linear import LinearConfig
from virtex.transfer.linear import run as linear
from virtex.vocabulary import TrainTokenizerConfig, write_tokenizer
from virtex.zoo.export import ExportConfig, export

NOWHERE = "no/such/run"
DATA = SourceConfig(source="folder", root="no/such/data")
COMMANDS: dict[str, Callable[[Path, Path], object]] = {
    "caption": lambda out, image: caption_files(
        CaptionFilesConfig(NOWHERE, (str(image),), out=out / "captions.json")
    ),
    "embed": lambda out, image: embed_files(
        EmbedFilesConfig(NOWHERE, out / "vectors.npz", (str(image),))
    ),
    "export": lambda out, image: export(
        ExportConfig(init=NOWHERE, format="timm", out=out / "model.pth")
    ),
    "tokenizer": lambda out, image: write_tokenizer(
        TrainTokenizerConfig(out=out / "words.model", data=DATA)
    ),
    "transfer linear": lambda out, image: linear(
        LinearConfig(init=NOWHERE, out=out / "results", data=DATA, device="cpu")
    ),
    "transfer captioning": lambda out, image: captioning(
        CaptioningProtocolConfig(init=NOWHERE, out=out / "r.json", data=DATA, device="cpu")
    ),
    "report": lambda out, image: write_report([image.parent / "empty"], out / "report"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_written_is_named_before_any_work(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    image = tmp_path / "image.png"
    image.touch()
    with pytest.raises(VirTexError, match=r"cannot write \S*loop") as raised:
        COMMANDS[command](tmp_path / "loop", image)
    assert isinstance(raised.value, ConfigError) or command in ("caption", "embed")
