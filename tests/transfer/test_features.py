"""Features: in the source's order, from an unchanged backbone, and cached under the right key."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.data.sources.layouts import jpeg, write
from tests.transfer.conftest import Noise
from virtex.data.example import Example, Subset
from virtex.data.sources.classes import ClassesSource
from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.transfer import features
from virtex.transfer.features import Extraction, extract_features, pixels_identity
from virtex.transfer.image_batches import WholeTransform

QUICK = Extraction(image_size=32, batch_size=4, num_workers=0)


def test_features_are_the_pooled_grids_in_the_sources_order(backbone: Backbone) -> None:
    source = Noise(6)
    transform = ValidationTransform(ImageConfig(size=32))
    images = torch.stack([transform(source[index]) for index in range(6)])
    with torch.no_grad():
        expected = backbone.eval().pooled(normalize(images)).numpy()
    features = extract_features(backbone, source, QUICK)
    assert features.values.dtype == np.float32
    assert features.indices.tolist() == list(range(6))
    np.testing.assert_allclose(features.values, expected, rtol=1e-4, atol=1e-5)


def test_neither_batches_nor_workers_change_features(backbone: Backbone) -> None:
    one = extract_features(backbone, Noise(7), QUICK)
    other = extract_features(backbone, Noise(7), replace(QUICK, batch_size=3, num_workers=2))
    np.testing.assert_allclose(other.values, one.values, rtol=1e-4, atol=1e-5)


def test_bad_images_have_no_row_and_shift_nothing(backbone: Backbone) -> None:
    whole = extract_features(backbone, Noise(9), QUICK)
    holed = extract_features(backbone, Noise(9, bad=(2, 3, 8)), QUICK)
    assert holed.indices.tolist() == [0, 1, 4, 5, 6, 7]
    np.testing.assert_allclose(holed.values, whole.values[holed.indices], rtol=1e-4, atol=1e-5)


def test_the_backbone_stays_as_it_was(backbone: Backbone) -> None:
    backbone.train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    strides = [parameter.stride() for parameter in backbone.parameters()]
    extract_features(backbone, Noise(5), QUICK)
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert [parameter.stride() for parameter in backbone.parameters()] == strides
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_bf16_features_are_near_those_of_fp32(backbone: Backbone) -> None:
    exact = extract_features(backbone, Noise(8), QUICK).values
    rough = extract_features(backbone, Noise(8), replace(QUICK, precision="bf16")).values
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.05 * np.abs(exact).max()


class Counting(Noise):
    """Counts how many examples were read."""

    num_read = 0

    def __getitem__(self, index: int):  # type: ignore[no-untyped-def,override]
        self.num_read += 1
        return super().__getitem__(index)


def test_a_second_call_reads_no_image(backbone: Backbone, tmp_path: Path) -> None:
    source, cached = Counting(6), replace(QUICK, cache=tmp_path)
    first = extract_features(backbone, source, cached)
    assert source.num_read == 6
    second = extract_features(backbone, source, replace(cached, batch_size=2))
    assert source.num_read == 6
    np.testing.assert_array_equal(second.values, first.values)
    np.testing.assert_array_equal(second.indices, first.indices)


def test_the_cache_distinguishes_weights_data_and_transforms(
    backbone: Backbone, tmp_path: Path
) -> None:
    cached = replace(QUICK, cache=tmp_path)
    source = Noise(6)
    extract_features(backbone, source, cached)
    for settings in (replace(cached, image_size=48), replace(cached, precision="bf16")):
        extract_features(backbone, source, settings)
    extract_features(backbone, Noise(5), cached)
    extract_features(backbone, Subset(source, [0, 1]), cached)
    extract_features(backbone, Subset(source, [0, 2]), cached)
    with torch.no_grad():
        next(backbone.buffers()).add_(1)
    extract_features(backbone, source, cached)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 7
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.suffix == ".safetensors" for path in files)


def test_images_that_were_replaced_in_place_have_features_of_their_own(
    backbone: Backbone, tmp_path: Path
) -> None:
    for folder, level in (("fog", 60), ("snow", 200)):
        for name in ("cat/1.jpg", "cat/2.jpg", "dog/3.jpg"):
            write(tmp_path / folder / name, jpeg(level))
    (tmp_path / "data").symlink_to("fog")
    cached = replace(QUICK, cache=tmp_path / "cache")

    def values() -> NDArray[np.float32]:
        return extract_features(backbone, ClassesSource(tmp_path / "data"), cached).values

    fog = values()
    (tmp_path / "data").unlink()
    (tmp_path / "data").symlink_to("snow")
    snow = values()
    assert not np.allclose(snow, fog)
    write(tmp_path / "snow/cat/2.jpg", jpeg(60))
    mixed = values()
    np.testing.assert_allclose(mixed, [snow[0], fog[1], snow[2]], rtol=1e-4, atol=1e-5)
    write(tmp_path / "snow/dog/readme.txt", "of another time")
    kept = len(list((tmp_path / "cache").iterdir()))
    np.testing.assert_array_equal(values(), mixed)
    assert kept == len(list((tmp_path / "cache").iterdir())) == 3


def test_files_of_a_large_set_are_compared_at_even_distances(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(features, "MOST_FILES", 3)
    for number in range(8):
        write(tmp_path / "cat" / f"{number}.jpg", jpeg())
    source = ClassesSource(tmp_path)
    first = pixels_identity(source)
    write(tmp_path / "cat/1.jpg", jpeg() + b"more")
    assert pixels_identity(source) == first  # 0, 3 and 6 are compared
    write(tmp_path / "cat/6.jpg", jpeg() + b"more")
    assert pixels_identity(source) != first


@pytest.mark.parametrize("damage", [b"", b"\x00" * 20, b"cut"])
def test_a_damaged_cache_is_computed_again(
    backbone: Backbone, tmp_path: Path, damage: bytes
) -> None:
    cached = replace(QUICK, cache=tmp_path)
    first = extract_features(backbone, Noise(3), cached)
    (path,) = tmp_path.glob("*/*")
    path.write_bytes(damage)
    again = extract_features(backbone, Noise(3), cached)
    np.testing.assert_array_equal(again.values, first.values)


def test_an_interrupted_extraction_resumes_with_the_next_chunk(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "CHUNK", 2)
    cached, source = replace(QUICK, cache=tmp_path), Noise(5, bad=(2,))
    whole = extract_features(backbone, source, replace(QUICK, cache=None))
    extract_features(backbone, source, cached)
    first, second, third = sorted(tmp_path.glob("*/*"))
    second.unlink()
    times = [path.stat().st_mtime_ns for path in (first, third)]
    again = extract_features(backbone, source, cached)
    assert second.is_file()
    assert [path.stat().st_mtime_ns for path in (first, third)] == times
    assert again.indices.tolist() == [0, 1, 3, 4]
    np.testing.assert_allclose(again.values, whole.values, atol=1e-5)


def test_a_backbone_keeps_the_digest_under_which_features_and_trainings_were_stored() -> None:
    options = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}
    small = Backbone(BackboneConfig(name="resnet18", options=options))
    with torch.no_grad():
        for value in small.state_dict().values():
            value.copy_(torch.arange(value.numel()).reshape(value.shape))
    stored = "726d41e9577862a7584f964f9a2a07b2f6475aba9c22960b687e5b8e5410d347"
    assert features.backbone_digest(small) == stored


def test_layers_and_whole_images_have_features_of_their_own(
    backbone: Backbone, tmp_path: Path
) -> None:
    cached, source = replace(QUICK, cache=tmp_path, image_size=64), Noise(5, bad=(1,))
    plain = extract_features(backbone, source, cached).values
    whole = extract_features(backbone, source, replace(cached, whole_image=True)).values
    early = extract_features(backbone, source, replace(cached, layer="stage1")).values
    wide = extract_features(backbone, source, replace(cached, feature_size=128)).values
    assert plain.shape == whole.shape == (4, 32)
    assert np.abs(plain - whole).max() > 1e-3
    assert (early.shape, wide.shape) == ((4, 8), (4, 128))
    np.testing.assert_allclose(wide.reshape(4, 32, 4).mean(2), plain, rtol=1e-4, atol=1e-5)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_whole_image_is_squeezed_into_the_square() -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 40:] = 200
    squeezed = WholeTransform(20)(Example("one", pixels))
    assert squeezed.shape == (3, 20, 20)
    assert (int(squeezed[:, :, :9].max()), int(squeezed[:, :, 11:].min())) == (0, 200)


def test_settings_of_earlier_results_are_unchanged() -> None:
    assert Extraction().settings() == {"image_size": 224, "precision": "fp32"}
    settings = Extraction(layer="stage2", feature_size=8192, whole_image=True).settings()
    assert settings["layer"] == "stage2"
    assert (settings["feature_size"], settings["whole_image"]) == (8192, True)
