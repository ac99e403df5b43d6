"""Errors of several rows and columns of a study, which are raised together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from virtex.errors import VirTexError, listing, raise_all


@dataclass
class Mistakes:
    """Errors of several rows and columns, which are raised together."""

    errors: list[VirTexError] = field(default_factory=list)
    subjects: dict[str, dict[str, None]] = field(default_factory=dict)
    """What each text is about, in order: options of all rows are wrong in each of them."""

    @contextmanager
    def of(self, subject: str) -> Iterator[None]:
        """Collect the error that the block raises."""
        try:
            yield
        except VirTexError as error:
            self.errors.append(error)
            self.subjects.setdefault(str(error), {})[subject] = None

    def raise_all(self, about: str = "the study cannot work") -> None:
        """Raise all errors as one, of the first one's kind."""
        if self.errors:
            texts = [f"{listing(names)}: {text}" for text, names in self.subjects.items()]
            raise_all(type(self.errors[0]), about, texts)
