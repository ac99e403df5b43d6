"""An index replaces nothing but its own earlier files, in any folder that it writes."""

import shutil
from pathlib import Path

import pytest

from tests.data.shards.test_index import contents, ids, index, make_shards
from tests.data.sources.layouts import write
from virtex.data.shards.folder_store import FolderStore
from virtex.data.shards.index_options import includes
from virtex.data.shards.manifest import Manifest
from virtex.data.sources.shard_captions import index_command
from virtex.data.sources.shards import ShardedSource
from virtex.errors import ConfigError, DataError


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return make_shards(tmp_path / "other", number=1)


def _is_refused(message: str, folder: Path, *arguments: object, **options: object) -> None:
    before = contents(folder)
    with pytest.raises(ConfigError, match=message):
        index(*arguments, **options)  # type: ignore[arg-type]
    assert contents(folder) == before


def test_what_is_held_out_replaces_no_other_manifest(
    shards: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, beside = tmp_path / "m", tmp_path / "m-val"
    index(other, beside)
    monkeypatch.setattr(FolderStore, "list", None)  # it is refused before
    message = r"--val_share writes .*m-val too, which is a manifest of its own, of .*other"
    _is_refused(message, beside, shards, out, val_share=0.3)
    _is_refused(message, beside, shards, out, val_share=0.3, overwrite=True)
    assert not out.exists()


def test_what_is_held_out_replaces_the_same_of_earlier(
    shards: Path, other: Path, tmp_path: Path
) -> None:
    out, beside = tmp_path / "m", tmp_path / "m-val"
    index(shards, out, val_share=0.3)
    few = len(ids(beside))
    index(shards, out, val_share=0.6)
    assert len(ids(beside)) > few
    with pytest.raises(ConfigError) as raised:
        index(other, out, val_share=0.5)
    for text in (f"{out} is the manifest of {shards}", f"{beside} too, which is the manifest of"):
        assert text in str(raised.value)
    index(other, out, val_share=0.5, overwrite=True)
    assert len(ids(out)) + len(ids(beside)) == 5
    for path in (out, beside):
        path.rename(tmp_path / path.name.replace("m", "renamed"))
    index(other, tmp_path / "renamed", val_share=0.5)
    assert len(ids(tmp_path / "renamed")) + len(ids(tmp_path / "renamed-val")) == 5


@pytest.mark.parametrize("name", ["letter.txt", "manifest.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_others_are_replaced_in_neither_folder(
    shards: Path, tmp_path: Path, name: str, overwrite: bool
) -> None:
    for folder, share in (("m-val", 0.3), ("m", 0.0)):
        write(tmp_path / folder / name, '{"name": "my extension"}')
        message = f"{tmp_path / folder} is no manifest, and not empty"
        options = {"val_share": share, "overwrite": overwrite}
        _is_refused(message, tmp_path / folder, shards, tmp_path / "m", **options)


def test_both_folders_are_named_at_once(shards: Path, tmp_path: Path) -> None:
    for folder in ("m-val", "m"):
        write(tmp_path / folder / "letter.txt", "dear")
    with pytest.raises(ConfigError, match=r"(?s)m is no manifest.*m-val is no manifest"):
        index(shards, tmp_path / "m", val_share=0.3)


def test_files_beside_the_records_of_others_stay(shards: Path, tmp_path: Path) -> None:
    write(tmp_path / "m" / "records" / "song.safetensors", "mine")
    write(tmp_path / "m" / "letter.txt", "dear")
    _is_refused("is no manifest, and not empty", tmp_path / "m", shards, tmp_path / "m")


def test_a_damaged_manifest_is_written_again(shards: Path, tmp_path: Path) -> None:
    out = index(shards, tmp_path / "m", val_share=0.3)
    before = [contents(out), contents(tmp_path / "m-val")]
    for folder in ("m", "m-val"):
        path = tmp_path / folder / "manifest.json"
        write(path, path.read_bytes()[:300])
    index(shards, out, val_share=0.3)
    assert [contents(out), contents(tmp_path / "m-val")] == before


def test_held_out_examples_are_not_replaced_by_all(shards: Path, tmp_path: Path) -> None:
    index(shards, tmp_path / "m", val_share=0.3)
    message = rf"m-val is what was held out of {tmp_path / 'm'}: name that one"
    _is_refused(message, tmp_path / "m-val", shards, tmp_path / "m-val")


def test_only_what_was_held_out_is_said_to_be_of_an_earlier_index(
    shards: Path, other: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index(other, tmp_path / "m-val")
    index(shards, tmp_path / "m")
    assert "earlier index" not in caplog.text
    shutil.rmtree(tmp_path / "m-val")
    index(shards, tmp_path / "m", val_share=0.3)
    index(shards, tmp_path / "m")
    assert f"{tmp_path / 'm-val'} is of an earlier index" in caplog.text


def test_other_numbered_shards_of_a_folder_need_another_manifest(tmp_path: Path) -> None:
    make_shards(tmp_path / "s", number=6)
    for path in (tmp_path / "s").rglob("*.tar"):
        path.rename(tmp_path / "s" / path.name)
    url = (tmp_path / "s").as_uri()
    out = index(f"{url}/{{1..2}}.tar")
    assert Manifest.read(out).pattern == "{1..2}.tar"
    for root in (f"{url}/{{3..4}}.tar", f"{url}/{{2..3}}.tar", url):
        _is_refused(r"is the manifest of \{1\.\.2\}\.tar at .*give another folder", out, root)
    assert index(f"{url}/{{0..3}}.tar") == out  # there are more of the same
    assert list(Manifest.read(out).names) == [f"{n}.tar" for n in range(4)]
    index(f"{url}/{{3..4}}.tar", overwrite=True)
    assert list(Manifest.read(out).names) == ["3.tar", "4.tar"]
    assert f"virtex index '{url}/{{3..4}}.tar' --out {out}" in index_command(Manifest.read(out))
    index(url, overwrite=True)
    _is_refused("is the manifest of all shards at .*, and .*4", out, f"{url}/{{3..4}}.tar")


def test_a_manifest_of_an_earlier_version_goes_on(shards: Path) -> None:
    out = index(shards)
    now = contents(out)
    text = now["manifest.json"].decode()
    assert '"pattern": "",\n' in text
    write(out / "manifest.json", text.replace('"pattern": "",\n', ""))
    assert Manifest.read(out).pattern is None
    assert contents(index(shards)) == now


@pytest.mark.parametrize(
    ("pattern", "earlier", "has_all"),
    [
        ("", "", True),
        ("a-{00..20}.tar", "a-{01..19}.tar", True),
        ("a-{00..20}.tar", "a-{01..21}.tar", False),
        ("a-{00..20}.tar", "b-{01..19}.tar", False),
        ("a-{00..20}.tar", "a-{001..019}.tar", False),
        ("a-{00..20}.tar", "", False),
        ("", "a-{00..20}.tar", False),
        ("a-{00..20}.tar", "of a later version", False),
    ],
)
def test_a_pattern_includes_an_earlier_one(pattern: str, earlier: str, has_all: bool) -> None:
    assert includes(pattern, earlier) == has_all


def test_a_manifest_that_was_copied_without_its_sibling_says_what_it_lacks(
    shards: Path, tmp_path: Path
) -> None:
    out = index(shards, tmp_path / "m", val_share=0.5)
    copy = tmp_path / "copied" / "m-val"
    shutil.copytree(tmp_path / "m-val", copy)
    records = tmp_path / "copied" / "m" / "records"
    with pytest.raises(DataError) as raised:
        ShardedSource(Manifest.read(copy))
    assert f"Its records lie in {records}, which is not there" in str(raised.value)
    assert f"Put the folder m into {tmp_path / 'copied'}." in str(raised.value)
    shutil.copytree(out, records.parent)
    assert ShardedSource(Manifest.read(copy))[0].captions
    shutil.rmtree(records)
    with pytest.raises(DataError, match=f"{records} is not there. Copy it too, or index"):
        ShardedSource(Manifest.read(records.parent))
