"""Failures of writing: a full disk, a kill, a second process, a truncated file."""

import contextlib
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from multiprocessing import Process
from pathlib import Path
from typing import Any

import pytest

from tests.small_disk import files_of_at_most
from virtex import files
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.zip_damage import zip_damage

BEGIN = "import os, signal, sys; from pathlib import Path; from virtex import files\n"
DIE_WHILE_WRITING = BEGIN + (
    "with files.replacing(Path(sys.argv[1])) as temporary:\n"
    "    temporary.write_text('new')\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
)
DIE_HOLDING = BEGIN + (
    "with files.locked(Path(sys.argv[1]), subject='the run'):\n"
    "    print(os.getpid(), flush=True)\n"
    "    sys.stdin.readline()\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
)
DIE_AFTER_A_FORK = (
    "    if os.fork() == 0:\n"
    "        sys.stdin.readline()\n"
    "        os._exit(0)\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
)
FORK_HOLDING = (
    f"{BEGIN}with files.locked(Path(sys.argv[1]), subject='the run'):\n{DIE_AFTER_A_FORK}"
)
FORK_WHILE_WRITING = f"{BEGIN}with files.replacing(Path(sys.argv[1])):\n{DIE_AFTER_A_FORK}"
WRITE = BEGIN + "files.write(Path(sys.argv[1]), 'by another process')"


def run(program: str, *arguments: object) -> int:
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)]).returncode


def test_a_written_file_has_the_content_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    files.write(path, "läuft")
    assert path.read_bytes() == "läuft".encode()
    files.write(path, b"bytes")
    assert path.read_bytes() == b"bytes"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_the_umask_determines_the_permissions_of_a_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.write(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_on_a_full_disk_the_file_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(path, "old")
    with files_of_at_most(10), pytest.raises(CheckpointError, match=r"cannot write.*too large"):
        files.write(path, "x" * 100, error=CheckpointError)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_created_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*file/inner: .*/file is no folder"):
        files.write(tmp_path / "file" / "inner", "text")


def test_an_error_while_writing_leaves_the_file_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(path, "old")
    with pytest.raises(AttributeError), files.replacing(path) as temporary:
        temporary.open("w").write(None.half)  # type: ignore[attr-defined]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_while_writing_leaves_the_file_unchanged_and_the_next_process_cleans_up(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    files.write(path, "old")
    assert run(DIE_WHILE_WRITING, path) == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    assert run(WRITE, tmp_path / "other") == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "other"]


def test_a_file_that_another_process_is_writing_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with files.replacing(path) as temporary:
        temporary.write_text("mine")
        assert run(WRITE, path) == 0
        assert path.read_text() == "by another process"
    assert path.read_text() == "mine"


def _write_often(path: Path, letter: str) -> None:
    for _ in range(100):
        files.write(path, letter * 10_000, durable=False)


def test_two_processes_that_write_one_file_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(path, "a" * 10_000)
    writers = [Process(target=_write_often, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_text() in ("a" * 10_000, "b" * 10_000)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_with_a_temporary_name_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("somebody else's")
    for name in ("file.tmp", f".file.{os.getpid()}", f".file.{os.getpid()}.tmp"):
        (tmp_path / name).symlink_to(other)
    files.write(tmp_path / "file", "text")
    assert other.read_text() == "somebody else's"


def test_a_folder_appears_whole_and_keeps_its_other_files(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for content in ("first", "second"):
        with files.replacing(path) as folder:
            folder.mkdir()
            (folder / "weights").write_text(content)
            assert not path.exists() or (path / "weights").read_text() == "first"
        (path / "notes").write_text("by hand")
    assert (path / "weights").read_text() == "second"
    assert (path / "notes").read_text() == "by hand"


def test_content_that_does_not_fit_is_not_appended_in_part(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab", buffering=0) as file, files_of_at_most(20):
        files.append(file, b"first line\n")
        with pytest.raises(OSError, match="too large"):
            files.append(file, b"a second line, too long\n")
        files.append(file, b"third\n")
    assert path.read_bytes() == b"first line\nthird\n"


def test_a_lock_names_its_holder_and_is_free_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "run" / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", DIE_HOLDING, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    process_id = holder.stdout.readline().strip()
    message = f"the run is in use by process {process_id} on {os.uname().nodename}"
    with pytest.raises(ConfigError, match=message), files.locked(path, subject="the run"):
        raise AssertionError("two processes hold one lock")
    holder.communicate("\n")
    assert holder.returncode == -signal.SIGKILL
    with files.locked(path, subject="the run"):
        assert path.read_text() == f"process {os.getpid()} on {os.uname().nodename}\n"


def test_a_lock_may_be_waited_for_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("virtex"), "propagate", True)
    caplog.set_level(logging.INFO, "virtex")
    path = tmp_path / ".lock"
    with contextlib.ExitStack() as holder:
        holder.enter_context(files.locked(path, subject="the run"))
        with (
            pytest.raises(ConfigError, match="in use by process"),
            files.locked(path, subject="the run", patience=0.5),
        ):
            raise AssertionError("two processes hold one lock")
        end = threading.Timer(0.5, holder.pop_all().close)
        end.start()
        with files.locked(path, subject="the run", patience=20):
            end.join()
    said = [record.getMessage() for record in caplog.records]
    assert said.count(said[0]) * 2 == len(said)  # more than one handler may have noted each


def test_a_process_that_the_holder_forked_does_not_hold_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    program = [sys.executable, "-c", FORK_HOLDING, str(path)]
    holder = subprocess.Popen(program, stdin=subprocess.PIPE)
    assert holder.wait() == -signal.SIGKILL
    for _ in range(100):  # the forked process closes the lock as soon as it runs
        with contextlib.suppress(ConfigError), files.locked(path, subject="the run"):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the forked process holds the lock")
    holder.communicate(b"\n")


def test_a_process_that_is_forked_during_a_write_does_not_keep_what_is_left_of_it(
    tmp_path: Path,
) -> None:
    program = [sys.executable, "-c", FORK_WHILE_WRITING, str(tmp_path / "file")]
    writer = subprocess.Popen(program, stdin=subprocess.PIPE)
    assert writer.wait() == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    for _ in range(100):  # the forked process closes the lock as soon as it runs
        files._remove_abandoned.cache_clear()
        files.write(tmp_path / "file", "new")
        if not left.exists():
            break
        time.sleep(0.05)
    else:
        pytest.fail("the forked process holds the lock")
    writer.communicate(b"\n")


def test_another_runtime_error_is_not_reported_as_a_full_disk(tmp_path: Path) -> None:
    error = RuntimeError("CUDA error")
    with pytest.raises(RuntimeError, match="CUDA"), files.replacing(tmp_path / "file"):
        raise error


def test_the_current_folder_can_be_a_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with files.replacing(Path()) as folder:
        folder.mkdir()
        (folder / "weights").write_text("new")
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]


def test_damage_in_a_zip_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner", b"content" * 100)
    assert zip_damage(path) is None
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    assert zip_damage(path) == "wrong checksum in inner"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", bytes(range(256)) * 100)
    deflated = bytearray(path.read_bytes())
    deflated[45:60] = b"\xff" * 15
    path.write_bytes(deflated)
    assert "decompressing" in str(zip_damage(path))
    path.write_bytes(content[:100])
    assert zip_damage(path) == "File is not a zip file"


def irregular_path(kind: str, folder: Path) -> Path:
    """Return a path of this kind, at which reading would wait, never end or fail."""
    path = folder / kind.replace(" ", "_")
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)  # sockets have short paths
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop of links":
        path.symlink_to(path)
    elif kind == "null byte":
        path = folder / "a\0b"
    elif kind == "name of no file":
        path = folder / "\ud800"
    elif kind == "long name":
        path = folder / ("x" * 5000)
    return path


REASONS = {
    "named pipe": "a named pipe, not a file",
    "socket": "a socket, not a file",
    "device": "a device, not a file",
    "folder": "a folder, not a file",
    "loop of links": "Too many levels of symbolic links",
    "null byte": "not a valid file name",
    "name of no file": "not a valid file name",
    "long name": "File name too long",
    "missing": "No such file or directory",
}


@pytest.mark.parametrize("kind", REASONS)
def test_only_a_regular_file_is_read_and_others_are_not_waited_for(
    kind: str, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        files.read_regular(irregular_path(kind, tmp_path))
    assert raised.value.strerror == REASONS[kind]


def test_a_regular_file_is_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"x" * 100_000):
        path.write_bytes(content)
        assert files.read_regular(path, limit=100_000) == content
    with pytest.raises(OSError, match="100,000 bytes are more than 99,999"):
        files.read_regular(path, limit=99_999)
    assert files.read_regular("/proc/self/status").startswith(b"Name:")  # its size is 0


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A folder of names below which nothing can be written."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "else")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return tmp_path


NO_FOLDERS = {
    "file": "file is no folder",
    "file/below": "file is no folder",
    "dangling": "dangling is no folder",
    "loop": "loop",
    "long" * 100: "name too long",
    "null\0byte": "null byte",
    "/proc/nothing/run": "No such file",
}


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("name", NO_FOLDERS)
def test_a_path_that_cannot_be_written_is_found_before_any_work(
    blocked: Path, name: str, is_file: bool
) -> None:
    before = sorted(blocked.iterdir())
    path = blocked / name / "model" if is_file else blocked / name
    with pytest.raises(ConfigError, match=rf"(?s)cannot write .*{NO_FOLDERS[name]}"):
        files.check_out(path, is_file=is_file)
    assert sorted(blocked.iterdir()) == before


def test_processes_check_a_new_folder_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, make = tmp_path / "new" / "out", tempfile.mkdtemp
    removals = iter([True, True])

    def other_removes_first(**options: Any) -> str:
        if next(removals, False):
            out.rmdir()
        return make(**options)

    monkeypatch.setattr(tempfile, "mkdtemp", other_removes_first)
    files.check_out(out, is_file=False)
    assert next(removals, None) is None
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("is_file", [True, False])
def test_a_full_disk_is_found_before_any_work(tmp_path: Path, is_file: bool) -> None:
    with files_of_at_most(100), pytest.raises(ConfigError, match="too large"):
        files.check_out(tmp_path / "new" / "out", is_file=is_file)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        files.check_out(tmp_path, is_file=True)


@pytest.mark.parametrize("is_file", [True, False])
def test_checking_a_path_leaves_nothing_behind(tmp_path: Path, is_file: bool) -> None:
    files.check_out(tmp_path / "new" / "out", is_file=is_file)
    assert not list(tmp_path.iterdir())
    (tmp_path / "old").mkdir()
    files.check_out(tmp_path / "old", is_file=False)
    assert not list((tmp_path / "old").iterdir())
