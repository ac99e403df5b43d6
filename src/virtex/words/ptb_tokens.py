"""Penn Treebank tokens of captions, on which caption scores are published.

pycocoevalcap runs the Java PTBTokenizer of Stanford CoreNLP 3.4.1, lower-cased, and drops a list of
punctuation. The rules here were written from that tokenizer's output, not from its grammar. They
give the same words for 616,750 of COCO's 616,767 captions of 2014, and for all 35,000 of Flickr8k.
The 17 others end in a single letter ("a sign with the letter K."), where the Java tokenizer reads
on into the caption on the next line; given the caption alone it agrees with these rules. Known to
differ: tags with attributes, some codes (`a.4-5`, `it's2nd`), telephone numbers with spaces, e-mail
addresses of more than 65 characters before the @, and web addresses of more than 256 before the
first period. ptb_characters.py says what characters of all scripts are.

Surprises that are kept, since scores depend on them: brackets stay, as the words -lrb- and -rrb-
(the list has them in capitals, the tokenizer writes small letters), and so do `!!`, `?!`, `&` and
`/`. An abbreviation keeps its period, and so does a word whose period is followed by another
punctuation mark.
"""

import re

from virtex.words.ptb_characters import FORMS, FROM_STAND_INS, HYPHENS, MARK, SEPARATORS

DROPPED = frozenset(["''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""Tokens that pycocoevalcap drops, as far as they occur in small letters."""
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"'}

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


# Rules of plain words alone know marks: a mark that another rule meets begins the next word.
L, C = rf"[^\W\d_{MARK}]", rf"[^\W_{MARK}]"  # a letter; a letter or a digit
W, N = r"[^\W\d_]", r"[^\W_]"  # the same, with marks among the letters
A, TAIL = "[A-Za-z0-9]", "(?:-[A-Za-z]+){0,2}"  # -and-white
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
  | https?://{U}[^\s<>"().]{{0,{HOST}}}+\.(?:{STOP}*+(?!{STOP}){U})+  # http://example.com/a.html
  | {C}[\w.+-]{{0,{LOCAL_PART}}}+@{C}(?:[\w.-]*{C})?                 # me@example.com
  | @[A-Za-z_]\w* | \#{L}+ | \#+ | @+                                # @name, #word
  | >?[:;=]'?-?[()DOPdp\\|\]\[](?!{C})                               # :-)
  | (?i:ph\.d)\. | {L}+[!?]{L}+
  | [A-Za-z](?:\.[A-Za-z])+\.(?!{C})(?:-{C}+)*                       # u.s.-made
  | [A-Za-z]\.(?!{W})(?!\s+(?:{_any(SENTENCE_STARTS)})\b)            # Susan B. Anthony
  | (?:(?i:{_any(ABBREVIATIONS)})|{_any(NAMES)})\.(?!{L})
  | (?i:{_any(BEFORE_NUMBERS)})\.(?=\s*\d)
  | {C}+(?:[-_]{C}+)*\.(?=[,;:])                                     # on it., and
  | [A-Za-z]{A}*\.{A}+(?:-{A}+)+ | {W}{N}*(?:\.{W}{N}*)+             # tree.The
  | [-+]?\d*(?:[.,:{SEPARATORS}]\d+)+ | [-+]\d+                      # 1,000.5  9:30  -4
  | [A-Z]+(?:[&+][A-Z]+)+ | [A-Z]{{1,3}}\$ | [Cc](?:\+\+|\#)         # AT&T, US$
  | {TWO_WORDS}                                                      # can not
  | [A-Za-z]*?[A-MO-Za-mo-z](?=(?i:n't)) | (?i:n't){L}*              # do n't
  | '' | {ENDING} | '(?i:t)(?=(?i:is|was))                           # it 's, 't is
  | {L}+[AEIOUYaeiouy](?!{ENDING})'[A-Zaeiou]{L}*                    # Hawai'i
  | (?:[A-HJ-XZn]|[dlo])(?!{ENDING})'{L}{L}+                         # o'clock
  | (?i:c'est|c'mon|nor'easter|e'er|s'mores|ev'ry|li'l|nat'l|(?:dunkin|somethin|ol)')
  | [DdJjLl](?!{ENDING})' | [Yy](?!{ENDING})'(?={L})                 # y' all
  | '(?i:em|till?|cause) | '(?i:n)(?:'|(?![\w"]))                    # 'em, rock 'n' roll
  | '[2-9]0s | '[0-9][0-9](?![\w'"])                                 # '90s, '42
  | {A}+{TAIL}(?:/{A}+{TAIL}){{1,2}} | \d+[/⁄]\d+                    # and/or
  | {C}+(?:[-_{HYPHENS}]{C}+)+                                       # t-shirt, and/or
  | {W}{N}* | {C}+
  | _+ | \*+ | [!?]+ | <+ | >+ | -+ | [^\s{HYPHENS}{SEPARATORS}]
    """,
    re.VERBOSE,
)


def ptb_tokens(caption: str) -> list[str]:
    """Return the caption's words, in small letters, without punctuation."""
    for entity, character in ENTITIES.items():
        caption = caption.replace(entity, character)
    found = TOKEN.findall(caption.translate(FORMS))
    if not caption.isascii():
        found = [token.translate(FROM_STAND_INS) for token in found]
    return [word for token in found if (word := _written(token)) not in DROPPED]


def _written(token: str) -> str:
    """Return a token as the tokenizer writes it, except for those that are dropped."""
    if token in BRACKETS:
        return BRACKETS[token]
    if token[0] in "-." and not token.strip("-."):
        return "-"
    return token.lower().replace("(", BRACKETS["("]).replace(")", BRACKETS[")"])
