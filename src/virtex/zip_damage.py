"""Damage to zip files, such as those that torch.save writes."""

import zipfile
import zlib
from pathlib import Path
from typing import IO

ZIP_FLAGS = 0x080E
"""Flags of a zip's entry that are known here: how hard it was deflated, that its sizes follow it,
and that its name is UTF-8."""
DOS_FOLDER = 0x10
"""Bit among the attributes of a zip's entry that makes it a folder."""


def zip_damage(file: Path | IO[bytes]) -> str | None:
    """Describe the damage to a zip file's structure or checksums; None if it is intact."""
    try:
        with zipfile.ZipFile(file) as archive:
            strange = [entry.filename for entry in archive.infolist() if _is_strange(entry)]
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError, ValueError) as error:
        return str(error) or type(error).__name__
    if strange:  # torch would return memory that it has not filled
        return f"wrong size or attributes of {strange[0]}"
    return None if damaged is None else f"wrong checksum in {damaged}"


def _is_strange(entry: zipfile.ZipInfo) -> bool:
    """Return whether an entry's flags or sizes are damaged, which no checksum covers."""
    is_stored = entry.compress_type == zipfile.ZIP_STORED
    wrong_size = is_stored and entry.file_size != entry.compress_size
    wrong_kind = entry.file_size and entry.external_attr & DOS_FOLDER
    return bool(wrong_size or wrong_kind or entry.flag_bits & ~ZIP_FLAGS)
