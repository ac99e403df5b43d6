"""The command line of `virtex caption`."""

import subprocess
import sys
from pathlib import Path

import pytest

from virtex.cli import main
from virtex.errors import ConfigError
from virtex.models.decoding import DecodingConfig
from virtex.predict.caption_files.options import CaptionFilesConfig, parse_caption

FLAGS = {"nucleus": "top_p", "beams": "num_beams"}


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys, virtex.cli\ntry: virtex.cli.main(['caption', '--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0
    assert "--num_captions" in finished.stdout


def test_arguments_without_a_flag_are_the_model_and_then_images() -> None:
    config = parse_caption(["run", "--greedy", "a.jpg", "--overwrite", "b", "-", "--out", "c.csv"])
    assert (config.init, config.images) == ("run", ("a.jpg", "b", "-"))
    assert (config.decoding.strategy, config.overwrite) == ("greedy", True)
    named = parse_caption(["a.jpg", "--init", "run", "--", "--odd.jpg"])
    assert (named.init, named.images) == ("run", ("a.jpg", "--odd.jpg"))
    assert parse_caption(["run", "--list", "x", "--list", "y"]).lists == ("x", "y")


@pytest.mark.parametrize(
    "name", ["\udcff.jpg", "\U0001f415.jpg", "a\nb\x1b\x9b.jpg", "[a].jpg", "1", "null", "a: b", ""]
)
def test_a_file_may_have_any_name(name: str) -> None:
    assert parse_caption(["run", name]).images == (name,)
    assert parse_caption(["run", "--list", name]).lists == (name,)
    if name != "\udcff.jpg":  # the parser of options takes UTF-8 alone
        assert str(parse_caption(["run", "a.jpg", "--json", f"c{name}"]).json) == f"c{name}"


def test_the_flags_of_the_search_become_its_options() -> None:
    flags = "--beams 8 --per_node_beams 3 --length_penalty 0.5 --backward_weight 0.2 --max_steps 9"
    beam = parse_caption(["run", "a.jpg", *flags.split(), "--no_repeat_ngram", "2", "--original"])
    assert beam.decoding == DecodingConfig(
        num_beams=8, per_node_beams=3, length_penalty=0.5, backward_weight=0.2, max_steps=9,
        no_repeat_ngram=2, original=True,
    )  # fmt: skip
    sampled = parse_caption(["run", "a.jpg", "--top_k", "40", "--temperature", "2"])
    assert sampled.decoding == DecodingConfig(
        strategy="nucleus", top_p=1.0, top_k=40, temperature=2.0
    )
    assert parse_caption(["run", "a.jpg", "--nucleus", "0.9"]).decoding.top_p == 0.9
    assert parse_caption(["run", "a.jpg", "--prefix", "2"]).prefix == "2"


@pytest.mark.parametrize("name", ["length_penalty", "no_repeat_ngram", "backward_weight", "top_k"])
def test_a_flag_of_0_is_0(name: str) -> None:
    config = parse_caption(["run", "a.jpg", f"--{name}", "0"])
    assert getattr(config.decoding, name) == 0
    assert config.decoding.strategy == ("nucleus" if name == "top_k" else "beam")


@pytest.mark.parametrize(
    "name",
    [
        *FLAGS,
        "per_node_beams",
        "temperature",
        "num_captions",
        "batch_size",
        "max_steps",
    ],
)
def test_a_flag_of_0_is_refused_where_0_means_nothing(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{FLAGS.get(name, name)} (is )?0"):
        parse_caption(["run", "a.jpg", f"--{name}", "0"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run"], "no images"),
        ([], "INIT"),
        (["run", "a.jpg", "--beems", "3"], "beems"),
        (["run", "a.jpg", "--beams", "three"], "beams"),
        (["run", "a.jpg", "--out"], "--out needs a value"),
        (["run", "http://a/b.jpg", "--allow_urls"], "unknown option --allow_urls"),
    ],
)
def test_an_error_of_parsing_names_the_help(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", *arguments]) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert "--help" in shown


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed -1 must be at least 0"):
        CaptionFilesConfig("run", ("a.jpg",), seed=-1)


def test_options_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("init: run\nbeams: 7\ngreedy: false\n")
    config = parse_caption(["--config", str(path), "--init", "other", "a.jpg"])
    assert (config.init, config.beams, config.images) == ("other", 7, ("a.jpg",))
