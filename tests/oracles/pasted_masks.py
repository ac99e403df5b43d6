"""A mask in a box, read pixel by pixel."""

import math

import numpy as np


def slow_paste(mask, box, height, width):
    """Return what bilinear interpolation of a mask (cells, cells) gives at each pixel's center.

    A cell's value lies at its center; outside the box all is 0.
    """
    x1, y1, x2, y2 = box
    cells, values = len(mask), np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            x = (column + 0.5 - x1) / (x2 - x1) * cells - 0.5
            y = (row + 0.5 - y1) / (y2 - y1) * cells - 0.5
            for j in (math.floor(y), math.floor(y) + 1):
                for i in (math.floor(x), math.floor(x) + 1):
                    if 0 <= i < cells and 0 <= j < cells:
                        weight = (1 - abs(x - i)) * (1 - abs(y - j))
                        values[row, column] += weight * mask[j, i]
    return values
