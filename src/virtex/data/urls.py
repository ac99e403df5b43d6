"""URLs where an option takes a path."""

import re
from pathlib import Path

URL = re.compile(r"(?:^|/)(s3a?|gs|az|azure|adl|abfss?|https?|file):/(?P<rest>.*)")
"""A URL that became a path, which may lie below the working folder."""


def url_problem(option: str, path: Path) -> str | None:
    """Return what to do about a URL in place of a folder; None if it is none."""
    found = None if path.exists() else URL.search(str(path))
    if found is None:
        return None
    url = f"{found[1]}://{found['rest'].lstrip('/')}"
    return (
        f"--data.{option} {url} is a URL. Write the manifest of its shards by `virtex index {url} "
        f"--out MANIFEST`, and give --data.{option} MANIFEST."
    )
