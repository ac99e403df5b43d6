"""Normal forms of captions, which a vocabulary is trained on and captions are encoded in.

`normalize_caption` serves every language: one spelling for one text, in lower case where the script
has case, with all marks. `normalize_original` is the released rule for English, which strips them:
it makes other words of many languages' (läuft lauft, パンダ ハンタ, कुत्ता कुतता).
"""

import functools
import re
import unicodedata

NEVER_FOLDED = ("<super>", "<sub>", "<fraction>", "<circle>", "<compat> 0020")
"""Kinds of compatibility characters that NFKC would join to their neighbours: 10² would be 102, 2½
would be 21⁄2, and Lego™ legotm."""
THAI_AND_LAO_AM = "\u0e33\u0eb3"
"""Vowel signs that NFKC takes apart, so that tone marks stand in the wrong place."""
HANGUL_JAMO = re.compile("[\u3131-\u318e]")
"""Korean letters that stand alone; NFKC's form joins neighbours to syllables."""

INVISIBLE = "\u00ad\u061c\u200e\u200f\u2060-\u2064\u2066-\u206f\u202a-\u202e\ufeff\ufff9-\ufffb"
"""Soft hyphen, marks of direction, byte order mark: dropped. Joiners (ZWJ, ZWNJ), variation
selectors and tags stay, for words and emoji differ by them."""
DROPPED = re.compile(f"[{INVISIBLE}]")
SPACES = re.compile("[\0-\x1f\x7f-\x9f\u200b\u2581]")
"""Control characters, the zero-width space, and SentencePiece's own sign for a space."""
UNENCODABLE = re.compile("[\ud800-\udfff]")
JOINERS = "\u200c\u200d"
LOOSE_JOINERS = re.compile(rf"(?<!\S)[{JOINERS}]+")


def normalize_caption(text: str) -> str:
    """Return text in lower case and NFKC, with its marks, without control characters.

    Compatibility characters whose NFKC would be another word or number stay. Lower case is
    Unicode's, whatever the language, but İ becomes i.
    """
    if not text.isascii():
        text = UNENCODABLE.sub("\ufffd", text)
        text = "".join(map(_fold, unicodedata.normalize("NFC", DROPPED.sub("", text))))
        text = unicodedata.normalize("NFC", text).replace("İ", "i")
    text = SPACES.sub(" ", text.lower())
    if text.isascii():
        return " ".join(text.split())
    text = LOOSE_JOINERS.sub("", unicodedata.normalize("NFC", text))
    return " ".join(text.split())


def normalize_original(text: str) -> str:
    """Return text by the released rule: lower case, NFKD, no accents, single spaces."""
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).lower())
    if not text.isascii():
        text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return " ".join(text.split())


def continues_word(letter: str) -> bool:
    """Whether a character stands inside words: a letter, digit, mark or joiner.

    Marks are vowel signs of Hindi and Thai, too, which `str.isalnum` leaves out.
    """
    return letter.isalnum() or letter in JOINERS or unicodedata.category(letter)[0] == "M"


@functools.cache
def _fold(letter: str) -> str:
    """Return the NFKC of a character, or the character where that would be another word."""
    kind = unicodedata.decomposition(letter)
    if kind.startswith(NEVER_FOLDED) or letter in THAI_AND_LAO_AM or HANGUL_JAMO.match(letter):
        return letter
    return unicodedata.normalize("NFKC", letter)
