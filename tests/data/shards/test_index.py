"""The manifest of shards is the same however it was made, and says what cannot be used."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.data.shards.ranged_server import BUCKET, RangedServer
from tests.data.sources.layouts import jpeg, write, write_tar
from virtex import cli
from virtex.data.shards import index as module
from virtex.data.shards.gather import read_sample
from virtex.data.shards.index import index_shards
from virtex.data.shards.index_options import IndexConfig
from virtex.data.shards.manifest import Manifest
from virtex.data.shards.records import Records
from virtex.data.shards.store import StoreError
from virtex.errors import ConfigError, DataError

FAULTY = {
    "a.jpg": jpeg(),
    "a.txt": "good",
    "b.jpg": "",
    "b.txt": "no image",
    "c.jpg": "<html>",
    "c.txt": "no image either",
    "d.jpg": jpeg(),
    "e.jpg": jpeg(),
    "e.txt": " \n",
    "f.jpg": jpeg(),
    "f.txt": b"\xff\xfe\xff",
    "g.jpg": jpeg(),
    "g.json": "{",
    "h.jpg": jpeg(),
    "h.json": '{"caption": ["one", "two"]}',
}
REASONS = {
    "b": "image empty",
    "c": "image of no known format",
    "d": "caption missing",
    "e": "caption empty",
    "f": "caption not UTF-8",
    "g": "caption not valid JSON",
}


def make_shards(folder: Path, *, number: int = 6) -> Path:
    """Write sound shards of 5 examples each, in two folders."""
    for n in range(number):
        ends = [(f"{n}-{k}", jpeg(k), f"caption {n} {k}") for k in range(5)]
        files: dict[str, bytes | str] = {f"{key}.jpg": image for key, image, _ in ends}
        files |= {f"{key}.txt": text for key, _, text in ends}
        write_tar(folder / f"d{n % 2}" / f"{n}.tar", files)
    return folder


def index(root: Path | str, out: Path | None = None, *, processes: int = 1, **options: Any) -> Path:
    config = IndexConfig(str(root), out, **options)
    return index_shards(config, processes=processes)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a manifest but its lock."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def ids(manifest: Path) -> list[str]:
    """The ids of the kept examples of a manifest in order."""
    found = Manifest.read(manifest)
    kept = []
    for shard, name in enumerate(found.names):
        path, positions = found.records_path(shard), found.positions(shard)
        assert path is not None
        records = Records(path)
        every = range(len(records)) if positions is None else positions.tolist()
        kept += [f"{name}/{records.key(position)}" for position in every]
    assert len(kept) == found.num_all_kept
    return kept


def test_the_manifest_of_a_folder_lies_in_it(shards: Path) -> None:
    out = index(shards)
    found = Manifest.read(out)
    assert out == shards / ".virtex-manifest"
    assert found.root == str(shards)
    assert list(found.names) == sorted(f"d{n % 2}/{n}.tar" for n in range(6))
    assert found.num_examples.tolist() == found.num_kept.tolist() == [5] * 6
    assert ids(out)[:2] == ["d0/0.tar/0-0", "d0/0.tar/0-1"]
    assert next(iter(read_sample(out))) == ("caption 0 0",)
    assert len(list(read_sample(out))) == 30
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "captions.jsonl.gz", "faults.jsonl", "manifest.json", "records",
    ]  # fmt: skip


def test_a_store_and_a_folder_give_the_same(
    shards: Path, server: RangedServer, tmp_path: Path
) -> None:
    numbered = make_shards(tmp_path / "more", number=1) / "d0"
    outs = {
        "folder": index(shards, tmp_path / "folder"),
        "file": index(shards.as_uri(), tmp_path / "file"),
        "s3": index(f"s3://{BUCKET}", tmp_path / "s3"),
    }
    digests = {name: Manifest.read(out).digest for name, out in outs.items()}
    assert len(set(digests.values())) == 1
    assert Manifest.read(outs["s3"]).etags[0].startswith('"')
    assert contents(outs["folder"])["manifest.json"] == contents(outs["file"])["manifest.json"]
    assert len({contents(out)["captions.jsonl.gz"] for out in outs.values()}) == 1
    write(shards / "00.tar", (numbered / "0.tar").read_bytes())
    write(shards / "01.tar", (numbered / "0.tar").read_bytes())
    out = index(f"{server.url}/{{00..01}}.tar", tmp_path / "http")
    assert ids(out) == [f"0{n}.tar/0-{k}" for n in range(2) for k in range(5)]


def test_two_processes_write_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    write_tar(shards / "faulty.tar", FAULTY)
    one = index(shards, tmp_path / "one", val_share=0.3)
    two = index(shards, tmp_path / "two", val_share=0.3, processes=2)
    assert contents(one) == contents(two)
    val = [path.with_name(f"{path.name}-val") for path in (one, two)]
    assert ids(val[0]) == ids(val[1])


def test_a_cut_index_goes_on_and_ends_the_same(
    shards: Path, server: RangedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = index(f"s3://{BUCKET}", tmp_path / "whole")
    real, done = module.write_facts, list[Path]()

    def failing(shard: Path, path: Path, **options: Any) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(path)
        real(shard, path, **options)

    monkeypatch.setattr(module, "DOWNLOADS", 0)
    monkeypatch.setattr(module, "write_facts", failing)
    with pytest.raises(KeyboardInterrupt):
        index(f"s3://{BUCKET}", tmp_path / "cut")
    monkeypatch.setattr(module, "write_facts", real)
    server.requests.clear()
    assert contents(index(f"s3://{BUCKET}", tmp_path / "cut")) == contents(whole)
    assert server.count("GET", ".tar") == 3
    assert not list((tmp_path / "cut").glob(".virtex-*"))


def test_an_unchanged_shard_is_not_read_again(
    shards: Path, server: RangedServer, tmp_path: Path
) -> None:
    index(f"s3://{BUCKET}", tmp_path / "out")
    server.requests.clear()
    index(f"s3://{BUCKET}", tmp_path / "out")
    assert server.count("GET", ".tar") == 0
    write_tar(shards / "d0" / "0.tar", {"new.jpg": jpeg(9), "new.txt": "new"})
    (shards / "d1" / "1.tar").unlink()
    out = index(f"s3://{BUCKET}", tmp_path / "out")
    assert server.count("GET", ".tar") == 1
    assert ids(out)[0] == "d0/0.tar/new"
    assert contents(out) == contents(index(f"s3://{BUCKET}", tmp_path / "again"))
    index(f"s3://{BUCKET}", tmp_path / "out", overwrite=True)
    assert server.count("GET", ".tar") == 1 + 5 + 5


def test_a_damaged_record_is_made_again(shards: Path) -> None:
    out = index(shards)
    before = contents(out)
    (out / "records" / "d0" / "0.tar.safetensors").write_bytes(b"damaged")
    assert contents(index(shards)) == before


def test_faults_are_listed_by_position(tmp_path: Path) -> None:
    write_tar(tmp_path / "s" / "0.tar", FAULTY)
    out = index(tmp_path / "s")
    lines = [json.loads(line) for line in (out / "faults.jsonl").read_text().splitlines()]
    assert {line["key"]: line["reason"] for line in lines} == REASONS
    assert [line["position"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert ids(out) == ["0.tar/a", "0.tar/h"]
    assert list(read_sample(out)) == [("good",), ("one", "two")]
    with pytest.raises(DataError, match=r"75\.0% of the examples .* 1 caption empty"):
        Manifest.read(out).check_faults(0.01)


def test_images_alone_need_no_caption(tmp_path: Path) -> None:
    write_tar(tmp_path / "s" / "0.tar", FAULTY)
    out = index(tmp_path / "s", with_captions=False)
    assert ids(out) == [f"0.tar/{key}" for key in "adefgh"]


def test_captions_may_have_other_keys(tmp_path: Path) -> None:
    files = {"a.jpg": jpeg(), "a.txt": "alt", "a.json": '{"re_caption": "synthetic"}'}
    write_tar(tmp_path / "s" / "0.tar", {**files, "b.jpg": jpeg(), "b.json": '{"caption": "c"}'})
    out = index(tmp_path / "s", caption_keys=("re_caption", "txt"))
    assert list(read_sample(out)) == [("alt", "synthetic")]
    assert "caption missing" in (out / "faults.jsonl").read_text()


@pytest.mark.parametrize("root", ["folder", "s3"])
def test_a_broken_shard_is_left_out(
    shards: Path, server: RangedServer, tmp_path: Path, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = shards / "d0" / "2.tar"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:3000])
    place = shards if root == "folder" else f"s3://{BUCKET}"
    out = index(place, tmp_path / "out")
    found = Manifest.read(out)
    assert [one.name for one in found.left_out] == ["d0/2.tar"]
    assert len(found) == 5
    assert "left out 1 broken shards: d0/2.tar: a file in it reaches beyond its end" in caplog.text
    broken.write_bytes(whole)
    assert len(Manifest.read(index(place, tmp_path / "out"))) == 6


def test_a_seed_that_no_hash_takes_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"seed {2**200} must be at least -{2**63} and below"):
        IndexConfig("shards", val_share=0.5, seed=2**200)


def test_a_failing_store_is_named_and_the_index_resumes(
    server: RangedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virtex.data.shards.store.Patience.first_wait", 0.001)
    shown = Manifest.read(index(f"s3://{BUCKET}", tmp_path / "a")).digest
    server.cut(5)
    assert Manifest.read(index(f"s3://{BUCKET}", tmp_path / "b")).digest == shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_share": 1.0}, "val_share 1.0 must be at least 0 and below 1"),
        ({"keep": Path("no-such-file.txt")}, "keep no-such-file.txt is not a file"),
        ({"root": "s3://bucket"}, "name the manifest's folder by --out"),
        ({"root": ""}, "no shards"),
    ],
)
def test_options_that_cannot_work_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        IndexConfig(**{"root": "shards", **options})


def test_a_folder_of_other_things_is_not_overwritten(shards: Path, tmp_path: Path) -> None:
    write(tmp_path / "full" / "letter.txt", "dear")
    with pytest.raises(ConfigError, match="no manifest, and not empty"):
        index(shards, tmp_path / "full")
    index(shards, tmp_path / "out")
    other = make_shards(tmp_path / "other", number=1)
    with pytest.raises(ConfigError, match=r"is the manifest of .*shards, not of .*other"):
        index(other, tmp_path / "out")
    assert len(ids(index(other, tmp_path / "out", overwrite=True))) == 5


def test_nothing_to_index_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a folder"):
        index(tmp_path / "none", tmp_path / "out")
    with pytest.raises(DataError, match=r"there are no \.tar files"):
        index(tmp_path, tmp_path / "out2")
    write_tar(tmp_path / "s" / "0.tar", {"a.jpg": jpeg()})
    with pytest.raises(DataError, match=r"no example at .* is kept: .*faults\.jsonl says why"):
        index(tmp_path / "s")
    with pytest.raises(ConfigError, match="holds no id"):
        index(tmp_path / "s", keep=write(tmp_path / "keep.txt", "\n"))


def test_the_command_prints_the_manifest(
    shards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "log_to_stderr", lambda: None)
    assert cli.main(["index", str(shards), "--processes", "1"]) == 0
    assert capsys.readouterr().out == f"{shards / '.virtex-manifest'}\n"
    assert cli.main(["index", "ftp://host/shards", "--out", str(shards / "m")]) == 2
    assert "URLs begin with s3://" in capsys.readouterr().err


def test_a_manifest_moves_with_its_shards(shards: Path, tmp_path: Path) -> None:
    digest = Manifest.read(index(shards)).digest
    shutil.move(shards, tmp_path / "moved")
    found = Manifest.read(tmp_path / "moved" / ".virtex-manifest")
    assert (found.root, found.digest) == (str(tmp_path / "moved"), digest)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals are Unix's")
def test_a_killed_index_leaves_no_process_and_goes_on(
    shards: Path, server: RangedServer, tmp_path: Path
) -> None:
    server.delay(0.3)
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "virtex.cli", "index", f"s3://{BUCKET}", "--processes", "2"]
    running = subprocess.Popen([*command, "--out", str(tmp_path / "out")], start_new_session=True)
    for _ in range(400):
        if list((tmp_path / "out").glob("records/*/*.safetensors")) or running.poll() is not None:
            break
        time.sleep(0.05)
    running.kill()
    running.wait()
    for _ in range(100):
        if not _members_of_group(running.pid):
            break
        time.sleep(0.05)
    else:
        os.killpg(running.pid, signal.SIGKILL)
        pytest.fail("a process outlived its parent")
    server.delay(0)
    whole = index(f"s3://{BUCKET}", tmp_path / "whole")
    assert contents(index(f"s3://{BUCKET}", tmp_path / "out")) == contents(whole)


def _members_of_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
