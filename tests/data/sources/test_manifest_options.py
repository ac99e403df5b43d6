"""Options that go with a manifest of shards, and data that are trained on and validated."""

from pathlib import Path

import pytest

from tests.data.sources.layouts import jpeg, write_tar
from tests.data.sources.manifests import write_manifest, write_shards
from tests.data.sources.test_shards import refusal
from virtex.data.shards.index import IndexConfig, index_shards
from virtex.data.source import SourceConfig, _log_unused, open_source
from virtex.data.sources.shards import ShardedSource
from virtex.data.sources.webdataset import WebdatasetSource
from virtex.data.validation import check_validation
from virtex.errors import ConfigError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_shards(tmp_path / "shards", [3, 4, 2])
    return tmp_path / "shards"


@pytest.mark.parametrize("source", ["auto", "webdataset"])
@pytest.mark.parametrize("name", ["", "manifest.json"])
def test_a_manifest_is_found_by_its_folder_or_file(root: Path, source: str, name: str) -> None:
    out = write_manifest(root)
    write_shards(root.parent / "val", [2])
    val = write_manifest(root.parent / "val")
    config = SourceConfig(source=source, root=out / name, val_root=val / name)  # type: ignore[arg-type]
    assert isinstance(open_source(config, split="train"), ShardedSource)
    assert isinstance(open_source(config, split="val"), ShardedSource)
    assert isinstance(open_source(SourceConfig(root=root), split="train"), WebdatasetSource)


def test_options_that_do_not_fit_a_manifest_are_refused_together(root: Path) -> None:
    out = write_manifest(root)
    config = SourceConfig(
        source="webdataset", root=out, share=0.5, val_share=0.1, train_split="x", fault_limit=2
    )
    with pytest.raises(ConfigError) as caught:
        open_source(config, split="train")
    message = str(caught.value)
    assert "--data.share 0.5 means nothing to a manifest: make a manifest of a part" in message
    assert "--data.val_share 0.1 means nothing to a manifest: make two manifests by" in message
    assert "--data.train_split x means nothing to a manifest" in message
    assert "--data.fault_limit must be from 0 to 1, not 2" in message


def test_options_of_a_manifest_are_refused_without_one(root: Path) -> None:
    config = SourceConfig(source="webdataset", root=root, num_lanes=4)
    with pytest.raises(ConfigError, match="num_lanes means something to a manifest alone, and"):
        open_source(config, split="train")
    both = SourceConfig(source="webdataset", root=root, mix={str(root): 1})
    with pytest.raises(ConfigError, match=r"--data.mix and --data.root both name training data"):
        open_source(both, split="train")


def test_a_folder_in_place_of_its_manifest_is_told_from_none(root: Path, tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    out = write_manifest(root)
    with pytest.raises(ConfigError) as caught:
        open_source(SourceConfig(mix={str(root): 1, none: 1}), split="train")
    assert f"--data.mix: {root} is no manifest: name {out}." in str(caught.value)
    assert f"--data.mix: {none} is no manifest: write one by `virtex index`" in str(caught.value)
    with pytest.raises(ConfigError, match=rf"num_lanes .* is none: name {out} with --data\.root"):
        open_source(SourceConfig(source="webdataset", root=root, num_lanes=4), split="train")


@pytest.mark.parametrize("source", ["auto", "webdataset"])
@pytest.mark.parametrize("base", ["", "/somewhere"])
def test_a_url_needs_a_manifest(source: str, base: str) -> None:
    config = SourceConfig(source=source, root=Path(base, "s3://bucket/a"))  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=r"data\.root s3://bucket/a .*`virtex index s3://bucket/a"
    ):
        open_source(config, split="train")


def test_fewer_captions_of_a_manifest(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"0.jpg": jpeg(0), "0.txt": "one\ntwo"})
    config = SourceConfig(root=write_manifest(tmp_path), num_captions=1)
    source = open_source(config, split="train")
    assert source is not None
    assert source[0].captions == ("one",)


def test_a_manifest_is_mixed_once(root: Path, tmp_path: Path) -> None:
    out = write_manifest(root)
    (tmp_path / "link").symlink_to(out)
    for other in (f"{out}/manifest.json", f"{root}/../shards/{out.name}", str(tmp_path / "link")):
        found = refusal(mix={str(out): 1.0, other: 2.0})
        assert f"--data.mix names {other} twice: {out} is the same" in found


def test_a_manifest_that_is_trained_on_is_no_validation_data(root: Path, tmp_path: Path) -> None:
    out = write_manifest(root)
    write_shards(tmp_path / "more", [2])
    mix = {str(write_manifest(tmp_path / "more")): 1.0, str(out): 1.0}
    (tmp_path / "link").symlink_to(out)
    for val in (out, out / "manifest.json", tmp_path / "link"):
        for options in ({"root": out}, {"mix": mix}):
            found = refusal(val_root=val, **options)
            assert f"--data.val_root {val} is a manifest that is trained on. Name data" in found
    assert open_source(SourceConfig(root=out, val_root=out), split="val")  # trains on nothing
    copy = write_manifest(root, out=tmp_path / "copy")
    for options in ({"root": out}, {"mix": mix}):
        found = refusal(val_root=copy, **options)
        assert f"the examples of --data.val_root {copy} are trained on: all of them are in" in found


def test_shards_of_a_manifest_are_no_validation_data_as_a_folder(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write_shards(tmp_path / name, [3])
    out = index_shards(IndexConfig(root=str(tmp_path)), processes=1)
    found = refusal(root=out, val_root=tmp_path / "val")
    assert (
        f"{tmp_path}/val holds validation data, and its shards val/00000.tar are trained" in found
    )
    assert "all of them are in" in refusal(root=tmp_path, val_root=out)
    own = write_manifest(tmp_path / "train")
    check_validation(SourceConfig(source="webdataset", root=own, val_root=tmp_path / "val"))


def test_validation_examples_that_are_trained_on_are_counted(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = index_shards(IndexConfig(root=str(root), val_share=0.5), processes=1)
    val = out.with_name(f"{out.name}-val")
    check_validation(SourceConfig(source="webdataset", root=out, val_root=val))
    assert not caplog.records
    kept = root.parent / "kept.txt"
    kept.write_text("\n".join(f"{number:09}" for number in range(8)))
    index_shards(IndexConfig(root=str(root), keep=kept, out=root.parent / "most"), processes=1)
    few = write_manifest(root, left_out={"00000.tar": [0, 1, 2], "00001.tar": [0, 1, 2, 3]})
    most = root.parent / "most"
    check_validation(SourceConfig(source="webdataset", root=most, val_root=few))
    assert "at least 1 of the 2 validation examples in" in caplog.text


def test_a_folder_with_a_manifest_says_how_to_use_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shards(tmp_path / "train", [3])
    out = write_manifest(tmp_path / "train")
    caplog.set_level("INFO", "virtex")
    for root in (tmp_path, tmp_path / "train"):
        _log_unused.cache_clear()
        caplog.clear()
        for _ in range(2):
            assert isinstance(open_source(SourceConfig(root=root), split="train"), WebdatasetSource)
        lines = [one.getMessage() for one in caplog.records if "has a manifest" in one.getMessage()]
        assert len(lines) == 1
        assert lines[0].endswith(f"which a new run reads with --data.root {out}")
