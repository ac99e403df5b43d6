"""Training reads the captions that a manifest was indexed for, and says where there are none."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.layouts import jpeg, write_tar
from tests.data.sources.manifests import write_manifest, write_shards
from virtex.data.fingerprint import fingerprint
from virtex.data.shards.index import IndexConfig, index_shards
from virtex.data.shards.manifest import Manifest, Reading
from virtex.data.shards.records import write_records
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.sources import shard_captions
from virtex.errors import ConfigError, DataError

CAPTIONS = Needs(captions=True)


@pytest.fixture(autouse=True)
def _log_again() -> None:
    for each in (shard_captions._log_own, shard_captions._log_part, shard_captions._log_absent):
        each.cache_clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Shards of nine images, whose .txt is "text N", and whose .json holds alt and synthetic."""
    for shard in range(3):
        files: dict[str, bytes | str] = {}
        for n in range(3 * shard, 3 * shard + 3):
            files[f"{n}.jpg"] = jpeg(n)
            files[f"{n}.txt"] = f"text {n}"
            values = {"alt": f"alt {n}", "synthetic": [f"one {n}", f"two {n}"], "width": 8}
            files[f"{n}.json"] = json.dumps({**values, "caption": None})
        write_tar(tmp_path / "shards" / f"{shard}.tar", files)
    return tmp_path / "shards"


def index(root: Path, *keys: str, **options: Any) -> Path:
    return index_shards(IndexConfig(root=str(root), caption_keys=keys, **options), processes=1)


def without(out: Path, what: str) -> Path:
    """Bring a manifest into the state of an earlier version, or of a copy without its records."""
    if what != "nothing":
        path = out / "manifest.json"
        kept = [
            line
            for line in path.read_text().splitlines(keepends=True)
            if not line.startswith(('"caption_keys"', '"with_captions"'))
        ]
        path.write_text("".join(kept))
    if what == "keys and sample":
        (out / "captions.jsonl.gz").unlink()
        for records in (out / "records").iterdir():
            write_records(out.parent / records.name.removesuffix(".safetensors"), records)
    return out


def opened(out: Path, **keys: float) -> Any:
    return open_source(SourceConfig(root=out, caption_keys=keys), split="train")


def message(out: Path, **keys: float) -> str:
    with pytest.raises(ConfigError) as caught:
        opened(out, **keys)
    return str(caught.value)


@pytest.mark.parametrize("missing", ["nothing", "keys"])
def test_the_keys_of_the_manifest_are_the_default(
    root: Path, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    caplog.set_level(logging.INFO, "virtex")
    source = opened(without(index(root, "alt", "synthetic"), missing))
    assert source[4].captions == ("alt 4", "one 4", "two 4")
    assert source[4].caption_weights == (0.5, 0.25, 0.25)
    sample = [*source.sample_captions(1000, seed=0)]
    assert sorted(sample) == sorted(text for one in source for text in one.captions)
    assert '"alt", "synthetic" of .json files, for which it was indexed' in caplog.text


def test_the_manifest_states_its_keys(root: Path) -> None:
    assert Manifest.read(index(root, "alt", val_share=0.5)).reading == Reading(True, ("alt",))
    val = Manifest.read(root / ".virtex-manifest-val")
    assert val.reading == Reading(True, ("alt",))
    assert Manifest.read(index(root, with_captions=False)).reading == Reading(False, ())
    assert Manifest.read(without(index(root), "keys")).reading is None


@pytest.mark.parametrize("value", ["7", "[1]", '{"a": 1}', '"alt"'])
def test_keys_of_a_manifest_that_are_no_texts_are_refused(root: Path, value: str) -> None:
    path = index(root, "alt") / "manifest.json"
    path.write_text(path.read_text().replace('"caption_keys": ["alt"]', f'"caption_keys": {value}'))
    with pytest.raises(DataError, match="caption keys are no list of texts"):
        Manifest.read(path)


@pytest.mark.parametrize("missing", ["nothing", "keys"])
@pytest.mark.parametrize(
    ("indexed", "given"), [((), "alt"), ((), "caption"), (("alt",), "synthetic"), (("alt",), "txt")]
)
def test_other_keys_than_the_manifests_are_refused_with_the_remedy(
    root: Path, indexed: tuple[str, ...], given: str, missing: str
) -> None:
    out = without(index(root, *indexed), missing)
    found = message(out, **{given: 1.0})
    assert f"--data.caption_keys names {given} too" in found
    assert "Leave --data.caption_keys out to read" in found
    command = re.search("`virtex index (.*)`", found)
    assert command is not None
    assert command[1] == f"{root} --out {out} --caption_keys '[\"{given}\"]'"


def test_all_manifests_of_a_mix_are_named(root: Path, tmp_path: Path) -> None:
    outs = [index(root, key, out=tmp_path / key) for key in ("alt", "synthetic")]
    mix = {str(out): 1.0 for out in outs}
    own = open_source(SourceConfig(mix=mix), split="train")
    assert own is not None
    assert [own[0].captions, own[9].captions] == [("alt 0",), ("one 0", "two 0")]
    with pytest.raises(ConfigError) as caught:
        open_source(SourceConfig(mix=mix, caption_keys={"txt": 1.0}), split="train")
    assert all(f"{out} was indexed for captions in" in str(caught.value) for out in outs)


@pytest.mark.parametrize("keys", [("typo",), ("typo", "other")])
def test_indexing_for_keys_that_there_are_not_names_the_others(
    root: Path, keys: tuple[str, ...]
) -> None:
    with pytest.raises(DataError) as caught:
        index(root, *keys)
    found = str(caught.value)
    assert f"There are no captions of {' and '.join(keys)}; keys with text are" in found
    assert all(key in found for key in ("txt", "alt", "synthetic"))
    assert "width" not in found


def test_some_of_the_manifests_keys_may_be_read(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "virtex")
    assert opened(index(root, "alt", "synthetic"), alt=1.0)[0].captions == ("alt 0",)
    assert 'the network on those in "alt" of .json files alone' in caplog.text
    assert opened(index(root), txt=1.0)[0].captions == ("text 0",)


def test_a_manifest_without_captions_is_refused_where_they_are_needed(root: Path) -> None:
    out = index(root, with_captions=False)
    assert f"indexed without captions. To read others, index the shards again: `virtex index {root}"
    assert "was indexed without captions" in message(out)
    assert open_source(SourceConfig(root=out), split="train", needs=Needs()) is not None


@pytest.mark.parametrize("keys", [{"re_captoin": 1.0}, {"x": 1.0, "y": 2.0}, {"caption": 1.0}])
def test_a_key_that_no_example_has_is_named_with_those_that_there_are(
    root: Path, keys: Mapping[str, float]
) -> None:
    out = without(index(root), "keys and sample")
    found = message(out, **keys)
    assert "none of the 9 examples of" in found
    assert all(f'"{key}"' in found for key in keys)
    assert 'Keys with text in their .json files: "alt", "synthetic".' in found or (
        'Keys with text in their .json files: "synthetic", "alt".' in found
    )
    assert '9 of 9 have a .txt file ("txt")' in found


def test_examples_without_a_default_caption_are_found_too(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"0.jpg": jpeg(0), "0.json": '{"alt": "a"}'})
    found = message(write_manifest(tmp_path))
    assert 'has a caption in .txt files (or else "caption" of .json files)' in found
    assert 'files: "alt". Name some of these' in found


@pytest.mark.parametrize("missing", ["nothing", "keys and sample"])
def test_one_of_several_keys_that_no_example_has_is_warned_of(
    root: Path, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    out = without(index(root, "alt", "typo"), missing)
    assert opened(out, alt=0.5, typo=0.5)[0].captions == ("alt 0",)
    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith("caption key typo: none of the examples of")
    assert '"alt", "synthetic"' in warnings[0] or '"synthetic", "alt"' in warnings[0]


def test_few_examples_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path, [40] * 12)
    out, looked = write_manifest(tmp_path), list[int]()
    look = shard_captions.keys_with_text
    monkeypatch.setattr(
        shard_captions, "keys_with_text", lambda *files: looked.append(1) or look(*files)
    )
    opened(out)
    assert 100 <= len(looked) <= 200


def test_a_run_notices_another_index_of_the_same_shards(root: Path) -> None:
    before = fingerprint(opened(index(root, "alt")), CAPTIONS)
    assert json.loads(str(before["caption keys"])) == {"alt": 1.0}
    now = fingerprint(opened(index(root, "synthetic")), CAPTIONS)
    assert {name for name in now if now[name] != before[name]} == {"caption keys"}
    assert "caption keys" not in fingerprint(opened(index(root)), CAPTIONS)
    assert "caption keys" not in fingerprint(opened(index(root, "alt"), alt=1.0), CAPTIONS)
