"""Which results were measured on the same weights, as far as their records tell."""

from pathlib import PurePosixPath

from virtex.transfer.protocol import Result, digest


def weights_key(result: Result) -> str:
    """Return a key of the weights.

    With a SHA-256 it does not depend on INIT, which may be spelled in several ways. A step without
    one is known in one folder of results alone, since a path may be relative.
    """
    origin = result.initialisation
    if origin.get("sha256"):
        return digest({name: value for name, value in origin.items() if name != "init"})
    if origin.get("step") is None:
        return digest(origin)
    return digest([{**origin, "init": plain_path(origin["init"])}, result.folder])


def plain_path(init: str) -> str:
    """Return a path without `./` and without a slash at its end."""
    return str(PurePosixPath(init))
