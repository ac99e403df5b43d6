"""PTB tokens: worked cases, each as the Java tokenizer answers, and that tokenizer itself."""

import json
import shutil
import subprocess
import zipfile
from importlib.util import find_spec
from pathlib import Path
from unicodedata import normalize

import pytest

from virtex.words.ptb_tokens import ptb_tokens

CASES = {
    "A man, a plan; a canal: Panama!": "a man a plan a canal panama",
    'The sign says "Free Wi-Fi".': "the sign says free wi-fi",
    "The dog's bone isn't it, it's the cats' toy.": "the dog 's bone is n't it it 's the cats toy",
    "THE DOG'S BONE ISN'T HERE": "the dog 's bone is n't here",
    "I can't, won't, cannot; they're gonna": "i ca n't wo n't can not they 're gon na",
    "Lemme and gimme, I wanna and gotta": "lem me and gim me i wan na and got ta",
    "'Tis 5 o'clock, y'all; 'em 'n' rock 'n' roll": "'t is 5 o'clock y' all 'em 'n' rock 'n' roll",
    "hors d'oeuvres at the Dunkin' Donuts, ma'am": "hors d'oeuvres at the dunkin' donuts ma'am",
    "Mr. Smith of St. Louis vs. Dr. Jones etc.": "mr. smith of st. louis vs. dr. jones etc.",
    "Sold in the U.S. by J. Doe at 7:30 p.m.": "sold in the u.s. by j. doe at 7:30 p.m.",
    "He ate vitamin C. The end": "he ate vitamin c the end",
    "No. 5 of Ore., no. Not here in Ore": "no. 5 of ore. no not here in ore",
    "A cat is on it., a dog under it.": "a cat is on it. a dog under it",
    "A bed.The lamp is off.": "a bed.the lamp is off",
    "He paid $1,000.50 (50% off) for 3.5 kg": "he paid $ 1,000.50 -lrb- 50 % off -rrb- for 3.5 kg",
    "oranges,2 bananas and .90 cents from 6-8:30": "oranges ,2 bananas and .90 cents from 6-8 :30",
    "a black/white bus-stop in the '90s or 1990s": "a black/white bus-stop in the '90s or 1990s",
    "AT&T and M&M's, black & white": "at&t and m&m 's black & white",
    "what?! wow!! stop... -- no? #1 @home #fun": "what ?! wow !! stop no # 1 @home #fun",
    "see http://example.com/a-b, or me@example.com": "see http://example.com/a-b or me@example.com",
    "“Curly” quotes — don’t … 2½ cups": "curly quotes do n't 2 1/2 cups",
    "the naïve café 🙂 at 日本": "the naïve café at 日本",
    "smile :) [sic] {x} <b>": "smile :-rrb- -lsb- sic -rsb- -lcb- x -rcb- <b>",
    "": "",
    " . , ' \" ": "",
}
SCRIPTS = {
    "एक कुत्ता घास पर दौड़ता है।": "एक कुत्ता घास पर दौड़ता है ।",
    "5वीं मंजिल, घर-बार और राम-सीता की १.५ किलो": "5व ीं मंजिल घर-ब ार और राम सीता की १.५ किलो",
    "কুকুর ঘাসের উপর দৌড়াচ্ছে, র\u200d্যাব": "কুকুর ঘাসের উপর দৌড়াচ্ছে র ্যাব",
    "ஒரு நாய் புல்வெளியில் ஓடுகிறது.": "ஒரு நாய் புல்வெளியில் ஓடுகிறது",
    "సెలవు రోజున కుక్క పరుగెడుతోంది": "సెలవు రోజున కుక్క పరుగెడుతోంది",
    "કૂતરો ઘાસ પર દોડે છે": "કૂતરો ઘાસ પર દોડે છે",
    "ਕੁੱਤਾ ਘਾਹ ਦੌੜਦਾ": "ਕੁ ਤਾ ਘਾਹ ਦੌੜਦਾ",
    "ನಾಯಿ ಓಡುತ್ತಿದೆ": "ನ ಯ ಓಡ ತ ತ ದ",
    "സുന്ദരൻ പുല്ലിൽ ഓടുന്നു": "സുന ദരൻ പുല ലിൽ ഓടുന നു",
    "කුක්කා දුවයි": "ක ක ක ද වය",
    "ผู้หญิงสองคน กำลังเดิน ๆ อยู่ในตลาด": "ผู้หญิงสองคน กำลังเดิน ๆ อยู่ในตลาด",
    "ໝາແລ່ນເທິງຫຍ້າ": "ໝາແລ່ນເທິງຫຍ້າ",
    "ခွေးတစ်ကောင်": "ခ တစ က င",
    "ឆ្កែកំពុងរត់។": "ឆ ក ក ព ងរត",
    "كلب يركض على العشب.": "كلب يركض على العشب",
    "هُوَ كَلْبٌ يَرْكُضُ، أَلَيْسَ كَذٰلِكَ؟": "هُوَ كَلْبٌ يَرْكُضُ ، أَلَيْسَ كَذٰلِكَ ؟",
    "سگ می\u200cدود و ۳ کودک، نقطة ١٫٥": "سگ می دود و ۳ کودک ، نقطة ١٫٥",
    "ایک کتا گھاس پر دوڑ رہا ہے۔": "ایک کتا گھاس پر دوڑ رہا ہے ۔",
    "כלב רץ על הדשא.": "כלב רץ על הדשא",
    "כֶּלֶב רָץ צה״ל ג׳ירפה": "כֶּלֶב רָץ צה ״ ל ג ׳ ירפה",
    "Một con chó đang chạy trên cỏ.": "một con chó đang chạy trên cỏ",
    "개가 잔디 위를 달리고 있다.": "개가 잔디 위를 달리고 있다",
    "一只狗在草地上,海边、聊天。「红」色的伞": "一只狗在草地上 海边 、 聊天 。 红 色的伞",
    "犬が芝生の上を走っている。": "犬が芝生の上を走っている 。",
    "コンピューター・ゲーム 犬.": "コンピューター ・ ゲーム 犬",
    "соба́ка бежи́т по траве́, кот сидит.": "соба́ка бежи́т по траве́ кот сидит",
    "ውሻ በሳር ላይ ይሮጣል።": "ውሻ በሳር ላይ ይሮጣል",
    "Շունը վազում է։": "շունը վազում է ։",
    "👍🏽 from 👩\u200d👩\u200d👧 and ❤\ufe0f or ☀": "from and ❤ or ☀",
    "at 25°C, 5™ x² CO₂": "at 25 ° c 5 ™ x ² co ₂",
    "1\ufe0f\u20e3 and ①② x•y a·b ‹oui› Ⅷ ₹500": "1 and ① ② x • y a · b oui 500",
    "a\u2010b non\u2011breaking co\u00adoperate": "a\u2010b non\u2011breaking cooperate",
    "1½ ½-inch £5": "1 1/2 1/2 inch # 5",
    "ａｂｃ （全角）！ Ж. é.u. ж/о a-b/c": "ａｂｃ （ 全角 ） ！ ж é.u ж / о a-b/c",
    "カ\u3099キ\u3099のハ\u309aン": "カ キ のハ ン",
}
DECOMPOSED = {
    "Một con chó đang chạy trên cỏ.": "một con chó đang chạy trên cỏ",
    "개가 잔디 위를 달리고 있다.": "개가 잔디 위를 달리고 있다",
    "un café noir, CAFÉ's naïve café-au-lait": "un café noir café 's naïve café au-lait",
    "Собака й ёлка": "собака й ёлка",
    "σκύλος τρέχει ΟΔΟΣ": "σκύλος τρέχει οδος",
}
CASES |= SCRIPTS
CASES |= {normalize("NFD", text): normalize("NFD", words) for text, words in DECOMPOSED.items()}
PACKAGE = find_spec("pycocoevalcap")
TOKENIZER = "edu.stanford.nlp.process.PTBTokenizer"
PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
NUM_CAPTIONS = 8000


@pytest.fixture(scope="module")
def package() -> Path:
    if shutil.which("java") is None or PACKAGE is None:
        pytest.skip("needs java and pycocoevalcap")
    assert PACKAGE.submodule_search_locations
    return Path(PACKAGE.submodule_search_locations[0])


def java_tokens(package: Path, lines: list[str], folder: Path) -> list[list[str]]:
    """What the Java tokenizer answers, less punctuation.

    It looks into the next line, so a line that starts no sentence stands between any two.
    """
    path = folder / "lines.txt"
    path.write_text("".join(f"{line}\nx y\n" for line in lines), encoding="utf-8")
    jar = package / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), TOKENIZER]
    done = subprocess.run(
        [*command, "-preserveLines", "-lowerCase", str(path)], capture_output=True, check=True
    )
    answers = done.stdout.decode().split("\n")[: 2 * len(lines) : 2]
    return [[word for word in answer.split() if word not in PUNCTUATION] for answer in answers]


@pytest.mark.parametrize("caption", CASES)
def test_worked_cases(caption: str) -> None:
    assert " ".join(ptb_tokens(caption)) == CASES[caption]


def test_the_worked_cases_are_what_java_answers(package: Path, tmp_path: Path) -> None:
    answers = java_tokens(package, list(CASES), tmp_path)
    reported = dict(zip(CASES, (" ".join(answer) for answer in answers), strict=True))
    assert reported == CASES


CURLED = "`‘’‛\x91\x92"
"""Quotes that Java keeps within a word, or writes as the straight one, by its neighbours."""
CONTROLS = "\n\x0b\x0c\r\x85\u2028\u2029"


@pytest.mark.parametrize("around", ["{}", "ba{}ab", "ba {} ab"])
def test_every_character_is_to_python_what_it_is_to_java(
    package: Path, tmp_path: Path, around: str
) -> None:
    characters = [
        chr(code)
        for code in range(0x20, 0x10000)
        if not 0xD800 <= code < 0xE000 and chr(code) not in CURLED + CONTROLS
    ]
    texts = [around.format(character) for character in characters]
    answers = java_tokens(package, texts, tmp_path)
    pairs = zip(characters, texts, answers, strict=True)
    assert not [hex(ord(one)) for one, text, answer in pairs if ptb_tokens(text) != answer]


def test_thousands_of_real_captions_get_the_words_that_java_gives(
    package: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(package / "spice" / "spice-1.0.jar") as jar:
        rows = json.loads(jar.read("coco/annotations/captions_val2014.json"))["annotations"]
    texts = [row["caption"].replace("\n", " ") for row in rows]
    odd = [text for text in texts if not text.rstrip(" .").replace(" ", "").isalpha()]
    chosen = [*odd[:: len(odd) // (NUM_CAPTIONS // 2)], *texts[:: 2 * len(texts) // NUM_CAPTIONS]]
    answers = java_tokens(package, chosen, tmp_path)
    differ = [
        (text, answer)
        for text, answer in zip(chosen, answers, strict=True)
        if ptb_tokens(text) != answer
    ]
    assert not differ


NUMBER = 100_000
"""Repetitions of a pattern: work that grows with their square would take minutes to hours."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_." * NUMBER, ["a", "_"] * NUMBER),
        ("a+" * NUMBER, ["a", "+"] * NUMBER),
        ("-a-" * NUMBER, ["a"] * NUMBER),
        ("..a" * NUMBER, [*["a."] * (NUMBER - 1), "a"]),
        ("http://" * NUMBER, ["http", "/", "/"] * NUMBER),
        (f"http://a{'.,' * NUMBER}", ["http", "/", "/", "a."]),
    ],
    ids=["dots", "plus", "hyphens", "periods", "web addresses", "end of a web address"],
)
def test_long_text_takes_work_in_proportion(text: str, expected: list[str]) -> None:
    is_expected = ptb_tokens(text) == expected
    assert is_expected  # lists of a million words are not worth a comparison


@pytest.mark.parametrize(
    "address",
    [
        "me.you+all@example.com",
        f"{'a' * 65}@b",
        "http://a.b/c,d.html",
        "https://..a",
        "http://a.,.b",
    ],
)
def test_an_address_is_one_word(address: str) -> None:
    assert ptb_tokens(f"see {address}, or not") == ["see", address, "or", "not"]
