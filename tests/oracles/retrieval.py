"""Ranks of retrieval as one would count them by hand."""


def slow_own_text_rank(row, own):
    """One more than the others' texts that score at least as high as the best of the own ones."""
    best = max(score for text, score in enumerate(row) if text in own)
    return 1 + sum(text not in own and score >= best for text, score in enumerate(row))


def slow_own_image_rank(column, own):
    """One more than the other images that fit the text at least as well as its own."""
    return 1 + sum(image != own and score >= column[own] for image, score in enumerate(column))
