"""The vocabulary in a run folder, which must be the one that the run began with."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from virtex.data.tokenizer import Tokenizer
from virtex.errors import CheckpointError
from virtex.files import read_regular

TOKENIZER_NAME, DATA_NAME = "tokenizer.model", "data.json"


def load_own_tokenizer(run: Path) -> Tokenizer:
    """Return the vocabulary of a run.

    Raises:
        CheckpointError: There is none, it cannot be read, or it is not the one whose digest the run
            has stored.
    """
    path = run / TOKENIZER_NAME
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
