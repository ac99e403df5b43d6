"""Images cut into patches."""

import pickle

import numpy as np
import torch

from virtex.data.example import Example
from virtex.data.jigsaw import GRID, JigsawTransform, cut
from virtex.data.transforms import ImageConfig

PLAIN = ImageConfig(size=56, flip_prob=0, jitter_prob=0)


def random_image(side: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (3, side, side)).astype(np.uint8))


def test_patches_as_large_as_their_cells_make_up_the_image() -> None:
    image = random_image(30)
    patches = torch.stack(cut(image, 10, np.random.default_rng(0)))  # (9, 3, 10, 10)
    rows = [torch.cat(list(row), dim=2) for row in patches.chunk(GRID)]
    assert torch.equal(torch.cat(rows, dim=1), image)


def test_each_patch_lies_in_its_cell_and_reaches_every_position() -> None:
    numbers = torch.arange(36).reshape(1, 6, 6)  # each cell is 2 x 2
    seen: list[set[int]] = [set() for _ in range(9)]
    for seed in range(60):
        for cell, patch in enumerate(cut(numbers, 1, np.random.default_rng(seed))):
            seen[cell].add(int(patch))
    for cell, places in enumerate(seen):
        row, column = divmod(cell, 3)
        block = numbers[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert places == set(block.flatten().tolist())


def test_a_puzzle_holds_every_patch_once_in_random_order() -> None:
    """Nine plain colors, one a cell: wherever the crop lies, no patch has two colors."""
    orders = set()
    for seed in range(20):
        shades = np.repeat(np.repeat(np.arange(9).reshape(3, 3) * 20, 40, 0), 40, 1)
        image = np.stack([shades] * 3, 2).astype(np.uint8)
        patches = JigsawTransform(PLAIN)(Example("1", image), np.random.default_rng(seed))
        orders.add(tuple(patches.float().mean((1, 2, 3)).argsort().tolist()))
    assert all(sorted(order) == list(range(9)) for order in orders)
    assert len(orders) == 20


def test_sizes_are_the_papers_at_224_and_in_proportion_elsewhere() -> None:
    example = Example("1", random_image(80).permute(1, 2, 0).numpy())
    for size, patch_size in ((224, 64), (112, 32), (64, 18), (32, 9)):
        transform = JigsawTransform(ImageConfig(size=size, validation_resize=size))
        patches = transform(example, np.random.default_rng(0))
        assert patches.shape == (9, 3, patch_size, patch_size)
        assert transform.patch_size == patch_size
        assert patches.dtype == torch.uint8


def test_patches_are_flipped_one_by_one() -> None:
    rising_to_the_right = np.ascontiguousarray(
        np.broadcast_to(np.arange(90, dtype=np.uint8)[None, :, None], (90, 90, 3))
    )
    config = ImageConfig(size=56, flip_prob=0.5, jitter_prob=0)
    transform, example = JigsawTransform(config), Example("1", rising_to_the_right)
    patches = transform(example, np.random.default_rng(1)).float()
    falling = patches[..., -1].mean((1, 2)) < patches[..., 0].mean((1, 2))
    assert 0 < falling.sum() < 9


def test_a_puzzle_follows_its_generator_alone() -> None:
    example = Example("1", random_image(90).permute(1, 2, 0).numpy())
    transform = pickle.loads(pickle.dumps(JigsawTransform(ImageConfig(size=56))))
    first, again, other = (transform(example, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
