"""Sizes in bytes as users write them."""

import re

SIZE = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([kMGT]?)(i?)B?\s*", re.IGNORECASE)
POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
MOST = 2**60


def bytes_of(text: str) -> int:
    """Return the bytes that a text such as 500MB, 1.5TiB or 77 states; 0 if it states none."""
    found = SIZE.fullmatch(text)
    if found is None:
        return 0
    size = float(found[1]) * (1024 if found[3] else 1000) ** POWERS[found[2].lower()]
    return int(size) if size < MOST else 0
