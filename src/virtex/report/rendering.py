"""HTML pages from templates: those of this package, and of a package that has more."""

import re

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from virtex.errors import one_line
from virtex.report.charts import number
from virtex.report.page import duration, signed

PACKAGE = "virtex.report"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that no report may hold."""


def rendered(template: str, page: object, *, package: str = PACKAGE) -> bytes:
    """Return the page that a template of a package draws; all texts are escaped.

    Args:
        page: Value of the template's variable `page`.
        package: Package of the template, which may include those of this one.
    """
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader(name, "") for name in dict.fromkeys((package, PACKAGE))]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "duration": duration, "signed": signed}
    return encoded(environment.get_template(template).render(page=page))


def encoded(text: str) -> bytes:
    """Return UTF-8 without control characters and half surrogate pairs, which are escaped."""
    return CONTROLS.sub(lambda found: one_line(found[0]), text).encode("utf-8", "backslashreplace")
