"""What each character is to the Java tokenizer: a letter, a mark, a symbol, or nothing.

Its grammar lists characters by code point, as of Unicode 5, and incompletely. Python's `\\w` has no
combining marks and knows the letters of later versions. The tables were read from the Java
tokenizer's answers to each of the 63,480 code points below U+10000 between two letters, alone, and
beside a digit. It drops all code points above.
"""

QUOTES_AND_DASHES = (
    dict.fromkeys("‘’‛\x91\x92", "'")
    | dict.fromkeys("‹›", " ' ")
    | dict.fromkeys("“”«»\x93\x94", '"')
    | dict.fromkeys("–—―\x96\x97", " -- ")
    | dict.fromkeys("€¤₠\x80", "$")
    | {"…": " ... ", "\xad": "", "£": " # ", "¢": " cents "}
    | {"¼": " 1/4 ", "½": " 1/2 ", "¾": " 3/4 ", "⅓": " 1/3 ", "⅔": " 2/3 "}
)
"""Characters that are written as others; those of U+0080 to U+009F are Windows-1252."""
HYPHENS = "֊‐‑"
"""Characters that hold a word together, and are dropped elsewhere."""
SEPARATORS = "٫٬"
"""Arabic separators of decimals and of thousands, which are dropped outside of numbers."""


def _code_points(ranges: str) -> frozenset[int]:
    """Return the code points of ranges in hexadecimal, both ends included."""
    ends = (part.partition("-") for part in ranges.split())
    return frozenset(
        code
        for first, _, last in ends
        for code in range(int(first, 16), int(last or first, 16) + 1)
    )


MARKS = _code_points("""
    2c2-2c5 2d2-2df 2e5-2eb 2ed 2ef-36f 375 378-379 384-385 3f6 483-487 55a-55f 591-5bd 5bf 5c1-5c2
    5c4-5c5 5c7 615-61a 64b-65e 670 6d6-6e4 6e7-6ed 6fd-6fe 70f 711 730-74c 7a6-7b0 7eb-7f3 900-903
    93c 93e-94e 951-955 962-963 981-983 9bc 9be-9c4 9c7-9c8 9cb-9cd 9d7 9e2-9e3 a01-a03 a3c a3e-a4f
    a81-a83 abc abe-acf b82 bbe-bc2 bc6-bc8 bca-bcd c01-c03 c3e-c56 d3e-d44 d46-d48 e31 e34-e3a
    e47-e4e eb1 eb4-ebc ec8-ecd 1885-1886
""")
"""Letters of plain words alone: beside a digit or a hyphen they begin a word."""
SYMBOLS = _code_points("""
    a1 a5-a9 ac ae-b4 b6-b9 bf d7 f7 37e 387 589 5be 5c0 5c3 5c6 5f3-5f4 600-603 606-60c 614 61b
    61e-61f 66a 66d 6d4 700-70d 7f6-7f8 964-965 e3f e4f 1fbd 2016-2017 201a 201e-2023 2030-2038 203b
    203e-2042 2044 2070 2074-208e 20a4 2100-2101 2103-2106 2108-2109 2114 2116-2118 211e-2123 2125
    2127 2129 212e 213a-213b 2140-2144 214a-214d 214f 2155-215e 2190-245f 2460-2bff 3001-3002 3012
    30fb ff01-ff0f ff1a-ff20 ff3b-ff40 ff5b-ff65 ffe0-ffe1 ffe5-ffe6
""") - _code_points("b5 207f")
"""Words of one character."""
NO_LETTERS = _code_points("""
    37f-383 528-530 560 588 5eb-5ef 859-89f 8a1 8ad-8ff 978 980 9f2-a00 af0-b04 b72-b81 bf0-c00 c34
    c5a-c5f c70-c84 cbe-cdd cf3-d04 d4f-d5f d70-d79 dc7-e00 e85-e86 e89 e8b-e8c e8e-e93 e98 ea0
    ea8-ea9 eac f2a-f3f 135b-137f 13f5-1400 16eb-16ff 170d 1712-171f 17ea-180f 1878-187f 191d-1945
    19ac-19c0 19c8-19cf 19da-19ff 1b4c-1b4f 1c7e-1ce8 1cf2-1cf4 1cf7-1cff 2150-2152 215f-2182
    2185-218f 2c2f 2c5f 2cf4-2cff 3007-3011 3013-3030 3036-303a 312e-3130 318f-319f 31bb-31ef
    3200-33ff 4db6-4dff 9fcd-9fff a698-a69f a6e6-a716 a78f a794-a79f a7ab-a7f7 a823-a83f a8fc-a8ff
    a9da-a9ff aa7b-aa7f ab2f-abbf
""")
"""Letters and digits of Unicode that are dropped."""
STAND_IN = 0x20000
"""First code point of the ideographs that stand for marks while tokens are found."""
MARK = f"{chr(STAND_IN)}-{chr(STAND_IN + 0xFFFF)}"
"""Range of the marks' stand-ins in a regular expression."""
FROM_STAND_INS = {STAND_IN + code: code for code in MARKS}


class Forms(dict[int, str]):
    """The text that each code point is read as, found at its first use, for `str.translate`."""

    def __missing__(self, code: int) -> str:
        self[code] = form = _form(code)
        return form


def _form(code: int) -> str:
    character = chr(code)
    if code in MARKS:
        return chr(STAND_IN + code)
    if code in SYMBOLS:
        return f" {character} " if character.isalnum() else character
    is_letter = character.isalnum() and code <= 0xFFFF and code not in NO_LETTERS
    is_kept = is_letter or code < 0x7F or character in HYPHENS + SEPARATORS
    return character if is_kept else " "


FORMS = Forms((ord(character), text) for character, text in QUOTES_AND_DASHES.items())
