"""Damage to files of weights: a flipped bit is an error, and never other weights."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from virtex.errors import CheckpointError
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
    places = [(position, position % 8) for position in range(len(content))]
    entry = content.find(CENTRAL_DIRECTORY)
    while entry >= 0:  # flags, sizes and attributes of each entry, which no checksum covers
        fields = [*range(8, 10), *range(20, 28), *range(38, 42)]
        places += [(entry + field, bit) for field in fields for bit in range(8)]
        entry = content.find(CENTRAL_DIRECTORY, entry + 1)
    num_refused = 0
    for place in places:
        path.write_bytes(flipped(content, *place))
        try:
            assert holds_the_same(path, STATE), place
        except CheckpointError:
            num_refused += 1
    assert num_refused > len(places) / 3


def test_a_header_whose_length_reads_pk_is_no_zip(tmp_path: Path) -> None:
    path, tensors = tmp_path / "weights.safetensors", {"a": torch.zeros(2)}
    write_tensor_file(path, tensors, {"note": ""})
    content = path.read_bytes()
    missing = int.from_bytes(b"PK\0\0\0\0\0\0", "little") - int.from_bytes(content[:8], "little")
    write_tensor_file(path, tensors, {"note": "x" * missing})
    assert path.read_bytes()[:2] == b"PK"
    assert torch.equal(read_tensor_file(path).values["a"], tensors["a"])
