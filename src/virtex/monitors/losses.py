"""Monitors of the losses: nothing learned, a loss that rises, and over-fitting."""

from statistics import fmean

from virtex.monitors.history import FEWEST, LOSS, Facts, History

NEAR_CHANCE = 0.99
"""Fraction of the loss of chance above which nothing but frequencies is learned: what a head that
learns passes in its first hundred steps."""
STILL_FALLS = 0.005
"""Fall from one window to the next, relative to chance, of a loss that is on its way."""
RISE = 0.1
"""Rise of the training loss over its lowest window, relative to the first loss: several times what
batches differ by."""
OVERFIT_RATIO = 1.5
"""Validation loss over training loss: augmentation and dropout make the latter the higher one."""
OVERFIT_GAP = 0.1
"""Least difference of the two, relative to the first loss: near 0 a ratio says little."""
VALIDATION_RISE = 0.03
"""Rise of the validation loss over its lowest: more than it moves by from chance."""


def nothing_to_learn(history: History, facts: Facts) -> str | None:
    """Return what is seen if loss and gradient are zero in a whole window."""
    del facts
    losses, norms = history.window(LOSS), history.window("train/grad_norm")
    if losses and norms and not any(losses) and not any(norms):
        return "the training loss and its gradient are exactly 0"
    return None


def stuck_at_chance(history: History, facts: Facts) -> str | None:
    """Return what is seen if a loss stays at that of a model that knows frequencies alone."""
    for name, chance in facts.chance.items():
        key, after = f"train/{name}", facts.first_step
        now = history.mean(key, after=after)
        before = history.mean(key, after=after, before=1)
        if now is None or before is None or now < NEAR_CHANCE * chance.value:
            continue
        if before - now < STILL_FALLS * chance.value:
            return f"{name} stays at {now:.3g}; {chance.what} is {chance.value:.3g}"
    return None


def loss_rises(history: History, facts: Facts) -> str | None:
    """Return what is seen if the training loss, after the warm-up, is higher than it was."""
    values = history.window(LOSS, after=facts.settled_step)[-FEWEST:]
    first, lowest = history.first, history.lowest
    if not values or first is None or lowest is None or history.step(LOSS) <= facts.warmup_steps:
        return None
    if fmean(values) - lowest > RISE * abs(first) and min(values) > lowest:
        return f"the training loss rose from {lowest:.3g} to {fmean(values):.3g}"
    return None


def far_below_validation(history: History, facts: Facts) -> str | None:
    """Return what is seen if the training loss is far below that of validation, twice."""
    if not facts.is_comparable:
        return None
    least = OVERFIT_GAP * history.values[LOSS][0] if history.validations else 0
    last = history.validations[-2:]
    is_far = [v > OVERFIT_RATIO * t and v - t > least for t, v in last]
    if len(last) < 2 or not all(is_far):
        return None
    trained, validated = last[-1]
    return f"the training loss is {trained:.3g}, that of validation {validated:.3g}"


def validation_rises(history: History, facts: Facts) -> str | None:
    """Return what is seen if validation rises, twice, while training falls."""
    pairs = history.validations
    if not facts.is_comparable or len(pairs) < 3:
        return None
    best = min(range(len(pairs)), key=lambda index: pairs[index][1])
    (trained, lowest), later = pairs[best], pairs[-2:]
    if best > len(pairs) - 3 or lowest <= 0:
        return None
    rises = all(validated > (1 + VALIDATION_RISE) * lowest for _, validated in later)
    if rises and all(now < trained for now, _ in later):
        return (
            f"the validation loss rose from {lowest:.3g} to {later[-1][1]:.3g} while that of "
            f"training fell from {trained:.3g} to {later[-1][0]:.3g}"
        )
    return None
