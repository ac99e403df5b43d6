"""Penn Treebank tokens of captions, on which caption scores are published.

pycocoevalcap runs the Java PTBTokenizer of Stanford CoreNLP 3.4.1, lower-cased, and drops a list of
punctuation. The rules here were written from that tokenizer's output, not from its grammar. They
give the same words for 616,750 of COCO's 616,767 captions of 2014, and for all 35,000 of Flickr8k.
The 17 others end in a single letter ("a sign with the letter K."), where the Java tokenizer reads
on into the caption on the next line; given the caption alone it agrees with these rules. Known to
differ: tags with attributes, decomposed accents, some codes (`a.4-5`, `it's2nd`), e-mail addresses
of more than 65 characters before the @, and web addresses of more than 256 before the first period.

Surprises that are kept, since scores depend on them: brackets stay, as the words -lrb- and -rrb-
(the list has them in capitals, the tokenizer writes small letters), and so do `!!`, `?!`, `&` and
`/`. An abbreviation keeps its period, and so does a word whose period is followed by another
punctuation mark.
"""

import re

DROPPED = frozenset(["''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""Tokens that pycocoevalcap drops, as far as they occur in small letters."""
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
PLAIN = str.maketrans(
    dict.fromkeys("‘’‹›", "'")
    | dict.fromkeys("“”«»", '"')
    | dict.fromkeys("–—―", " -- ")
    | dict.fromkeys("‐‑‒\u200b\u200c\u200d\u200e\u200f\ufeff\ufffd", " ")
    | {"…": " ... ", "\xad": "-", "€": "$", "¤": "$", "£": "#", "¢": " cents "}
    | {"¼": " 1/4", "½": " 1/2", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3"}
)
ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"'}
EMOJI = re.compile("[\U00010000-\U0010ffff]")  # the Java tokenizer drops all of these

ABBREVIATIONS = """
    adm al ala alex apr ariz assn asst atty attys aug ave bancorp bhd bldg blvd brig bros calif capt
    cf cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs esq est etc ext feb fla
    fri ft ga gen gov govs hon inc ind intl jan jos jr jul jun kan kans ky lieut lt ltd maj mar md
    messrs mich minn mo mon mont mr mrs ms mt neb nev nov oct okla penn pfc ph plc pres prof profs
    pvt rd rep reps rev sen sens sep sept seq sgt spc sq sr st ste supt supts sys tel tenn thu thurs
    tue tues univ va vs vt wed wis wisc wm wyo
"""
NAMES = """
    Ark Az Del Ill La Mass Miss Ore Pa Tex Wash ARK AZ DEL ILL LA MASS MISS ORE PA TEX WASH
"""
BEFORE_NUMBERS = "art ca fig figs no nos op pp prop"
SENTENCE_STARTS = """
    A About According After An As At But Earlier He Her Here However If In It Last Many More Now
    Once One Other Our She Since So Some Such That The Their Then There These They This We What When
    While Yet You
"""


def _any(words: str) -> str:
    return "|".join(sorted(words.split(), key=len, reverse=True))


L, C = r"[^\W\d_]", r"[^\W_]"  # a letter; a letter or a digit
U, STOP = r"[^\s<>\"()]", r"[.,;:!?']"  # a character of an address; one that does not end it
# Bounds on how far a token looks ahead, without which long text takes quadratic time.
LOCAL_PART = 64  # an e-mail address before the @, as in RFC 5321, section 4.5.3.1.1
HOST = 255  # what precedes an address's first period; a host name's limit in RFC 1035
TWO_WORDS = rf"(?i:can(?=not)|(?:gon|wan)(?=na)|got(?=ta)|(?:lem|gim)(?=me))(?={L}+(?![-/']?{C}))"
ENDING = rf"'(?i:s|m|d|re|ve|ll)(?!{L})"
# The first alternative that fits wins, so that the longer token must stand before the shorter.
TOKEN = re.compile(
    rf"""
    (?!{TWO_WORDS})[A-Za-z]+(?=[ ])                                  # most words
  | </?[A-Za-z!][\w.:-]*/?>                                          # <tag>
  | https?://{U}[^\s<>"().]{{0,{HOST}}}+\.(?:{STOP}*+(?!{STOP}){U})+     # http://example.com/a.html
  | {C}[\w.+-]{{0,{LOCAL_PART}}}+@{C}(?:[\w.-]*{C})?                     # me@example.com
  | @[A-Za-z_]\w* | \#{L}+ | \#+ | @+                                # @name, #word
  | >?[:;=]'?-?[()DOPdp\\|\]\[](?!{C})                               # :-)
  | (?i:ph\.d)\. | {L}+[!?]{L}+
  | {L}(?:\.{L})+\.(?!{C})(?:-{C}+)*                                 # u.s.-made
  | {L}\.(?!{L})(?!\s+(?:{_any(SENTENCE_STARTS)})\b)                 # Susan B. Anthony
  | (?:(?i:{_any(ABBREVIATIONS)})|{_any(NAMES)})\.(?!{L})
  | (?i:{_any(BEFORE_NUMBERS)})\.(?=\s*\d)
  | {C}+(?:[-_]{C}+)*\.(?=[,;:])                                     # on it., and
  | {L}{C}*\.{C}+(?:-{C}+)+ | {L}{C}*(?:\.{L}{C}*)+                  # tree.The
  | [-+]?\d*(?:[.,:]\d+)+ | [-+]\d+                                  # 1,000.5  9:30  -4
  | [A-Z]+(?:[&+][A-Z]+)+ | [A-Z]{{1,3}}\$ | [Cc](?:\+\+|\#)         # AT&T, US$
  | {TWO_WORDS}                                                      # can not
  | {L}*?[^\W\d_nN](?=(?i:n't)) | (?i:n't){L}*                       # do n't
  | '' | {ENDING} | '(?i:t)(?=(?i:is|was))                           # it 's, 't is
  | {L}+[AEIOUYaeiouy](?!{ENDING})'[A-Zaeiou]{L}*                    # Hawai'i
  | (?:[A-HJ-XZn]|[dlo])(?!{ENDING})'{L}{L}+                         # o'clock
  | (?i:c'est|c'mon|nor'easter|e'er|s'mores|ev'ry|li'l|nat'l|(?:dunkin|somethin|ol)')
  | [DdJjLl](?!{ENDING})' | [Yy](?!{ENDING})'(?={L})                 # y' all
  | '(?i:em|till?|cause) | '(?i:n)(?:'|(?![\w"]))                    # 'em, rock 'n' roll
  | '[2-9]0s | '\d\d(?![\w'"])                                       # '90s, '42
  | {C}+(?:[-_/]{C}+)*                                               # t-shirt, and/or
  | _+ | \*+ | [!?]+ | <+ | >+ | -+ | \S
    """,
    re.VERBOSE,
)


def ptb_tokens(caption: str) -> list[str]:
    """Return the caption's words, in small letters, without punctuation."""
    for entity, character in ENTITIES.items():
        caption = caption.replace(entity, character)
    found = TOKEN.findall(EMOJI.sub(" ", caption.translate(PLAIN)))
    return [word for token in found if (word := _written(token)) not in DROPPED]


def _written(token: str) -> str:
    """Return a token as the tokenizer writes it, except for those that are dropped."""
    if token in BRACKETS:
        return BRACKETS[token]
    if token[0] in "-." and not token.strip("-."):
        return "-"
    return token.lower().replace("(", BRACKETS["("]).replace(")", BRACKETS[")"])
