"""Fraction of generated captions that share content words with a human caption of the image.

virtex caption RUN FLICKR8K/val2017 --json captions.json
python benchmarks/true_words.py captions.json FLICKR8K/annotations/captions_val2017.json
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "is",
        "are",
        "be",
        "in",
        "on",
        "of",
        "at",
        "to",
        "and",
        "with",
        "through",
        "his",
        "her",
        "their",
        "its",
        "by",
        "for",
        "from",
        "up",
        "down",
        "out",
        "over",
        "near",
        "while",
        "two",
        "three",
        "one",
        "another",
        "other",
        "some",
        "it",
        "he",
        "she",
        "they",
        "this",
        "that",
        "front",
    ]
)


def content_words(caption: str) -> set[str]:
    """Return the content words of a caption."""
    return set(re.findall(r"[a-z]+", caption.lower())) - FUNCTION_WORDS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("captions", type=Path, help="output of `virtex caption --json`")
    parser.add_argument("annotations", type=Path, help="COCO captions of the same images")
    options = parser.parse_args()
    human = json.loads(options.annotations.read_text())
    names = {image["id"]: image["file_name"] for image in human["images"]}
    words: dict[str, set[str]] = defaultdict(set)
    for annotation in human["annotations"]:
        words[names[annotation["image_id"]]] |= content_words(annotation["caption"])
    generated = json.loads(options.captions.read_text())
    shared = [
        len(content_words(line["caption"]) & words[Path(line["image"]).name]) for line in generated
    ]
    print(f"{len(generated)} captions, {len({line['caption'] for line in generated})} distinct")
    for least in (1, 2):
        fraction = sum(count >= least for count in shared) / len(shared)
        print(f"at least {least} true content word(s): {fraction:.1%}")


if __name__ == "__main__":
    main()
