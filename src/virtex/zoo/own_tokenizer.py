"""The vocabulary in a run folder, which must be the one that the run began with."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from virtex.data.tokenizer import Tokenizer
from virtex.errors import CheckpointError
from virtex.files import read_regular

TOKENIZER_NAME, JSON_NAME, DATA_NAME = "tokenizer.model", "tokenizer.json", "data.json"
"""Name of a SentencePiece model, also that of the digest of any vocabulary; of one in JSON; and of
the file with the digest."""


def own_path(run: Path) -> Path:
    """Return the path of a run's vocabulary, where it exists or would."""
    path = run / JSON_NAME
    return path if path.is_file() else run / TOKENIZER_NAME


def save_own_tokenizer(tokenizer: Tokenizer, run: Path) -> None:
    """Write a run's only vocabulary; Raises: see `files.write`."""
    path = (run / TOKENIZER_NAME).with_suffix(tokenizer.suffix)
    tokenizer.save(path)
    for name in {TOKENIZER_NAME, JSON_NAME} - {path.name}:
        (run / name).unlink(missing_ok=True)


def load_own_tokenizer(run: Path) -> Tokenizer:
    """Return the vocabulary of a run.

    Raises:
        CheckpointError: There is none, it cannot be read, or it is not the one whose digest the run
            has stored.
    """
    path = own_path(run)
    tokenizer, stated = Tokenizer.load(path), _stated_digest(run)
    if stated not in (None, digest_of(tokenizer)):
        raise CheckpointError(
            f"{path} is damaged, or another one: it is not the vocabulary that the run began with"
        )
    return tokenizer


def digest_of(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of a vocabulary's model."""
    return hashlib.sha256(tokenizer.model_bytes).hexdigest()


def _stated_digest(run: Path) -> object:
    """Return the digest in the run's data.json; None if it states none, as earlier versions'."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        return json.loads(read_regular(run / DATA_NAME))["files"][TOKENIZER_NAME]
    return None
