"""Torch and safetensors files, read without running code in them, and checked for damage.

A torch file is read with weights_only=True: a file that holds more than weights is refused. The
checksums of its zip archive are verified first, since torch does not verify them. A safetensors
file has no checksum by itself: those that this package writes state one in their metadata.
"""

import hashlib
import io
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from virtex import files
from virtex.errors import CheckpointError
from virtex.zip_damage import zip_damage

NOT_WEIGHTS = (
    "%s is damaged or no torch file, or holds more than weights: it was not loaded. Download it "
    "again, or ask its author for the bare state dict."
)
"""Message in place of torch's own, which advises to read the file unsafely."""
UNSAFE = re.compile(
    r"(?:Unsupported global: GLOBAL|Trying to load unsupported GLOBAL|Trying to call reduce for) "
    r"(\S+)"
)
"""Torch's errors for a file that calls a function, with its name."""
NUMBERS = "Bool Int8 Int16 Int32 Int64 UInt8 UInt16 UInt32 UInt64 Float16 Float32 Float64"
IGNORED = (
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    *(f"numpy.dtypes.{name}DType" for name in NUMBERS.split()),
)
"""Classes and functions that checkpoints name beside their weights: options, and numbers of numpy.
None of them is called, and their values are left out."""
LENGTH_BYTES = 8
"""Size of the length, at the start of a safetensors file, of the JSON header that follows."""
ZIP = b"PK\x03\x04"
"""First bytes of a zip file; a safetensors file may begin with the first two, a length."""
METADATA = "__metadata__"
"""Key of the metadata in the header; the other keys are names of tensors."""
CHECKSUM, CHECKSUM_PREFIX = "virtex_checksum", "virtex-sha256:"
"""Key of the checksum in the metadata, and the beginning of its value."""


class _Ignored:
    """A value that takes the place of one that is not needed, whatever it was made from."""

    def __new__(cls, *args: object) -> Self:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


class TensorFile(NamedTuple):
    """Content of a torch or safetensors file, on the CPU."""

    values: dict[str, Any]
    """Tensors by name; in a torch file also plain values and nested dicts."""
    metadata: dict[str, str]
    """Metadata of a safetensors file."""
    sha256: str
    """SHA-256 of the file."""


def read_tensor_file(path: Path) -> TensorFile:
    """Read a torch or safetensors file once, for both its values and its digest.

    Raises:
        CheckpointError: The file is missing or damaged, has another format, or holds more than
            weights and plain values.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}.") from error
    _refuse_other_kinds(content, path)
    sha256 = hashlib.sha256(content).hexdigest()
    if path.suffix == ".safetensors":
        values, metadata = _parse_safetensors(content, path)
        return TensorFile(values, metadata, sha256)
    return TensorFile(_parse_torch(content, path), {}, sha256)


def write_tensor_file(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file with a checksum of its tensors and metadata, atomically.

    Args:
        tensors: Contiguous tensors that share no memory.

    Raises:
        CheckpointError: The disk is full, or the folder cannot be written.
    """
    header, data = _split(safetensors.torch.save(dict(tensors)))
    header[METADATA] = dict(metadata)
    header[METADATA][CHECKSUM] = _checksum(header, data)
    head = json.dumps(header, ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)  # tensors are aligned to 8 bytes
    with files.replacing(path, error=CheckpointError) as temporary, temporary.open("wb") as file:
        file.writelines([len(head).to_bytes(LENGTH_BYTES, "little"), head, data])


def _split(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header of a safetensors file, and the bytes of all tensors."""
    end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    return json.loads(content[LENGTH_BYTES:end]), memoryview(content)[end:]


def _checksum(header: Mapping[str, Any], data: memoryview) -> str:
    """Return a SHA-256 of all metadata but itself and of all tensors, by name.

    It includes each tensor's name, type, shape and bytes, but not their order in the file.
    """
    entries = {name: entry for name, entry in header.items() if name != METADATA}
    metadata = {key: text for key, text in header[METADATA].items() if key != CHECKSUM}
    layout = {name: [entry["dtype"], entry["shape"]] for name, entry in entries.items()}
    digest = hashlib.sha256(json.dumps([metadata, layout], sort_keys=True).encode())
    for name in sorted(entries):
        begin, end = entries[name]["data_offsets"]
        digest.update(data[begin:end])
    return CHECKSUM_PREFIX + digest.hexdigest()


def _parse_safetensors(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        tensors = safetensors.torch.load(content)
        header, data = _split(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    metadata: dict[str, str] = header.get(METADATA) or {}
    stated = {
        key: text
        for key, text in metadata.items()
        if key == CHECKSUM or text.startswith(CHECKSUM_PREFIX)  # the key may be damaged too
    }
    if stated and stated != {CHECKSUM: _checksum(header, data)}:
        raise CheckpointError(
            f"{path} is damaged: its content is not what its checksum states. Copy or download it "
            "again, or export it again from its run."
        )
    metadata.pop(CHECKSUM, None)
    return tensors, metadata


def _parse_torch(content: bytes, path: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals([(_Ignored, name) for name in IGNORED]):
            values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = UNSAFE.search(str(error))
        if unsafe is None:
            raise CheckpointError(NOT_WEIGHTS % path) from error
        raise CheckpointError(
            f"{path} holds more than weights ({unsafe[1]}) and might run code: it was not loaded. "
            "Ask its author for the bare state dict."
        ) from error
    except Exception as error:  # torch raises many types for a damaged file
        if "weights_only" in str(error):  # as in torch's advice on a TorchScript file
            raise CheckpointError(NOT_WEIGHTS % path) from error
        raise CheckpointError(f"{path} is damaged or no torch file: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{path} holds a {type(values).__name__}, not a dict of weights. Allowed is a state "
            "dict, or a checkpoint that holds one."
        )
    return values


def _refuse_other_kinds(content: bytes, path: Path) -> None:
    """Raise an error that names the format, if a file is one that is often mistaken for weights."""
    head = content[:512].lstrip().lower()
    if not head:
        raise CheckpointError(f"{path} is empty: download it again.")
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(
            f"{path} is a web page, not weights: the download was refused or redirected. "
            "Open the address in a browser, or download the file from its direct link."
        )
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer: run `git lfs pull` in its repository.")
    damage = zip_damage(io.BytesIO(content)) if content.startswith(ZIP) else None
    if damage is not None:
        raise CheckpointError(
            f"{path} is damaged ({damage}), perhaps cut short in transfer: download it again."
        )
