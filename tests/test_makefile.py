"""The Makefile's targets that check what they are given."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in a folder; -n prints the commands only."""
    command = ["make", "-f", str(ROOT / "Makefile"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("captions", ["", "CAPTIONS=", "CAPTIONS=nowhere", "CAPTIONS=my photos"])
def test_a_captioner_is_not_trained_on_drawings_by_mistake(tmp_path: Path, captions: str) -> None:
    (tmp_path / "my photos").mkdir()  # without annotations
    done = make(tmp_path, "captioner", *([captions] if captions else []))
    assert done.returncode != 0
    assert "needs CAPTIONS=DIR" in done.stderr
    assert captions.partition("=")[2] in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["my photos"]


def test_the_gpu_report_takes_folders_with_spaces(tmp_path: Path) -> None:
    done = make(
        tmp_path, "-n", "-o", ".venv/installed", "gpu", "CAPTIONS=my photos", "VOC=d", "MINUTES=60"
    )
    expected = '--minutes 60 --out "gpu-report" --captions "my photos" --voc "d"'
    assert f"-m benchmarks.gpu {expected}" in done.stdout


def test_a_captioner_is_trained_on_a_folder_with_spaces(tmp_path: Path) -> None:
    (tmp_path / "my photos" / "annotations").mkdir(parents=True)
    done = make(tmp_path, "-n", "-o", ".venv/installed", "captioner", "CAPTIONS=my photos")
    assert '--data.root "my photos" --out captioner' in done.stdout
