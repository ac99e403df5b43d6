"""METEOR and SPICE, computed by their authors' Java programs.

pycocoevalcap (`pip install pycocoevalcap`) brings both programs. They are started here and not
by its wrappers, so that nothing is downloaded, nothing is written into the installed package, and a
program that fails or hangs ends with an error. SPICE also needs Stanford CoreNLP, which no Python
package brings.

Denkowski and Lavie, "Meteor Universal", 2014. Anderson et al., "SPICE", ECCV 2016.
"""

import json
import logging
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from virtex.errors import ConfigError, raise_all

Words = Sequence[str]
TIMEOUT = 7200.0
"""Seconds after which a program is stopped; SPICE parses some 20 captions a second."""
CORENLP = "stanford-corenlp-3.6.0"
CORENLP_URL = "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
METEOR_JAR, SPICE_JAR = Path("meteor/meteor-1.5.jar"), Path("spice/spice-1.0.jar")
MAX_LINES = 4

logger = logging.getLogger("virtex")


def check_java_metrics(names: Iterable[str]) -> None:
    """Check that the programs for `meteor` and `spice` are installed.

    Raises:
        ConfigError: Everything that is missing, and where to get it.
    """
    wanted = {"meteor": METEOR_JAR, "spice": SPICE_JAR}
    jars = {name: wanted[name] for name in names if name in wanted}
    if not jars:
        return
    problems, package = [], _package()
    if not shutil.which("java"):
        problems.append("no program `java` is found: install a Java runtime")
    if package is None:
        problems.append("pycocoevalcap is not installed: pip install pycocoevalcap")
    else:
        problems += [f"{package / jar} is missing: install pycocoevalcap again"
                     for jar in jars.values() if not (package / jar).is_file()]  # fmt: skip
        if "spice" in jars:
            problems += _missing_models(package / "spice" / "lib")
    raise_all(
        ConfigError,
        f"{' and '.join(jars)} cannot be computed (mend this, or leave them out of `metrics`)",
        problems,
    )


def meteor(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Return METEOR 1.5 of all captions together, from 0 to 1.

    Raises:
        ConfigError: Its program is missing, or failed.
    """
    check_java_metrics(["meteor"])
    num_references = max(map(len, references))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_lines(folder / "candidates", candidates)
        # The program needs equally many references of each caption. It takes the best of them, so
        # that one that occurs twice changes nothing.
        filled = ([*own, *[own[0]] * (num_references - len(own))] for own in references)
        _write_lines(folder / "references", (words for own in filled for words in own))
        files = [str(folder / "candidates"), str(folder / "references")]
        options = ["-l", "en", "-norm", "-r", str(num_references)]
        printed = _run_jar(METEOR_JAR, *files, *options, memory="2G", folder=folder)
    found = re.search(r"^Final score:\s*(\S+)", printed, re.MULTILINE)
    if found is None:
        raise ConfigError(f"METEOR printed no final score, but {_first_lines(printed)}")
    return float(found[1])


def spice(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Return the mean SPICE of the captions, from 0 to 1.

    Raises:
        ConfigError: Its program or CoreNLP is missing, or failed.
    """
    check_java_metrics(["spice"])
    rows = [
        {"image_id": index, "test": " ".join(words), "refs": [" ".join(truth) for truth in truths]}
        for index, (words, truths) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "captions.json").write_text(json.dumps(rows), encoding="utf-8")
        files = [str(folder / "captions.json"), "-out", str(folder / "scores.json")]
        _run_jar(SPICE_JAR, *files, "-silent", memory="8G", folder=folder)
        try:
            scored = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"SPICE wrote no scores that can be read: {error}") from error
    return mean_spice(scored)


def mean_spice(scored: list[dict[str, Any]]) -> float:
    """Return the mean F-score of what the SPICE program wrote.

    Raises:
        ConfigError: No caption has a score.
    """
    values = [float(row["scores"]["All"]["f"] or "nan") for row in scored]
    known = [value for value in values if not math.isnan(value)]
    if not known:
        raise ConfigError(f"SPICE gave none of {len(values)} captions a score.")
    if len(known) < len(values):
        logger.warning("SPICE gave %d captions no score; left out", len(values) - len(known))
    return sum(known) / len(known)


def _package() -> Path | None:
    """Return the folder of pycocoevalcap, without importing it."""
    found = find_spec("pycocoevalcap")
    folders = list(found.submodule_search_locations or []) if found else []
    return Path(folders[0]) if folders else None


def _missing_models(folder: Path) -> list[str]:
    names = [f"{CORENLP}.jar", f"{CORENLP}-models.jar"]
    missing = " and ".join(name for name in names if not (folder / name).is_file())
    if not missing:
        return []
    return [
        f"SPICE needs {missing}: fetch {CORENLP_URL} (0.5 GB) and put that from it into {folder}"
    ]


def _write_lines(path: Path, captions: Iterable[Words]) -> None:
    path.write_text("".join(" ".join(words) + "\n" for words in captions), encoding="utf-8")


def _run_jar(jar: Path, *arguments: str, memory: str, folder: Path) -> str:
    """Run a Java program, and return what it prints.

    Raises:
        ConfigError: It failed, or took too long.
    """
    package = _package()
    assert package is not None, "check_java_metrics has found it"
    options = [f"-Xmx{memory}", "-Dfile.encoding=UTF-8", "-jar", str(package / jar)]
    try:
        done = subprocess.run(
            ["java", *options, *arguments],
            capture_output=True,
            cwd=folder,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"{jar.name} did not end within {TIMEOUT:.0f} s and was stopped. Score fewer "
            "captions, or leave it out of `metrics`."
        ) from error
    except OSError as error:
        raise ConfigError(f"java cannot be started: {error}") from error
    if done.returncode:
        reason = _first_lines(done.stderr.decode(errors="replace"))
        raise ConfigError(
            f"{jar.name} ended with code {done.returncode}: {reason}. It may take up to {memory} "
            "of memory."
        )
    return done.stdout.decode(errors="replace")


def _first_lines(text: str) -> str:
    """Return the first lines of a program's output, without Java's stack trace."""
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("at ", "..."))]
    return " / ".join(kept[:MAX_LINES]) or "nothing"
