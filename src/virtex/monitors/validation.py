"""Monitors of what validation measures beside the loss: the use of the image, and the features."""

from virtex.monitors.history import WINDOW, Facts, History

SHUFFLED_RISE = 0.001
"""Rise of the loss with other images, relative to it, of a head that uses the image: one that does
soon has 10 to 100 times as much, shuffled captions give 0.0002."""
STILL_FALLS = 0.02
"""Fall of the validation loss, relative to it, of a head that still learns the language alone, as
a decoder does first: the image follows."""
LEAST_SPREAD = 0.03
"""Spread of features that are nearly equal: networks at random have more on any data."""
LEAST_RANK = 1.5
"""Effective rank of features that differ along one direction."""


def ignores_image(history: History, facts: Facts) -> str | None:
    """Return what is seen if at two validations the loss with other images is no worse.

    A validation loss that falls from one to the other is given time.
    """
    if history.step("val/loss") < facts.first_step + WINDOW:
        return None
    losses, rises = history.last("val/loss", 2), history.last("val/shuffled_rise", 2)
    if len(rises) < 2 or losses[0] - losses[1] > STILL_FALLS * abs(losses[0]):
        return None
    if any(r > SHUFFLED_RISE * abs(loss) for r, loss in zip(rises, losses, strict=True)):
        return None
    if not any(losses):  # there is nothing to use the image for
        return None
    return (
        f"with the images of others the validation loss of {losses[1]:.3g} rises by {rises[1]:.2g}"
    )


def features_collapse(history: History, facts: Facts) -> str | None:
    """Return what is seen if all images have nearly the same features, at two validations."""
    del facts
    spreads, ranks = history.last("val/feature_spread", 2), history.last("val/effective_rank", 2)
    if len(spreads) == 2 and max(spreads) < LEAST_SPREAD:
        return f"the spread of the pooled features is {spreads[-1]:.2g} (of 0 to 1)"
    if len(ranks) == 2 and max(ranks) < LEAST_RANK:
        return f"the effective rank of the pooled features is {ranks[-1]:.2f}"
    return None
