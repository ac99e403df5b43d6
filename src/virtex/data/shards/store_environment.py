"""What the environment says of a store: its options, and what of it no message may hold."""

import os
import re
from collections.abc import Mapping
from typing import Any

from virtex.data.checks import quoted
from virtex.errors import listing, one_line

CLIENT_OPTIONS = (
    *("allow_http", "allow_invalid_certificates", "proxy_url", "proxy_ca_certificate"),
    *("proxy_excludes", "root_certificate", "http1_only", "http2_only", "user_agent"),
)
"""Options of connections that an environment variable may set, as AWS_ALLOW_HTTP."""
ENDPOINTS = {
    "AWS": ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    "AZURE": ("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
}
"""Variables that name the server of a store, by how the variables of its kind begin."""
FALSE = ("0", "false", "off", "no", "n")
"""Values of a variable that obstore reads as false."""
SECRET = re.compile("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL|SIGNATURE|SAS|ACCOUNT|CLIENT|TENANT")
"""Part of the name of an environment variable that may hold a credential."""
NO_SECRET = re.compile("(SKIP_SIGNATURE|_FILE)$")
"""End of the name of one that holds none: a choice, or a path."""
QUERY = re.compile(r"(https?://[^\s/?#]+[^\s?#]*)[^\s,)]*")
SIGNED = re.compile(
    r"(?i)\b(authorization|signature|sig|token|credential|x-amz-\w+)(\s*[=:]\s*)\S+"
)
MOST_NAMED = 12
"""Most variables that a message names."""


def client_options(prefix: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of connections in the environment, which those of a call would hide."""
    if not prefix:  # http
        return {"allow_http": True}
    found = {name: environment.get(f"{prefix}_{name.upper()}") for name in CLIENT_OPTIONS}
    return {name: value for name, value in found.items() if value is not None}


def endpoint_problems(prefix: str, environment: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the variables that name a server: no URL, or plain http unasked."""
    given = {name: environment[name] for name in ENDPOINTS.get(prefix, ()) if name in environment}
    problems = [
        f"{name} is {quoted(value) if value and '@' not in value else 'no URL'}, and must begin "
        "with https:// or http:// and a host; or remove it from the environment"
        for name, value in given.items()
        if not re.fullmatch(r"(?i)https?://[^\s/]\S*", value)
    ]
    are_plain = [value.lower().startswith("http://") for value in given.values()]
    if given and all(are_plain) and environment.get(f"{prefix}_ALLOW_HTTP", "no").lower() in FALSE:
        problems.append(
            f"{', '.join(given)} is of plain http: set {prefix}_ALLOW_HTTP=true, or give https"
        )
    return problems


def settings_of(text: str, prefix: str, environment: Mapping[str, str]) -> str:
    """Return which variables to correct after an error of the environment; empty for http.

    Args:
        text: The error, which may quote the value of one.
        prefix: How the variables of the store begin.
    """
    names = [name for name in sorted(environment) if prefix and name.startswith(f"{prefix}_")]
    blamed = [name for name in names if environment[name] and f'"{environment[name]}"' in text]
    if blamed:
        return f"correct {listing(blamed, limit=MOST_NAMED)} in the environment"
    if names:
        return f"check {listing(names, limit=MOST_NAMED)} in the environment"
    return f"set {prefix}_... in the environment" if prefix else ""


def without_secrets(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return an error's text in short, without queries of URLs, and without any credential."""
    for name, value in (os.environ if environment is None else environment).items():
        is_secret = SECRET.search(name.upper()) and not NO_SECRET.search(name.upper())
        if len(value) > 5 and is_secret:
            text = text.replace(value, "***")
    text = text.partition("Debug source:")[0]
    text = SIGNED.sub(r"\1\2***", QUERY.sub(r"\1", text))
    return one_line(" ".join(text.split()))[:300]
