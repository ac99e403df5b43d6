"""Text of the web: byte fallback for rare characters, and the characters that become pieces."""

import logging
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_tokenizer import CAPTIONS
from virtex.data.concept_words import find_words
from virtex.data.normalization import normalize_caption
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.errors import ConfigError
from virtex.models.decoding import check_prefix
from virtex.models.decoding_config import DecodingConfig
from virtex.tokens import EOS_ID, MASK_ID, NUM_SPECIAL, SOS_ID, UNK_ID

LANGUAGES = """
a picture of a dog|'n foto van 'n hond|የውሻ ምስል|صورة كلب|কুকুৰৰ ছবি|bir itin şəkli|эт һүрәте
фота сабакі|снимка на куче|kunnu la mɔ|কুকুরের ছবি|ཁྱིའི་པར་རིས|skeudenn ur c'hi|slika psa
una foto d'un gos|жӏаьлин сурт|hulagway sa iro|وێنەی سەگێک|obrázek psa|йытӑ ӳкерчӗкӗ|llun o gi
et billede af en hund|ein Bild von einem Hund|ކުއްތާގެ ފޮޓޯ|avu ƒe nɔnɔmetata
φωτογραφία ενός σκύλου|bildo de hundo|una foto de un perro|koera pilt|txakur baten argazkia
تصویر یک سگ|kuva koirasta|mynd av hundi|une photo d'un chien|in foto fan in hûn
pictiúr de mhadra|dealbh de chù|unha foto dun can|jagua ra'anga|કૂતરાનો ફોટો|hoton kare
kiʻi o ka ʻīlio|תמונה של כלב|कुत्ते की तस्वीर|foto psa|foto yon chen|egy kutya képe|շան նկար
foto seekor anjing|foto nkịta|mynd af hundi|ᕿᒻᒥᖅ ᐊᔾᔨᙳᐊᖅ|una foto di un cane|犬の写真|gambar asu
ძაღლის სურათი|иттің суреті|qimmip assinga|រូបភាពឆ្កែ|ನಾಯಿಯ ಚಿತ್ರ|개 사진|wêneyê kûçikekî
иттин сүрөтү|imago canis|e Bild vun engem Hond|ekifaananyi ky'embwa|elili ya mbwa|ຮູບໝາ
šuns nuotrauka|suņa attēls|sarin'alika|he pikitia kurī|слика од куче|നായയുടെ ചിത്രം|нохойн зураг
कुत्र्याचे चित्र|gambar anjing|stampa ta' kelb|ခွေးပုံ|कुकुरको तस्बिर|een foto van een hond
et bilde av en hund|chithunzi cha galu|imatge d'un can|କୁକୁରର ଛବି|ਕੁੱਤੇ ਦੀ ਤਸਵੀਰ|zdjęcie psa
د سپي انځور|uma foto de um cão|allqupa rikch'aynin|o poză cu un câine|фотография собаки
ifoto y'imbwa|कुक्कुरस्य चित्रम्|ыт хаартыската|ڪتي جي تصوير|බල්ලෙකුගේ පින්තූරය|fotografia psa
slika kužka|ata o se maile|mufananidzo wembwa|sawirka eyga|një foto e një qeni|слика пса
setšoantšo sa ntja|gambar anjing|ett foto av en hund|picha ya mbwa|நாயின் படம்|కుక్క చిత్రం
сурати саг|ภาพสุนัข|ስእሊ ከልቢ|itiň suraty|larawan ng aso|setshwantsho sa ntšwa|bir köpek resmi
эт рәсеме|ئىتنىڭ رەسىمى|фото собаки|کتے کی تصویر|it rasmi|bức ảnh một con chó|foto xacrin
ifoto yenja|בילד פון אַ הונט|àwòrán ajá|一张狗的照片|isithombe senja|ܨܘܪܬܐ ܕܟܠܒܐ|ⵜⴰⵡⵍⴰⴼⵜ ⵏ ⵓⵢⴷⵉ
ᏗᏓᏟᎶᏍᏔᏅ ᎩᎵ|𐌷𐌿𐌽𐌳𐍃|ꦒꦩ꧀ꦧꦂ|߬ߥߎߟߎ|𞤪𞤢𞥄𞤥𞤢|㽂𠀋𪚥|▅ ꙮ ﷽|e\u0301 n\u0303\u0323
a dog 🐕 and 🐈‍⬛ ☀️ 👩🏽‍🚀 🏳️‍🌈 👨‍👩‍👧 1️⃣ 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🇫🇷 🫨
"""
TEXTS = LANGUAGES.strip().replace("\n", "|").split("|")
BYTES = train_tokenizer(CAPTIONS, vocab_size=300, byte_fallback=True)


def bytes_of(text: str) -> list[int]:
    """The tokens of text whose characters are no pieces."""
    return [NUM_SPECIAL + byte for byte in text.encode()]


def test_no_text_is_unknown_and_all_of_it_comes_back() -> None:
    assert len(TEXTS) > 130
    for text in TEXTS:
        ids = BYTES.encode(text)
        assert not {UNK_ID, SOS_ID, EOS_ID, MASK_ID} & set(ids), text
        assert BYTES.decode(ids) == normalize_caption(text)


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_comes_back(text: str) -> None:
    ids = BYTES.encode(text)
    assert UNK_ID not in ids
    assert BYTES.decode(ids) == normalize_caption(text)


def test_a_character_that_is_cut_off_at_the_end_is_left_out() -> None:
    whole = BYTES.encode("dog 🐕")
    for length in (1, 2, 3):
        assert BYTES.decode(whole[:-length]) == "dog"
        assert BYTES.decode([*whole[:-length], EOS_ID, *whole]) == "dog"
    assert BYTES.decode([*whole[:-1], *BYTES.encode("cat")]).endswith("\ufffd cat")


def test_bytes_of_one_letter_are_tokens_of_one_word() -> None:
    tokens = [SOS_ID, *BYTES.encode("a кот, dog🐕 犬"), EOS_ID]
    words = list(find_words(tokens, BYTES))
    assert [word.text for word in words] == ["a", "кот", "dog", "犬"]
    assert [tokens[index] for index in words[1].indices][-6:] == bytes_of("кот")
    assert [tokens[index] for index in words[3].indices] == bytes_of("犬")


def test_half_a_letter_is_part_of_no_word() -> None:
    half = bytes_of("к")[:1]
    words = list(find_words([*half, *BYTES.encode("dog"), *half], BYTES))
    assert [word.text for word in words] == ["dog"]
    assert words[0].indices[0] == 1


def test_captions_can_begin_with_bytes() -> None:
    check_prefix(BYTES.encode("犬"), DecodingConfig(max_steps=30))


def test_bytes_write_the_rarest_characters(caplog: pytest.LogCaptureFixture) -> None:
    captions = ["".join(map(chr, range(0x4E00, 0x4E00 + size))) for size in range(1, 400)]
    with pytest.raises(ConfigError, match=r"at least 404; .*or byte_fallback"):
        train_tokenizer(captions, vocab_size=300)
    with caplog.at_level(logging.INFO):
        tokenizer = train_tokenizer(captions, vocab_size=300, byte_fallback=True)
    assert "the 20 most frequent of 400 characters are pieces" in caplog.text
    assert len(tokenizer) == 300
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in captions)
    assert len(tokenizer.encode(chr(0x4E00))) == 1
    assert len(tokenizer.encode(chr(0x4E00 + 398))) == 1 + 3  # a space, and bytes


def test_characters_beyond_the_coverage_are_unknown() -> None:
    captions = ["a dog and a cat"] * 99 + ["ж"]
    covered = train_tokenizer(captions, vocab_size=40, character_coverage=0.99)
    assert UNK_ID in covered.encode("ж")
    assert UNK_ID not in covered.encode("a dog")
    assert UNK_ID not in train_tokenizer(captions, vocab_size=40).encode("ж")


def test_too_few_pieces_for_the_bytes_name_the_smallest_number() -> None:
    with pytest.raises(ConfigError, match="give 262 or more"):
        train_tokenizer(CAPTIONS, vocab_size=261, byte_fallback=True)
    assert len(train_tokenizer(CAPTIONS, vocab_size=262, byte_fallback=True)) <= 262


def test_the_number_of_pieces_stays_within_bounds_for_any_coverage() -> None:
    counts = Counter({chr(0x4E00 + rank): 1 + 4000 // (1 + rank) for rank in range(4000)})
    for coverage in (1.0, 0.999, 0.9):
        for size in (300, 1000, 5000):
            tokenizer: Tokenizer = train_tokenizer(
                counts.elements(), vocab_size=size, byte_fallback=True, character_coverage=coverage
            )
            assert len(tokenizer) <= size
