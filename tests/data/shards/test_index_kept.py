"""Which examples the manifest of an index keeps, and its sample of captions."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.shards.test_index import contents, ids, index
from tests.data.sources.layouts import jpeg, write, write_tar
from virtex.data.shards import index as module
from virtex.data.shards.gather import read_sample
from virtex.data.shards.manifest_file import Reading
from virtex.data.shards.shard_facts import read_facts, write_facts
from virtex.errors import DataError

UIDS = [f"{n:032x}" for n in range(4)]


def test_kept_ids_are_those_of_the_list(shards: Path, tmp_path: Path) -> None:
    wanted = ["d1/3.tar/3-1", "d0/4.tar/4-0", "d0/4.tar/4-3"]
    text = "3-1\n4-3\n\nd0/4.tar/4-0\nunknown\n"
    lists = [
        write(tmp_path / "a.txt", text),
        write(tmp_path / "b.txt.gz", gzip.compress(text.encode())),
    ]
    np.save(tmp_path / "c.npy", np.array(text.split()))
    outs = [index(shards, keep=path) for path in (*lists, tmp_path / "c.npy")]
    assert [sorted(ids(out)) for out in outs] == [sorted(wanted)] * 3
    assert len(list(read_sample(outs[0]))) == 3
    assert len(ids(index(shards))) == 30


def test_a_list_of_other_ids_is_not_blamed_on_faults(shards: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "keep.txt", "train/d1/3.tar/3-1\nunknown\n")
    message = r"none of the 2 ids in .* is that of an image.*such as d0/0\.tar/0-0"
    with pytest.raises(DataError, match=message):
        index(shards, keep=path)


@pytest.mark.parametrize("kind", ["pairs", "numbers", "text"])
def test_datacomps_uids_are_known(tmp_path: Path, kind: str) -> None:
    uids = [f"{n + 7:016x}{2**63 + n:016x}" for n in range(4)]
    files: dict[str, bytes | str] = {f"{n}.jpg": jpeg() for n in range(4)}
    files |= {f"{n}.txt": "text" for n in range(4)}
    files |= {f"{n}.json": json.dumps({"uid": uid}) for n, uid in enumerate(uids[:3])}
    write_tar(tmp_path / "s" / "0.tar", {**files, f"{uids[3]}.jpg": jpeg(), f"{uids[3]}.txt": "t"})
    chosen = [uids[0], uids[2], uids[3]]
    pairs = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in chosen], "u8,u8")
    if kind == "text":
        path = write(tmp_path / "keep.txt", "\n".join(chosen))
    else:
        path = tmp_path / "keep.npy"
        np.save(path, pairs if kind == "pairs" else np.array(pairs.tolist(), "u8"))
    expected = ["0.tar/0", "0.tar/2", f"0.tar/{uids[3]}"]
    assert ids(index(tmp_path / "s", keep=path)) == expected


def test_held_out_examples_are_in_the_second_manifest(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="virtex"):
        out = index(shards, tmp_path / "out", val_share=0.3)
    train, val = ids(out), ids(tmp_path / "out-val")
    assert f"{len(val)} examples held out for validation, in {tmp_path / 'out-val'}" in caplog.text
    assert sorted(train + val) == sorted(ids(index(shards, tmp_path / "all")))
    assert 3 <= len(val) <= 16
    sampled = gzip.decompress((out / "captions.jsonl.gz").read_bytes()).decode()
    assert [json.loads(line)["id"] for line in sampled.splitlines()] == train
    other = index(shards, tmp_path / "other", val_share=0.3, seed=1)
    assert ids(other) != train


def test_the_sample_is_bounded_and_the_same_for_any_number_of_processes(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = set(read_sample(index(shards, tmp_path / "whole")))
    monkeypatch.setattr(module, "MAX_SAMPLED", 12)
    few = index(shards, tmp_path / "few")
    assert len(list(read_sample(few))) == 12
    assert set(read_sample(few)) < whole
    more = index(shards, tmp_path / "whole")  # it had sampled more
    assert contents(more)["captions.jsonl.gz"] == contents(few)["captions.jsonl.gz"]
    monkeypatch.setattr(module, "MAX_SAMPLED", 10**6)
    assert set(read_sample(index(shards, tmp_path / "few"))) == whole


def test_images_of_thousands_of_captions_give_some_of_them_to_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = "\n".join(f"a cat {number}" for number in range(3000))
    for shard in ("0", "1"):
        files = {f"{name}.{end}": content for name in "abc"
                 for end, content in (("jpg", jpeg()), ("txt", captions))}  # fmt: skip
        write_tar(tmp_path / f"shards/{shard}.tar", files)
    monkeypatch.setattr(module, "MAX_SAMPLED", 3000)
    out = index(tmp_path / "shards", tmp_path / "few")
    assert sorted(map(len, read_sample(out))) == [500, 500, 1000, 1000]
    monkeypatch.setattr(module, "MAX_SAMPLED", 10**6)
    whole = index(tmp_path / "shards", tmp_path / "whole")
    assert list(map(len, read_sample(whole))) == [1000] * 6
    monkeypatch.setattr(module, "MAX_SAMPLED", 3000)
    same = index(tmp_path / "shards", tmp_path / "whole")
    assert contents(same)["captions.jsonl.gz"] == contents(out)["captions.jsonl.gz"]


def test_facts_whose_sample_ended_at_an_image_too_large_are_read_again(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar", {"a.jpg": jpeg(), "a.txt": "\n".join("abcdefghi")})
    path, reading = tmp_path / "0.facts", Reading(True, ())

    def write() -> None:
        write_facts(
            shard, path, name="0.tar", stamp="", sha256=None, reading=reading, num_sampled=8
        )

    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr("virtex.data.shards.shard_facts.first_captions", lambda lists, most: [])
        write()
    assert read_facts(path, stamp="", reading=reading, num_sampled=5) is None
    write()
    assert read_facts(path, stamp="", reading=reading, num_sampled=5) is not None
