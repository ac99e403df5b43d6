"""CIDEr-D, BLEU and ROUGE-L against slow twins, against pycocoevalcap, and by their properties."""

import json
import random
import shutil
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles.caption_scores import slow_bleu, slow_cider_d, slow_common_length
from virtex.errors import DataError
from virtex.transfer.metrics.bleu import bleu
from virtex.transfer.metrics.captioning import caption_scores, cider_of_each, degeneracy
from virtex.transfer.metrics.rouge import common_length, rouge_l
from virtex.words.cider import cider_d
from virtex.words.ptb_tokens import ptb_tokens

PACKAGE = find_spec("pycocoevalcap")
WORDS = st.lists(st.sampled_from("abc"), max_size=7)
CORPUS = st.lists(
    st.tuples(WORDS, st.lists(WORDS.filter(bool), min_size=1, max_size=3)), min_size=2, max_size=4
)
GENERATED = {"1": "A dog on the grass.", "2": "two cats"}
REFERENCES = {"1": ["A dog lies on the grass", "the dog"], "2": ["Two cats sleep."]}
NUM_IMAGES = 800


@given(CORPUS)
def test_cider_and_bleu_are_those_of_their_formulas(corpus: list) -> None:
    candidates, references = [words for words, _ in corpus], [truths for _, truths in corpus]
    assert cider_d(candidates, references) == pytest.approx(slow_cider_d(candidates, references))
    assert bleu(candidates, references) == pytest.approx(slow_bleu(candidates, references))


@given(WORDS, WORDS)
def test_the_common_length_is_that_of_the_table(words: list[str], others: list[str]) -> None:
    assert common_length(words, others) == slow_common_length(words, others)


def test_rouge_takes_best_precision_and_best_recall() -> None:
    (score,) = rouge_l([["a", "b", "c", "d"]], [[["a", "b", "x", "c"], ["d"]]])
    assert score == pytest.approx((1 + 1.44) * 0.75 * 1 / (1 + 1.44 * 0.75))


def test_a_caption_equal_to_its_only_references_scores_highest() -> None:
    captions = {str(number): f"a {noun} on the grass" for number, noun in enumerate(["dog", "cat"])}
    scores = caption_scores(captions, {name: [text] for name, text in captions.items()})
    assert scores["CIDEr-D"] == pytest.approx(10)
    assert scores["BLEU-4"] == pytest.approx(1)
    assert scores["ROUGE-L"] == pytest.approx(1)


def test_the_order_of_images_does_not_matter() -> None:
    turned = dict(reversed(GENERATED.items()))
    assert caption_scores(turned, REFERENCES) == caption_scores(GENERATED, REFERENCES)


def test_case_and_punctuation_do_not_matter() -> None:
    shouted = {name: f'"{text.upper()}!"' for name, text in GENERATED.items()}
    assert caption_scores(shouted, REFERENCES) == caption_scores(GENERATED, REFERENCES)


def test_the_score_is_the_mean_over_images() -> None:
    each = cider_of_each(GENERATED, REFERENCES)
    assert each.keys() == GENERATED.keys()
    assert caption_scores(GENERATED, REFERENCES)["CIDEr-D"] == pytest.approx(
        sum(each.values()) / len(each)
    )


def test_an_empty_caption_is_allowed_and_scores_nothing() -> None:
    each = cider_of_each({**GENERATED, "2": ""}, REFERENCES)
    assert each["2"] == 0
    assert each["1"] > 0
    scores = caption_scores({**GENERATED, "2": " . "}, REFERENCES)
    assert scores["ROUGE-L"] < caption_scores(GENERATED, REFERENCES)["ROUGE-L"]


def test_images_that_differ_are_all_named() -> None:
    with pytest.raises(DataError) as raised:
        caption_scores({"1": "a dog", "3": "x", "4": "y"}, {**REFERENCES, "5": []})
    reported = str(raised.value)
    assert "3 images against" not in reported
    assert "2 images have references and no generated caption" in reported
    assert "2 images have a generated caption and no references" in reported
    assert "(5)" in reported


@pytest.mark.parametrize("score", [caption_scores, cider_of_each])
@pytest.mark.parametrize("wrong", ["two cats", None, [3], ["two cats", None]])
def test_references_that_are_no_list_of_texts_are_refused(score: Callable, wrong: object) -> None:
    with pytest.raises(DataError, match=r"1 images have references that are no list .* \(2\)"):
        score(GENERATED, {**REFERENCES, "2": wrong})
    with pytest.raises(DataError, match=r"1 images have a generated caption that is no text \(2\)"):
        score({**GENERATED, "2": ["two cats"]}, REFERENCES)


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="no captions"):
        caption_scores({}, {})


def test_degenerate_captions_are_counted() -> None:
    texts = ["a dog on a hill", "a dog on a hill", "the the cat", "a big cat a big cat", ""]
    report = degeneracy([text.split() for text in texts])
    assert report == {
        "unique_captions": pytest.approx(4 / 5),
        "repeated_word": pytest.approx(1 / 5),
        "repeated_trigram": pytest.approx(1 / 5),
        "empty_captions": pytest.approx(1 / 5),
        "mean_words": pytest.approx(19 / 5),
        "vocabulary": 7,
    }


@pytest.fixture(scope="module")
def package() -> Path:
    if PACKAGE is None:
        pytest.skip("needs pycocoevalcap")
    assert PACKAGE.submodule_search_locations
    return Path(PACKAGE.submodule_search_locations[0])


@pytest.fixture(scope="module")
def coco(package: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Real captions of COCO: the first of an image against its others, some of them spoilt."""
    with zipfile.ZipFile(package / "spice" / "spice-1.0.jar") as jar:
        rows = json.loads(jar.read("coco/annotations/captions_val2014.json"))["annotations"]
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(str(row["image_id"]), []).append(row["caption"].replace("\n", " "))
    chosen = {name: texts[name] for name in list(texts)[:NUM_IMAGES]}
    generated = {name: own[0] for name, own in chosen.items()}
    for name in random.Random(0).sample(list(generated), 40):
        generated[name] = random.Random(name).choice(["", "a", "...", "a dog dog dog dog dog"])
    return generated, {name: own[1:] for name, own in chosen.items()}


def test_scores_are_pycocoevalcaps_end_to_end(
    coco: tuple[dict[str, str], dict[str, list[str]]],
) -> None:
    if shutil.which("java") is None:
        pytest.skip("needs java, for pycocoevalcap's tokenizer")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    generated, references = coco
    tokenizer = PTBTokenizer()
    answers = tokenizer.tokenize({name: [{"caption": text}] for name, text in generated.items()})
    truths = tokenizer.tokenize(
        {name: [{"caption": text} for text in own] for name, own in references.items()}
    )
    cider, each = Cider().compute_score(truths, answers)
    expected = {"CIDEr-D": cider, "ROUGE-L": Rouge().compute_score(truths, answers)[0]}
    for length, score in enumerate(Bleu(4).compute_score(truths, answers, verbose=0)[0], 1):
        expected[f"BLEU-{length}"] = score
    assert caption_scores(generated, references) == pytest.approx(expected, abs=1e-3)
    ours = cider_of_each(generated, references)
    assert list(ours.values()) == pytest.approx(each.tolist(), abs=1e-3)


def test_words_alone_need_no_java(coco: tuple[dict[str, str], dict[str, list[str]]]) -> None:
    from pycocoevalcap.cider.cider import Cider

    generated, references = coco
    answers = {name: [" ".join(ptb_tokens(text))] for name, text in generated.items()}
    truths = {
        name: [" ".join(ptb_tokens(text)) for text in own] for name, own in references.items()
    }
    theirs = Cider().compute_score(truths, answers)[0]
    assert caption_scores(generated, references)["CIDEr-D"] == pytest.approx(theirs, abs=1e-9)
