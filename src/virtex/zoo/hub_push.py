"""Pushes to the Hugging Face hub: checked before work starts, one commit, nothing deleted."""

import hashlib
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from virtex import files
from virtex.errors import CheckpointError, ConfigError, listing
from virtex.zoo.hub_client import (
    LOG_IN,
    TIMEOUT,
    Repository,
    is_repository_name,
    reason_of,
)

log = logging.getLogger("virtex")


def problems_of_name(name: str) -> list[str]:
    """Return what is wrong with the name of a repository to push to."""
    if is_repository_name(name):
        return []
    return [
        f"push {name!r} is no OWNER/NAME of letters, digits, dots, hyphens and underscores: write "
        "it like someone/my-backbone."
    ]


def check_push(repository: Repository, *, private: bool) -> None:
    """Check, before any work, that somebody is logged in who may push to a repository.

    Raises:
        ConfigError: There is no token or no network, the token is not valid, may only read or is
            of others than the repository's owner, or the repository is not private but should be.
    """
    with _refusals(repository, ConfigError):
        if get_token() is None:
            raise ConfigError(
                f"cannot push to {repository}: nobody is logged in. To do so, {LOG_IN}."
            )
        account = HfApi().whoami()
        if _role_of(account) == "read":
            raise ConfigError(
                f"cannot push to {repository}: the token may only read. Take one that may write to "
                f"this name: {LOG_IN}."
            )
        owner, owners = repository.name.partition("/")[0], _owners_for(account)
        if owner.lower() not in (name.lower() for name in owners):
            raise ConfigError(
                f"cannot push to {repository}: the token is of {listing(owners)}, and may not "
                f"write to names of {owner}. Push to a name of theirs; or {LOG_IN}."
            )
        existing = _info(repository)
        if private and existing is not None and not existing.private:
            raise ConfigError(
                f"{repository} exists and is public, so that a push to it is not private. Push to "
                f"another name, or make it private at {repository.address}/settings."
            )


def push(
    folder: Path,
    repository: Repository,
    *,
    names: Sequence[str],
    owned: Sequence[str],
    private: bool,
    message: str,
) -> str:
    """Push files to a repository in one commit, made if there is none, and return its address.

    No file is deleted. Files that are there already are not sent, and if all are, there is no new
    commit.

    Args:
        folder: Folder of the files.
        names: Their names.
        owned: Names of files that this package reads, and that must not be another model's.
        private: Whether a repository that is made is private.
        message: Message of the commit.

    Raises:
        CheckpointError: The hub cannot be reached or refuses, or the repository holds a file of
            another model that would be read with these.
    """
    api = HfApi()
    advice = f" {folder} is written: the same command with --overwrite pushes it then."
    with _refusals(repository, CheckpointError, advice), _bars_on_terminals():
        api.create_repo(repository.name, private=private or None, exist_ok=True)
        existing = _info(repository)
        there = {one.rfilename: one for one in existing.siblings or ()} if existing else {}
        others = sorted(there.keys() & set(owned) - set(names))
        if others:
            raise CheckpointError(
                f"{repository} holds {', '.join(others)} of another model, which would be read "
                f"with these files. Push to another name, or delete it at {repository.address}."
            )
        if all(name in there and _is_same(folder / name, there[name]) for name in names):
            log.info("%s holds exactly these files: no new commit", repository.address)
            return repository.address
        operations = [CommitOperationAdd(name, folder / name) for name in names]
        commit = api.create_commit(repository.name, operations, commit_message=message)
    log.info("pushed %d files: %s", len(names), commit.commit_url)
    return repository.address


def _role_of(account: dict[str, Any]) -> str | None:
    """Return the role of the token, read, write or fineGrained, if the hub states it."""
    role = (account.get("auth") or {}).get("accessToken", {}).get("role")
    return role if isinstance(role, str) else None


def _owners_for(account: dict[str, Any]) -> list[str]:
    """Return whose names an account may write to: its own, and those of its organisations."""
    token = (account.get("auth") or {}).get("accessToken") or {}
    scopes = (token.get("fineGrained") or {}).get("scoped") or []
    entities = [account, *(account.get("orgs") or []), *(one.get("entity") or {} for one in scopes)]
    names = [str(entity.get("name", "")).partition("/")[0] for entity in entities]
    return list(dict.fromkeys(name for name in names if name))


def _info(repository: Repository) -> Any | None:
    """Return what the hub says of a repository; None if there is none."""
    try:
        return HfApi().model_info(repository.name, files_metadata=True, timeout=TIMEOUT)
    except RepositoryNotFoundError as error:
        if isinstance(error, GatedRepoError):
            raise
        return None


def _is_same(path: Path, sibling: Any) -> bool:
    """Whether a file has the content of the one on the hub."""
    if sibling.lfs is not None:
        return bool(files.sha256(path) == sibling.lfs.sha256)
    if path.stat().st_size != sibling.size:
        return False
    content = path.read_bytes()
    return bool(hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == sibling.blob_id)


@contextmanager
def _refusals(
    repository: Repository, kind: type[CheckpointError] | type[ConfigError], advice: str = ""
) -> Iterator[None]:
    """Turn errors of the hub's client into one of a kind, with what to do at its end."""
    try:
        yield
    except (CheckpointError, ConfigError):
        raise
    except Exception as error:  # of several libraries
        reason = reason_of(error, repository, is_push=True)
        raise kind(f"cannot push to {repository}: {reason}.{advice}") from error


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """Hide the bars of the hub's client unless stderr is a terminal."""
    is_shown = sys.stderr is not None and sys.stderr.isatty()
    if is_shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
