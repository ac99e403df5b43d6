"""What the sizes of a Transformer must keep to, whichever part of a model it is."""

HEAD_CHANNELS = 64
"""Channels of an attention head where num_heads does not say otherwise."""
MAX_WIDTH, MAX_LAYERS, MAX_TOKENS = 16_384, 256, 8_192
"""Beyond every published model; a config that says more is broken."""


def size_problems(
    *,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    feedforward_size: int,
    dropout: float,
    max_tokens: int,
) -> list[str]:
    """Everything that is wrong with the sizes, each with what is allowed."""
    problems = [
        f"{name} {value} is above {most}"
        for name, value, most in [
            ("hidden_size", hidden_size, MAX_WIDTH),
            ("feedforward_size", feedforward_size, 4 * MAX_WIDTH),
            ("num_layers", num_layers, MAX_LAYERS),
            ("max_tokens", max_tokens, MAX_TOKENS),
        ]
        if value > most
    ]
    if min(hidden_size, num_layers) < 1:
        problems.append("hidden_size and num_layers must be at least 1")
    elif hidden_size % (num_heads or HEAD_CHANNELS):
        problems.append(
            f"hidden_size {hidden_size} is not a multiple of "
            + (f"num_heads {num_heads}" if num_heads else f"{HEAD_CHANNELS}: set num_heads too")
        )
    if min(num_heads, feedforward_size) < 0:
        problems.append("num_heads and feedforward_size must be at least 1, or 0 for the rule")
    if not 0 <= dropout < 1:
        problems.append(f"dropout {dropout} is not in [0, 1)")
    if max_tokens < 3:
        problems.append(f"max_tokens {max_tokens} leaves no room for text between start and end")
    return problems
