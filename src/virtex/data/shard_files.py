"""The files of an image in a tar shard, as bytes that are the same whenever they are written."""

import json
import tarfile
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from virtex.data.checks import lines_of


def sample_files(
    key: str,
    image: bytes,
    *,
    suffix: str,
    captions: Sequence[str],
    metadata: Mapping[str, Any],
    captions_by_key: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> bytes:
    """Return an image and its captions as members of a tar, named as img2dataset names them.

    Args:
        suffix: Suffix of the image's name, with its dot.
        captions: Lines of `key.txt`; without any there is no such file.
        metadata: Content of `key.json`, beside the key and the first caption.
        captions_by_key: Further content, in place of what else would have these names.
    """
    first = {"caption": captions[0]} if captions else {}
    content = {"key": key, **first, "status": "success", **metadata}
    content = {name: value for name, value in content.items() if name not in captions_by_key}
    content |= {name: list(texts) for name, texts in captions_by_key.items() if texts}
    document = json.dumps(content)
    text = "\n".join(" ".join(lines_of(caption)) for caption in captions)
    files = {suffix: image, ".txt": text.encode(), ".json": document.encode()}
    if not captions:
        del files[".txt"]
    return b"".join(tar_member(key + end, data) for end, data in files.items())


def tar_member(name: str, data: bytes) -> bytes:
    """Return a file as a member of a tar: header, content and padding."""
    member = tarfile.TarInfo(name)  # of mode 644, user 0 and time 0
    member.size = len(data)
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8") + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def tar_end(size: int) -> bytes:
    """Return what ends a tar of `size` bytes: two empty blocks, and padding to a whole record."""
    return bytes(2 * tarfile.BLOCKSIZE + -(size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)
