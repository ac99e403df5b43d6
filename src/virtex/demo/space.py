"""A folder that runs as a hosted demo: a Space of the Hugging Face hub, or any container."""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import yaml

import virtex
from virtex import files
from virtex.demo.demo_config import DemoConfig
from virtex.demo.gallery import MAX_SEARCHED, find_images, spread
from virtex.errors import CheckpointError, ConfigError
from virtex.predict.loading import load_captioner, open_whole_model
from virtex.zoo.export.model_card import without_folders
from virtex.zoo.export.writing import save_run
from virtex.zoo.hub import HUB
from virtex.zoo.init import Opened
from virtex.zoo.weights_file import WEIGHTS_NAME

TEMPLATES = Path(__file__).parent / "space_files"
APP, DOCKERFILE, CARD = "app.py", "Dockerfile", "README.md"
SOURCE, MODEL, GALLERY = "virtex", "model", "gallery"
"""Folders of a Space, which a later one in the same place replaces."""
DISTRIBUTIONS = ("virtex-vision", "virtex")
"""Names under which this package may be installed."""
SERVER = ("starlette", "uvicorn")
READERS = {".json": ("tokenizers",)}
"""Optional packages that read a vocabulary, by the suffix of its file."""
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
PORT = 7860
WRITTEN = "# Written by `virtex demo --space`, which replaces it unless it is edited: sha256 "
"""First line of the app, which ends with a digest of the others."""
UNMARKED = frozenset({"a4c34a86ccae6875b2fd604ca9c18f0d334adccfe492966ab211eb7b36539d9b"})
"""Digests of the apps that versions without that line wrote."""
LARGE_FILES = ("*.safetensors", "*.pth", "*.pt", "*.model")


def write_space(config: DemoConfig, space: Path) -> Path:
    """Write the folder of a demo, and return its path.

    It holds the card, the app with the source of this package, what to install, a Dockerfile, and
    the model without its optimizer, or the name of a model on the hub.

    Raises:
        ConfigError: The folder holds other files, or INIT needs another option.
        CheckpointError: `config.init` holds no captioner, or the folder cannot be written.
    """
    _check_empty(space)
    opened = open_whole_model(config.init, has_tokenizer=config.tokenizer is not None)
    vocabulary = load_captioner(opened, tokenizer=config.tokenizer, device="cpu").tokenizer
    images = [] if config.gallery is None else find_images(config.init, config.gallery)
    pinned = requirements(READERS.get(vocabulary.suffix, ()))
    with files.replacing(space, error=CheckpointError, durable=False) as folder:
        folder.mkdir()
        model = _write_model(opened, folder, tokenizer=config.tokenizer)
        values = {**model, "max_upload_mb": config.max_upload_mb}
        _write(folder / "model.json", json.dumps(values, indent=2) + "\n")
        (folder / APP).write_bytes(_app())
        _write(folder / CARD, _card(config.init, space.absolute().name))
        _write(folder / "requirements.txt", "\n".join([*pinned, ""]))
        _write(folder / DOCKERFILE, _dockerfile())
        _write(folder / ".gitattributes", _attributes())
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(virtex.__file__).parent, folder / SOURCE, ignore=ignored)
        _copy_images(spread(images, MAX_SEARCHED), folder / GALLERY)
        for name in (SOURCE, MODEL, GALLERY):
            shutil.rmtree(space / name, ignore_errors=True)
    return space


def requirements(further: Sequence[str] = ()) -> list[str]:
    """Return the lines of requirements.txt: what this package needs, in the installed versions.

    Args:
        further: Packages that this model needs, too.

    Raises:
        ConfigError: A package is not installed.
    """
    lines, absent = [f"--extra-index-url {CPU_WHEELS}"], []
    for declared in (*_declared(), *SERVER, *further):
        found = re.match(r"[\w.-]+(\[.*?\])?", declared)
        assert found is not None, "a requirement begins with a name"
        try:
            number = version(found[0].partition("[")[0]).partition("+")[0]
        except PackageNotFoundError:
            absent.append(found[0])
        else:
            lines.append(f"{found[0]}=={number}")
    if absent:
        names = " ".join(absent)
        raise ConfigError(f"a Space lists what is installed here, which lacks: pip install {names}")
    return lines


def _declared() -> list[str]:
    """Return the requirements of this package, without those of its extras."""
    for name in DISTRIBUTIONS:
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        return [line for line in lines if "extra ==" not in line]
    raise ConfigError(
        f"--space lists what the package {DISTRIBUTIONS[0]} needs, which is not installed: install "
        "it, by `pip install .` in its source."
    )


def _check_empty(space: Path) -> None:
    """Raise a ConfigError if a folder holds anything but an earlier demo, and hidden files."""
    if not space.exists():
        return
    is_own = _is_own(space / APP)
    is_empty = space.is_dir() and all(path.name.startswith(".") for path in space.iterdir())
    if not (is_own or is_empty):
        raise ConfigError(
            f"--space {space} is there already, and `virtex demo --space` did not write it. Name a "
            "new folder."
        )


def _app() -> bytes:
    """Return the app, in whose first line a later version sees that nobody has edited it."""
    content = (TEMPLATES / APP).read_bytes()
    return WRITTEN.encode() + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def _is_own(app: Path) -> bool:
    """Return whether this or an earlier version wrote an app as it is."""
    if not app.is_file():
        return False
    content = app.read_bytes()
    first, _, rest = content.partition(b"\n")
    digest = hashlib.sha256(rest).hexdigest()
    return first == f"{WRITTEN}{digest}".encode() or hashlib.sha256(content).hexdigest() in UNMARKED


def _write_model(opened: Opened, folder: Path, *, tokenizer: Path | None) -> dict[str, str | None]:
    """Write what inference needs of a model, and return its INIT and tokenizer in the Space."""
    if opened.init.startswith(HUB):
        return {"init": opened.init, "tokenizer": None}
    target = folder / MODEL
    target.mkdir()
    if opened.kind == "run":
        config = {**without_folders(opened.config), "task": opened.config["task"]}
        save_run(opened, target / WEIGHTS_NAME, config=config)
        return {"init": f"{MODEL}/{WEIGHTS_NAME}", "tokenizer": None}
    assert tokenizer is not None, "load_captioner requires it"
    for path in (opened.path, tokenizer):
        shutil.copy(path, target / path.name)
    names = {"init": opened.path.name, "tokenizer": tokenizer.name}
    return {use: f"{MODEL}/{name}" for use, name in names.items()}


def _card(init: str, title: str) -> str:
    """Return the card of the Space, whose head says how it is run."""
    head = {
        "title": title,
        "sdk": "docker",
        "app_port": PORT,
        "pinned": False,
        "tags": ["virtex", "image-to-text"],
    }
    model = f"in `{MODEL}/`"
    if init.startswith(HUB):
        model = init.removeprefix(HUB).partition("@")[0]
        head["models"] = [model]
    text = (TEMPLATES / CARD).read_text(encoding="utf-8").format(title=title, model=model)
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n{text}"


def _dockerfile() -> str:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    text = (TEMPLATES / f"{DOCKERFILE}.txt").read_text(encoding="utf-8")
    return text.replace("{python}", python)


def _attributes() -> str:
    return "".join(f"{kind} filter=lfs diff=lfs merge=lfs -text\n" for kind in LARGE_FILES)


def _copy_images(images: list[Path], folder: Path) -> None:
    """Copy images under names that tell two of the same name apart."""
    if images:
        folder.mkdir()
    for number, image in enumerate(images):
        shutil.copyfile(image, folder / f"{number:03d}_{image.name}")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
