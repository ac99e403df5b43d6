"""The first level of help: the options that a newcomer turns, on about a screen.

`--help all` lists every option. Nothing heavy is imported here, so that help comes at once; a test
compares the names with the options that there are.
"""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from virtex.transfer.protocol_names import ABOUT

WIDTH, COLUMN = 96, 32
HELP = ("-h", "--help")
ALL = "--help-all"
PROTOCOLS = "Protocols"
"""Group of the names that follow `virtex transfer`."""

Rows = Mapping[str, str]
"""Flags with a placeholder for their value, and what they do."""


@dataclass(frozen=True)
class Brief:
    """The short help of a command."""

    usage: str
    about: str
    groups: Mapping[str, Rows] = field(default_factory=dict)
    after: str = ""


DATA: Rows = {
    "--data.root DIR": "folder of the data, or its table or list",
    "--data.source SOURCE": "layout, if it is not found from the root: coco, karpathy, flickr, "
    "folder, table, webdataset, classes, voc, lvis, inaturalist; or scenes, which are drawn",
    "--data.val_share 0.1": "fraction held out for validation, where there is no val split",
}
BEGIN: Rows = {
    "--config NAME|FILE": "recipe, or YAML file of options; may be repeated, later ones win",
    "--print_config": "print the options that apply as YAML, and exit",
}
PROCESSES: Rows = {
    "--processes auto|N": "processes to start; auto: one per GPU or physical core",
}
BRIEFS: dict[str, Brief] = {
    "pretrain": Brief(
        "virtex pretrain --config NAME|FILE --out RUN [--option value ...]",
        "Train a backbone from captions. The same command resumes an interrupted run.",
        {
            "Begin": {
                "--out RUN": "folder of the run",
                **BEGIN,
                "--init INIT": "weights: random, imagenet, a run, a file, a name in `virtex zoo`",
            },
            "Data": {
                **DATA,
                "--data.share 0.1": "fraction of the training images to use",
                "--image.size 224": "side of the network's input, in pixels",
                "--tokenizer.vocab_size 10000": "pieces of the vocabulary; fewer for few captions",
            },
            "Model": {
                "--task NAME": "pretext task: bicaptioning, captioning, masked_lm, icmlm, cappa, "
                "locca, prefix_lm, self_critical, token_classification, superclass, "
                "label_classification, clip, superclip, siglip, moco, pirl, instance_segmentation",
                "--task.help NAME": "options of a task; --run.help, --optim.help, ... of a group",
                "--backbone.name NAME": "timm network: resnet50, convnext_tiny, vit_...",
            },
            "Training": {
                "--run.num_steps N": "steps of the whole run",
                "--run.num_epochs N": "or passes over the training images",
                "--run.batch_size N": "images in a step, over all processes",
                "--optim.lr LR": "learning rate outside the backbone",
                "--optim.backbone_lr LR": "learning rate of the backbone",
                "--run.device DEVICE": "auto, cpu, cuda, cuda:1, mps",
                "--run.precision fp32": "auto (bf16 if the device is fast at it), fp32, bf16, fp16",
                **PROCESSES,
                "--loader.num_workers N": "processes that decode images",
                "--run.checkpoint_every N": "steps between two checkpoints",
                "--run.seed N": "random seed",
            },
        },
        "Recipes to begin with: own_data, own_data_gpu, adapt_captions, and the paper's base.",
    ),
    "tokenizer": Brief(
        "virtex tokenizer --out FILE.model --data.source SOURCE --data.root DIR",
        "Train a SentencePiece vocabulary on captions. `virtex pretrain` does so by itself.",
        {
            "Options": {
                "--out FILE.model": "file to write",
                **DATA,
                "--vocab_size 10000": "number of pieces, with the four special tokens",
                "--byte_fallback true": "write rare characters as bytes: no text is unknown",
                "--sample 2000000": "most captions to train on",
            }
        },
    ),
    "pack": Brief(
        "virtex pack --data.source SOURCE --data.root DIR --out SHARDS [--option value ...]",
        "Write any data as tar shards, which training reads faster: --data.root SHARDS. The same "
        "command resumes an interrupted one, and gives the same bytes.",
        {
            "Data": {
                **DATA,
                "--split both": "train, val, or both where there are validation images",
                "--annotations auto": "captions, labels or none; auto: what the layout has",
            },
            "Shards": {
                "--out SHARDS": "folder to write",
                "--short_side 256": "reduce larger images to it, in pixels; 0: keep the files",
                "--quality 90": "quality of the JPEG files that are written",
                "--shard_size 10000": "largest number of examples in a shard",
                "--shard_bytes 500MB": "or about how large a shard should be",
                "--seed 0": "random seed of the order",
                "--bad_image_limit 0.01": "largest fraction of images that may be unreadable",
                "--processes auto|N": "processes that read and encode images; auto: one per core",
            },
        },
    ),
    "caption": Brief(
        "virtex caption INIT IMAGE|DIR|GLOB|- ... [--option value ...]",
        "Caption images with a trained run; INIT is its folder or weights file. Prints a line "
        "path<TAB>caption for each image.",
        {
            "Images and captions": {
                "--list FILE": "file that names an image a line; may be repeated",
                "--out FILE": "write .jsonl, .csv or .json; images that it has are skipped",
                "--overwrite": "start the file again",
                "--attention DIR": "also draw where the model looks for each word",
                "--bad_image_limit 1.0": "largest fraction of images that may be unreadable",
            },
            "Search": {
                "--num_captions 1": "captions of each image",
                "--prefix TEXT": "words that every caption begins with",
                "--beams 5": "number of beams",
                "--greedy": "take the most probable token, without beams",
                "--nucleus 0.9": "sample from the most probable tokens instead",
                "--seed 0": "random seed of sampling",
            },
            "Speed": {
                "--device DEVICE": "auto, cpu, cuda, cuda:1, mps",
                "--batch_size 32": "images in a batch",
                "--num_workers 2": "processes that read images",
            },
        },
    ),
    "embed": Brief(
        "virtex embed INIT IMAGE|DIR|GLOB|- ... --out FILE.npz [--option value ...]",
        "Write the pooled embedding of each image. INIT is any backbone: a run, a weights file, "
        "imagenet, a name from `virtex zoo`.",
        {
            "Options": {
                "--out FILE.npz": "arrays `names` and `embeddings` (float32), for numpy.load",
                "--list FILE": "file that names an image a line; may be repeated",
                "--overwrite": "replace the file",
                "--bad_image_limit 1.0": "largest fraction of images that may be unreadable",
                "--image_size 224": "side of the centre crop, in pixels",
                "--device DEVICE": "auto, cpu, cuda, cuda:1, mps",
                "--batch_size 64": "images in a batch",
                "--num_workers 2": "processes that read images",
            }
        },
    ),
    "export": Brief(
        "virtex export INIT --format FORMAT --out FILE",
        "Write a model in the layout that another library reads.",
        {
            "Options": {
                "--format FORMAT": "torchvision, timm or detectron2 (the backbone), onnx (its "
                "graph), safetensors (the whole task), original (VirTex's .pth), huggingface (a "
                "folder with a card)",
                "--out FILE": "file to write; for huggingface the folder",
                "--overwrite": "replace it",
                "--image_size 224": "side of the ONNX graph's images",
                "--push OWNER/NAME": "push the folder to the Hugging Face hub",
                "--private": "make the repository private",
                "--license cc-by-4.0": "licence of the weights, for the card",
            }
        },
    ),
    "index": Brief(
        "virtex index URL|DIR [--out MANIFEST] [--option value ...]",
        "Write the manifest of tar shards in an object store or folder, with which `virtex "
        "pretrain --data.root MANIFEST` trains from them. The same command goes on after an "
        "interruption, and reads only shards that have changed.",
        {
            "Options": {
                "--out MANIFEST": "folder to write; by default DIR/.virtex-manifest",
                "--processes auto|N": "processes that read shards; auto: one per physical core",
                "--keep FILE": "ids to keep: .txt or .txt.gz, one a line, or .npy (DataComp's)",
                "--val_share 0.01": "fraction held out for validation, in MANIFEST-val",
                "--caption_keys LIST": "keys of the .json files that hold captions",
                "--with_captions false": "images alone: an example needs no caption",
                "--overwrite": "read all shards again",
            }
        },
        "Credentials come from the environment, as AWS_ACCESS_KEY_ID.",
    ),
    "study": Brief(
        "virtex study NAME|FILE --out STUDY [--option value ...]",
        "A table of experiments: pretrains and scores what is missing, then writes STUDY/table.md "
        "and STUDY/report.html.",
        {
            "Options": {
                "--out STUDY": "folder of the runs, the results, the table and its page",
                "--only ROW": 'run one row, or a list: \'["one", "two"]\'',
                "--data.source SOURCE": "layout of the pretraining data",
                "--data.root DIR": "folder of the pretraining data",
                "--target.source SOURCE": "layout of the data that score the rows; voc by default",
                "--target.root DIR": "folder of the data that score the rows",
                "--init INIT": "weights of the rows that begin with given ones",
                "--pretrain DICT": "options of all rows; one is --pretrain.run.num_steps 300",
                "--roots DICT": "folders of further data: '{imagenet: DIR, coco: DIR}'",
                "--image_size 224": "side of the images in the transfer, in pixels",
                **PROCESSES,
                "--num_workers 2": "processes that decode images",
            }
        },
        "Recipes: domain, domain_pairs, pairs_small, tasks_small, orderings_small, "
        "paper_baselines, paper_tasks, paper_width, paper_depth, paper_backbone, "
        "paper_data_efficiency, paper_annotation_cost; paper_toy tries paper_baselines in minutes.",
    ),
}
DATA_COMMANDS: dict[str, Brief] = {
    "check": Brief(
        "virtex data check --data.root DIR [--option value ...]",
        "Say on a page what is in a data set: counts, sizes, lengths, scripts, duplicates, broken "
        "images; and write lists of the images to leave out.",
        {
            "Options": {
                **DATA,
                "--out FILE.json": "also write all numbers for machines",
                "--write_bad FILE": "write the images to leave out, one a line",
                "--write_good FILE": "write the ids of the other training images",
                "--bad LIST": "findings whose images are left out; docs/data_check.md lists them",
                "--all": "decode all images, not 10,000 of each split",
                "--decode 0.1": "or this fraction of them",
                "--image_size 224": "side below which an image counts as small",
                "--max_tokens 30": "tokens above which a caption counts as long",
                "--tokenizer_path FILE": "vocabulary to count tokens with, not an estimate",
                "--boilerplate 100": "images with one caption from which it is boilerplate",
                "--num_threads 2": "threads that decode images",
            }
        },
    ),
}
"""Commands of `virtex data`."""
MEASURED: Rows = {
    "--init INIT": "weights: random, imagenet, a run, a file, or a name from `virtex zoo`",
    "--out DIR": "folder of the result, and of what a second call reuses",
    **BEGIN,
    **DATA,
}
SEEDS: Rows = {
    "--backbone_from RUN": "architecture of `--init random`",
    "--num_seeds 1": "repetitions with seeds from --seed on",
}
LABELS: Rows = {
    "--labels 0.01": "fraction of each class's training images to use",
    "--shots 5": "number of training images of each class to use",
}
INFERENCE: Rows = {
    "--device DEVICE": "auto, cpu, cuda, cuda:1, mps",
    "--processes 1": "processes that share the work, or auto",
    "--batch_size N": "images in a batch",
    "--num_workers N": "processes that decode images",
}
TRAINED: Rows = {
    "--optim.lr LR": "learning rate",
    "--run.batch_size N": "images in a step, over all processes",
    "--run.device DEVICE": "auto, cpu, cuda, cuda:1, mps",
    "--run.precision bf16": "fp32, bf16, fp16 or auto",
    **PROCESSES,
    "--loader.num_workers N": "processes that decode images",
}
FEATURES: Rows = {"--image_size 224": "side of the centre crop, in pixels", **INFERENCE}
CLASSIFIED: Rows = {
    **SEEDS,
    **LABELS,
    "--epochs N": "epochs of training",
    "--image.size 224": "side of the network's input, in pixels",
    **TRAINED,
}
DETECTED: Rows = {
    **SEEDS,
    "--run.num_steps N": "steps of fine-tuning",
    "--task.test_size N": "short side of test images, in pixels",
    **TRAINED,
}
MATCHED: Rows = {
    "--num_images N": "number of images to score",
    "--direction DIRECTION": "forward, backward or both: the decoder that reads",
    **INFERENCE,
}
PROTOCOL_ROWS: dict[str, Rows] = {
    "voc07": {
        **SEEDS,
        **LABELS,
        "--leave_out_rare": "leave out classes with too few images",
        **FEATURES,
    },
    "linear": {**SEEDS, **LABELS, "--solver SOLVER": "how the layer is trained", **FEATURES},
    "imagenet": CLASSIFIED,
    "inaturalist": CLASSIFIED,
    "finetune": CLASSIFIED,
    "coco-segmentation": DETECTED,
    "lvis-segmentation": DETECTED,
    "voc-detection": DETECTED,
    "captioning": {
        "--num_beams 5": "number of beams",
        "--metrics LIST": "metrics beside CIDEr-D, BLEU and ROUGE-L",
        **INFERENCE,
    },
    "zero-shot": {
        "--class_names FILE": "what to call the classes",
        "--templates LIST": "captions with {} for the class",
        **MATCHED,
    },
    "retrieval": {"--captions_per_image N": "captions of each image to score", **MATCHED},
}


def brief_help(command: str, arguments: Sequence[str]) -> str | None:
    """Return the short help that a command line asks for; None if it asks for none, or for all."""
    words = _before_separator(arguments)
    if not any(word in HELP for word in words) or ALL in with_one_help(arguments):
        return None
    if command == "transfer":
        return text_of(transfer_brief(words[0]))
    if command == "data":
        return text_of(data_brief(words[0]))
    return text_of(BRIEFS[command]) if command in BRIEFS else None


def with_one_help(arguments: Sequence[str]) -> list[str]:
    """Return the arguments in which `--help all` is `--help-all`."""
    words = _before_separator(arguments)
    for index, (word, following) in enumerate(itertools.pairwise(words)):
        if word in HELP and following == "all":
            return [*words[:index], ALL, *arguments[index + 2 :]]
    return list(arguments)


def _before_separator(arguments: Sequence[str]) -> list[str]:
    words = list(arguments)
    return words[: words.index("--")] if "--" in words else words


def transfer_brief(name: str) -> Brief:
    """Return the short help of a protocol; that of `virtex transfer` for any other name."""
    if name not in ABOUT:
        return Brief(
            "virtex transfer PROTOCOL --init INIT --out DIR [--option value ...]",
            "Score a backbone, or a whole model. `virtex transfer PROTOCOL --help` says more.",
            {PROTOCOLS: {key: f"{about.partition('. ')[0]}." for key, about in ABOUT.items()}},
        )
    return Brief(
        f"virtex transfer {name} --init INIT --out DIR [--option value ...]",
        ABOUT[name],
        {"Measured": MEASURED, "Protocol": PROTOCOL_ROWS[name]},
        f"The recipe {name!r} comes first: it has the paper's values.",
    )


def data_brief(name: str) -> Brief:
    """Return the short help of a command of `virtex data`; that of all for any other name."""
    about = {key: brief.about for key, brief in DATA_COMMANDS.items()}
    every = Brief(
        "virtex data COMMAND [--option value ...]", "Look at a data set.", {"Commands": about}
    )
    return DATA_COMMANDS.get(name, every)


def text_of(brief: Brief) -> str:
    """Return the text of a short help."""
    lines = [f"usage: {brief.usage}", "", *textwrap.wrap(brief.about, WIDTH)]
    for name, rows in brief.groups.items():
        lines += ["", f"{name.lower()}:"]
        for flag, text in rows.items():
            indent = " " * COLUMN
            wrapped = textwrap.wrap(
                text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
            )
            if len(flag) > COLUMN - 3:
                lines += [f"  {flag}", *wrapped]
            else:
                lines += [f"  {flag:<{COLUMN - 2}}{wrapped[0].lstrip()}", *wrapped[1:]]
    after = textwrap.wrap(brief.after, WIDTH)
    lines += ["", *after] if after else []
    if PROTOCOLS not in brief.groups:
        lines += ["", "`--help all` lists every option."]
    return "\n".join(lines)
