import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from virtex.engine import checkpoint
from virtex.engine.checkpoint import CheckpointFolder
from virtex.errors import CheckpointError


def write(folder: CheckpointFolder, *steps: int) -> None:
    for step in steps:
        checkpoint.save(folder.at(step), {"step": step, "task": {"w": torch.full((500,), step)}})


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints")


def test_a_saved_checkpoint_loads_unchanged(folder: CheckpointFolder) -> None:
    write(folder, 7)
    loaded = checkpoint.load(folder.at(7))
    assert loaded["version"] == checkpoint.VERSION
    assert torch.equal(loaded["task"]["w"], torch.full((500,), 7))
    assert [file.name for file in folder.path.iterdir()] == ["step_00000007.pt"]


def test_an_empty_folder_has_no_latest_checkpoint(folder: CheckpointFolder) -> None:
    assert folder.latest() is None


def test_temporary_and_foreign_files_are_not_checkpoints(
    folder: CheckpointFolder,
) -> None:
    write(folder, 3)
    (folder.path / "step_00000009.pt.tmp").write_bytes(b"half")
    (folder.path / "step_best.pt").write_bytes(b"mine")
    assert folder.steps() == [3]
    folder.remove_temporary()
    assert sorted(file.name for file in folder.path.iterdir()) == [
        "step_00000003.pt",
        "step_best.pt",
    ]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"\x03\x00\x00\x00\x00\x00\x00\x00" * 20) + 40] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, empty])
def test_a_damaged_checkpoint_is_reported_and_the_previous_one_loads(
    folder: CheckpointFolder, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, 2, 3)
    damage(folder.at(3))
    assert folder.latest()["step"] == 2
    assert "step_00000003.pt" in caplog.text
    assert "falling back" in caplog.text


def test_only_damaged_checkpoints_are_an_error(folder: CheckpointFolder) -> None:
    write(folder, 2, 3)
    for step in (2, 3):
        cut_short(folder.at(step))
    with pytest.raises(CheckpointError, match="all 2 checkpoints"):
        folder.latest()


def test_a_newer_format_is_an_error_and_no_fallback(folder: CheckpointFolder) -> None:
    write(folder, 2)
    torch.save({"version": checkpoint.VERSION + 1, "step": 3}, folder.at(3))
    with pytest.raises(CheckpointError, match="upgrade virtex"):
        folder.latest()


def test_code_in_a_file_is_never_run(folder: CheckpointFolder, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "trapped",)

    folder.path.mkdir()
    torch.save({"version": 1, "step": 1, "trap": Trap()}, folder.at(1))
    with pytest.raises(CheckpointError):
        checkpoint.load(folder.at(1))
    assert not (tmp_path / "trapped").exists()


def test_pruning_keeps_the_newest_and_the_multiples(folder: CheckpointFolder) -> None:
    write(folder, 2, 4, 6, 8, 10)
    folder.prune(newest=10, keep=2, keep_every=4)
    assert folder.steps() == [4, 8, 10]
    folder.prune(newest=10, keep=0, keep_every=0)
    assert folder.steps() == [4, 8, 10]


def test_pruning_never_removes_a_good_checkpoint_because_of_a_damaged_later_one(
    folder: CheckpointFolder,
) -> None:
    write(folder, 30, 35, 40)
    cut_short(folder.at(40))
    folder.prune(newest=35, keep=1, keep_every=0)
    assert folder.latest()["step"] == 35


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from virtex.engine import checkpoint
from virtex.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = checkpoint.CheckpointFolder(Path(sys.argv[1]))
checkpoint.save(folder.at(1), {"step": 1, "w": torch.ones(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    checkpoint.save(folder.at(2), {"step": 2, "w": torch.ones(1_000_000)})
except CheckpointError as error:
    print(error)
print(folder.latest()["step"], sorted(file.name for file in folder.path.iterdir()))
"""


DIE_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
import torch
from virtex.engine import checkpoint
class Deadly(dict):
    def items(self):
        os.kill(os.getpid(), signal.SIGKILL)
folder = checkpoint.CheckpointFolder(Path(sys.argv[1]))
checkpoint.save(folder.at(2), {"step": 2, "w": torch.ones(1_000_000), "deadly": Deadly(a=1)})
"""


def test_a_kill_while_saving_leaves_the_previous_checkpoint_and_no_garbage(
    folder: CheckpointFolder,
) -> None:
    write(folder, 1)
    done = subprocess.run([sys.executable, "-c", DIE_WHILE_SAVING, str(folder.path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert folder.latest()["step"] == 1
    assert len(list(folder.path.iterdir())) == 2
    subprocess.run([sys.executable, "-c", SAVE, str(folder.path)], check=True, timeout=60)
    assert sorted(file.name for file in folder.path.iterdir()) == [
        "step_00000001.pt",
        "step_00000002.pt",
    ]


SAVE = """
import sys
from pathlib import Path
from virtex.engine import checkpoint
folder = checkpoint.CheckpointFolder(Path(sys.argv[1]))
checkpoint.save(folder.at(2), {"step": 2})
"""


def test_a_full_disk_leaves_the_previous_checkpoint_and_no_garbage(tmp_path: Path) -> None:
    """A limit on file size is the nearest thing to a full disk that needs no mount."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), "1000000"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    message, state = done.stdout.strip().splitlines()
    assert "cannot write" in message
    assert "File too large" in message
    assert state == "1 ['step_00000001.pt']"
