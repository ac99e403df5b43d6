"""Host names in headers and options."""

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

NAME = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_.])?")


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL; empty ones where it cannot be parsed."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def host_name(text: str) -> str:
    """Return the name in an address that a user gives, as a Host header has it; empty without one.

    A scheme, a port, a path and brackets may stand around it.
    """
    text = text.strip()
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        name = split_url(text if "://" in text else f"//{text}").hostname or ""
    return name if NAME.fullmatch(name) or ":" in name else ""
