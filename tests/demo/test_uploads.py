import os
import stat

import pytest

from virtex.demo.uploads import GRADIO_FOLDERS, private_folder, taken
from virtex.errors import DataError


def test_the_folder_is_private_and_removed(monkeypatch):
    monkeypatch.setenv(GRADIO_FOLDERS[0], "before")
    with private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert all(os.environ[name] == str(folder) for name in GRADIO_FOLDERS)
        (folder / "left.jpg").touch()
    assert not folder.exists()
    assert os.environ[GRADIO_FOLDERS[0]] == "before"
    assert GRADIO_FOLDERS[1] not in os.environ


def test_an_upload_is_deleted_even_when_it_was_no_photo(tmp_path):
    (tmp_path / "photo").touch()
    with pytest.raises(ValueError, match="no photo"), taken(tmp_path, "photo"):
        raise ValueError("no photo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "", "folder", "gone", "link", 7, None]
)
def test_no_other_file_is_taken(name, tmp_path):
    uploads = tmp_path / "uploads"
    (uploads / "folder").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.touch()
    (uploads / "link").symlink_to(secret)
    with pytest.raises(DataError, match="did not arrive"), taken(uploads, name):
        pass
    assert secret.exists()
