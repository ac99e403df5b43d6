"""Damage to files of weights: a flipped bit is an error, and never other weights."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from virtex.engine import checkpoint
from virtex.errors import CheckpointError
from virtex.zoo.export.writing import save_torch
from virtex.zoo.init import open_init
from virtex.zoo.tensor_file import read_tensor_file, write_tensor_file

STATE = {
    "weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "half": torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(3),
    "tokenizer": torch.arange(5, dtype=torch.uint8),
    "empty": torch.zeros(0, 2),
}
METADATA = {"format": "virtex", "config": '{"name": "ä"}', "categories": '["dog"]', "step": "3"}
CENTRAL_DIRECTORY = b"PK\x01\x02"


def flipped(content: bytes, position: int, bit: int) -> bytes:
    """The content with one bit changed."""
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def holds_the_same(path: Path, expected: dict[str, torch.Tensor]) -> bool:
    """Whether a file's tensors are the expected ones."""
    found = read_tensor_file(path).values
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], value) for name, value in expected.items()
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensor_file(tmp_path / "weights.safetensors", STATE, METADATA)
    return tmp_path / "weights.safetensors"


def test_tensors_and_metadata_come_back_and_other_readers_read_them(path: Path) -> None:
    file = read_tensor_file(path)
    assert file.metadata == METADATA
    assert file.values.keys() == STATE.keys()
    with safe_open(path, framework="pt") as other:
        assert {**METADATA, "virtex_checksum": other.metadata()["virtex_checksum"]} == (
            other.metadata()
        )
        for name, value in STATE.items():
            assert torch.equal(file.values[name], value), name
            assert torch.equal(other.get_tensor(name), value), name
            assert file.values[name].dtype == value.dtype


def test_equal_content_gives_equal_files(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    write_tensor_file(other, dict(reversed(STATE.items())), METADATA)
    assert other.read_bytes() == path.read_bytes()


def test_a_bit_that_flipped_anywhere_in_a_safetensors_file_is_an_error(path: Path) -> None:
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(flipped(content, position, position % 8))
        with pytest.raises(CheckpointError, match=r"damaged|web page|empty"):
            read_tensor_file(path)


@pytest.mark.parametrize("name", ["virtex_checksum", "virtex-sha256:"])
def test_damage_to_the_checksum_itself_is_an_error(name: str, path: Path) -> None:
    content = path.read_bytes()
    begin = content.index(name.encode())
    for position in range(begin, begin + len(name)):
        for bit in range(8):
            path.write_bytes(flipped(content, position, bit))
            with pytest.raises(CheckpointError, match="damaged"):
                read_tensor_file(path)


def test_a_checksum_belongs_to_each_name_type_shape_and_text(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    others = [
        ({**STATE, "weight": STATE["weight"].reshape(4, 3)}, metadata),
        ({**STATE, "weight": STATE["weight"].view(torch.int32)}, metadata),
        ({("w" if name == "weight" else name): v for name, v in STATE.items()}, metadata),
        (STATE, {**metadata, "step": "4"}),
        (STATE, {**metadata, "more": ""}),
    ]
    for state, texts in others:
        save_file(state, path, texts)
        with pytest.raises(CheckpointError, match="not what its checksum states"):
            read_tensor_file(path)
    save_file(STATE, path, metadata)  # by another writer, in another order
    assert holds_the_same(path, STATE)


def test_a_file_without_checksum_loads(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for metadata in (None, {"format": "pt", "sha256": "of something else"}):
        save_file(STATE, path, metadata)
        assert holds_the_same(path, STATE)
        assert read_tensor_file(path).metadata == (metadata or {})


def test_a_bit_that_flipped_in_a_torch_file_gives_no_other_weights(tmp_path: Path) -> None:
    path = tmp_path / "step_00000003.pt"
    torch.save(STATE, path)
    content = path.read_bytes()
    places = [(position, position // 5 % 8) for position in range(0, len(content), 5)]
    entry = content.find(CENTRAL_DIRECTORY)
    while entry >= 0:  # flags, sizes and attributes of each entry, which no checksum covers
        fields = [8, 9, 20, 22, 24, 26, 38, 40]
        places += [(entry + field, bit) for field in fields for bit in range(8)]
        entry = content.find(CENTRAL_DIRECTORY, entry + 1)
    num_refused = 0
    for place in places:
        path.write_bytes(flipped(content, *place))
        try:
            assert holds_the_same(path, STATE), place
        except CheckpointError:
            num_refused += 1
    assert num_refused > len(places) / 4


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_read_a_file(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_tensor_file(tmp_path / "weights.safetensors", STATE, METADATA)
        save_torch(STATE, tmp_path / "model.pth")
        checkpoint.save(tmp_path / "step_00000003.pt", {"step": 3})
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {mode}


@pytest.fixture
def locked() -> Iterator[Path]:
    """A run folder whose files this process may not read."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        write_tensor_file(run / "weights.safetensors", STATE, METADATA)
        checkpoint.save(run / "checkpoints" / "step_00000003.pt", {"step": 3})
        save_torch(STATE, run / "model.pth")
        Path(folder).chmod(0o755)
        for file in run.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)  # nobody
        try:
            yield run
        finally:
            if is_root:
                os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="permissions are a Unix matter")
def test_a_file_that_may_not_be_read_is_not_called_damaged(locked: Path) -> None:
    for init in (locked, locked / "model.pth", locked / "checkpoints" / "step_00000003.pt"):
        with pytest.raises(CheckpointError, match=r"cannot read .*: Permission denied"):
            open_init(init)
    with pytest.raises(CheckpointError, match=r"cannot read .*: Permission denied") as caught:
        checkpoint.CheckpointFolder(locked / "checkpoints").latest()
    assert not isinstance(caught.value, checkpoint.DamagedError)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="permissions are a Unix matter")
def test_a_folder_that_may_not_be_searched_is_no_traceback(locked: Path) -> None:
    if os.geteuid() != os.getuid():
        os.seteuid(0)
    (locked / "checkpoints").chmod(0)
    locked.chmod(0o400)
    if os.getuid() == 0:
        os.seteuid(65534)
    for init in (locked, locked / "model.pth", locked / "checkpoints", f"local-dir:{locked}"):
        with pytest.raises(CheckpointError, match="Permission denied"):
            open_init(init)
    if os.getuid() == 0:
        os.seteuid(0)
    locked.chmod(0o700)
    (locked / "checkpoints").chmod(0o700)


def test_a_header_whose_length_reads_pk_is_no_zip(tmp_path: Path) -> None:
    path, tensors = tmp_path / "weights.safetensors", {"a": torch.zeros(2)}
    write_tensor_file(path, tensors, {"note": ""})
    content = path.read_bytes()
    missing = int.from_bytes(b"PK\0\0\0\0\0\0", "little") - int.from_bytes(content[:8], "little")
    write_tensor_file(path, tensors, {"note": "x" * missing})
    assert path.read_bytes()[:2] == b"PK"
    assert torch.equal(read_tensor_file(path).values["a"], tensors["a"])
