import logging

import pytest

from virtex.demo.gallery import MAX_SEARCHED, NUM_EXAMPLES, find_images, open_gallery, spread
from virtex.errors import ConfigError


def names(paths):
    return [path.name for path in paths]


def touch(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def test_images_are_found_at_any_depth_of_a_folder(tmp_path):
    touch(tmp_path, "b/2.JPG", "a.png", "notes.txt")
    assert names(find_images("anything", tmp_path)) == ["a.png", "2.JPG"]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no images"):
        find_images("anything", tmp_path)


def test_a_run_shows_the_images_that_its_training_kept(tmp_path):
    touch(tmp_path, "run/samples/1.jpg", "run/checkpoints/step_00000001.pt", "run/weights.st")
    for init in ("run", "run/weights.st", "run/checkpoints/step_00000001.pt"):
        assert names(find_images(str(tmp_path / init), None)) == ["1.jpg"]


def test_the_quickstart_shows_its_scenes(tmp_path):
    touch(tmp_path, "run/samples/1.jpg", "scenes/val2017/7.jpg", "scenes/train2017/8.jpg")
    assert names(find_images(str(tmp_path / "run"), None)) == ["7.jpg"]


def test_a_model_without_images_has_an_empty_gallery(tmp_path, predictor):
    assert find_images(str(tmp_path), None) == []
    gallery = open_gallery(predictor, [])
    assert (gallery.encoded, gallery.examples) == (None, [])


def test_an_image_that_cannot_be_read_is_reported_and_left_out(
    gallery_folder, tmp_path, predictor, caplog
):
    paths = sorted(gallery_folder.iterdir())
    broken = tmp_path / "broken.jpg"
    broken.write_text("no image")
    with caplog.at_level(logging.WARNING, "virtex"):
        gallery = open_gallery(predictor, [paths[0], broken, *paths[1:]])
    assert list(gallery.paths) == paths
    assert len(gallery.thumbnails) == len(gallery.encoded.grids) == len(paths)
    assert "broken.jpg" in caplog.text


def test_of_many_images_a_subset_is_taken_at_even_distances(tmp_path):
    assert spread(range(10), 20) == list(range(10))
    assert spread(range(1000), 4) == [0, 250, 500, 750]
    assert NUM_EXAMPLES < MAX_SEARCHED


def test_files_that_are_no_images_are_counted_and_hidden_ones_left_out(tmp_path, caplog):
    touch(tmp_path, "a.jfif", "b.HEIC", "._a.jpg", ".cache/c.jpg")
    assert names(find_images("anything", tmp_path)) == ["a.jfif"]
    assert caplog.messages == [f"{tmp_path}: passed over 1 file: 1 .heic"]
