"""Downloads from the Hugging Face hub; with hub_push.py the only door to huggingface_hub.

What lies on the hub is not trusted: all files of a model are of one commit and of bounded size.
Whatever the hub refuses is an error in words. Tokens are huggingface_hub's: they are never shown.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from virtex.errors import CheckpointError

log = logging.getLogger("virtex")

MAX_BYTES = 8 << 30
"""Most bytes of a file that is downloaded."""
TIMEOUT = 10.0
"""Timeout of a request for what a repository holds, in seconds."""
LOG_IN = "log in (`hf auth login`) or set HF_TOKEN to a token of huggingface.co/settings/tokens"
ELSEWHERE = "fetch it where there is a network, or copy its folder and give local-dir:FOLDER"


@dataclass(frozen=True)
class Repository:
    """A model's repository on the hub, at a revision."""

    name: str
    """OWNER/NAME."""
    revision: str | None = None
    """Branch, tag or commit; by default the branch main."""

    @property
    def address(self) -> str:
        """Address of its page."""
        return f"{constants.ENDPOINT}/{self.name}"

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


def is_repository_name(name: str) -> bool:
    """Return whether a text has the form OWNER/NAME of a repository."""
    owner, slash, own = name.partition("/")
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return bool(owner and slash and own)


def fetch_files(
    repository: Repository, alternatives: Sequence[Sequence[str]], *, max_bytes: int = MAX_BYTES
) -> Path:
    """Return the folder, in the hub's cache, of the first of several sets of files that there is.

    Where the hub cannot be reached, or refuses, the cache serves what it holds.

    Args:
        alternatives: Sets of names of files.
        max_bytes: Most bytes of a file.

    Raises:
        CheckpointError: There is no such repository, revision or set of files; access is refused;
            a file is too large; or there is no network.
    """
    try:
        return _downloaded(repository, alternatives, max_bytes)
    except CheckpointError:
        raise
    except Exception as error:  # the hub's client raises errors of several libraries
        folder = _cached(repository, alternatives)
        if folder is None:
            raise CheckpointError(
                f"cannot get hf-hub:{repository} from the Hugging Face hub: "
                f"{reason_of(error, repository)}."
            ) from error
        if not isinstance(error, OfflineModeIsEnabled):
            reason = reason_of(error, repository)
            log.warning("takes hf-hub:%s from the hub's cache: %s", repository, reason)
        return folder


def _downloaded(
    repository: Repository, alternatives: Sequence[Sequence[str]], max_bytes: int
) -> Path:
    info = HfApi().model_info(
        repository.name, revision=repository.revision, files_metadata=True, timeout=TIMEOUT
    )
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
    names = next((names for names in alternatives if sizes.keys() >= set(names)), None)
    if names is None:
        listed = "; nor ".join(" with ".join(names) for names in alternatives)
        raise CheckpointError(f"hf-hub:{repository} holds no {listed}.")
    for name in names:
        if sizes[name] > max_bytes:
            raise CheckpointError(
                f"{name} of hf-hub:{repository} has {sizes[name]:,} bytes, more than the "
                f"{max_bytes:,} allowed. Download it yourself if you trust it, and give its path."
            )
    first = hf_hub_download(repository.name, names[0], revision=repository.revision)
    folder = Path(first).parent  # named by the commit
    for name in names[1:]:
        hf_hub_download(repository.name, name, revision=folder.name)
    return folder


def _cached(repository: Repository, alternatives: Sequence[Sequence[str]]) -> Path | None:
    """Return the folder of the first set of files that the hub's cache holds."""
    for names in alternatives:
        try:
            found = [
                try_to_load_from_cache(repository.name, name, revision=repository.revision)
                for name in names
            ]
        except HFValidationError:
            return None
        if all(isinstance(path, str) for path in found):
            return Path(str(found[0])).parent
    return None


def reason_of(error: Exception, repository: Repository, *, is_push: bool = False) -> str:
    """Return what the hub's client refuses, and the remedy."""
    if isinstance(error, OfflineModeIsEnabled):
        if is_push:
            return "HF_HUB_OFFLINE is set. Unset it, or leave out --push"
        return (
            f"HF_HUB_OFFLINE is set, and the hub's cache {constants.HF_HUB_CACHE} does not hold "
            f"it. Unset it; {ELSEWHERE}"
        )
    if isinstance(error, HFValidationError):
        return f"{repository.name!r} is no name of a repository. Write OWNER/NAME"
    if isinstance(error, GatedRepoError):
        return (
            f"access is granted on request. Accept its terms at {repository.address}, and {LOG_IN}"
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"it has no revision {repository.revision!r}. {repository.address}/tree/main lists "
            "branches and tags"
        )
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such repository, or it is private. Check the name; if it is, {LOG_IN}"
    if isinstance(error, HfHubHTTPError):
        return _reason_of_status(error, is_push=is_push)
    text = " ".join(str(error).split())
    if isinstance(error, ValueError):  # the card's head
        return text
    remedy = "push later" if is_push else ELSEWHERE
    return f"{type(error).__name__}: {text}. Is there a network? If not, {remedy}"


def _reason_of_status(error: HfHubHTTPError, *, is_push: bool) -> str:
    status = error.response.status_code
    told = f" ({error.server_message})" if error.server_message else ""
    remedies: Mapping[int, str] = {
        401: f"the hub does not know the token{told}. To get another, {LOG_IN}",
        403: f"the token has not the right{told}. Take one that may "
        f"{'write to this name' if is_push else 'read it'}: {LOG_IN}",
        429: f"too many requests{told}. Wait some minutes; more are allowed if you {LOG_IN}",
    }
    return remedies.get(status, f"the hub answers {status}{told}. Try again later, or {ELSEWHERE}")
