"""Where the numbers beside a plot's points stand, so that each can be read."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT = 570.0, 310.0
"""Pixels of the page's plot."""
_RADIUS = 4.5
"""Of a point, pixels."""
_DIGIT_WIDTH, _DIGIT_HEIGHT = 7.5, 12.0
_SIDES = ((1, -1), (1, 1), (-1, -1), (-1, 1), (0, -1), (0, 1), (1, 0), (-1, 0))
"""Right and up first: the usual place."""
_DISTANCES = (0.0, 11.0, 22.0, 33.0, 44.0, 55.0, 66.0)
"""Pixels between a point and its number, nearest first."""

_FAR = 1e4
_BEYOND = (
    (-_FAR, -_FAR, 0.0, _FAR),
    (WIDTH, -_FAR, _FAR, _FAR),
    (0.0, -_FAR, WIDTH, 0.0),
    (0.0, HEIGHT, WIDTH, _FAR),
)
"""All around the plot."""

Place = tuple[float, float]
"""Right and down, pixels."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom, pixels."""


def number_places(points: Sequence[tuple[float, float]]) -> list[Place]:
    """Where the numbers 1, 2, … of points stand: the first free place beside each.

    Where no place is free, the one with the least overlap.

    Args:
        points: x and y in percent of the axes, y from the top.

    Returns:
        The middle of each number, in pixels from its point.
    """
    centres = [(WIDTH * x / 100, HEIGHT * y / 100) for x, y in points]
    taken: list[Box] = [*_BEYOND, *(_box(x, y, _RADIUS, _RADIUS) for x, y in centres)]
    found: list[Place] = []
    for number, (x, y) in enumerate(centres, start=1):
        half, half_height = len(str(number)) * _DIGIT_WIDTH / 2, _DIGIT_HEIGHT / 2
        options = [
            (right * (_RADIUS + distance + half), down * (_RADIUS + distance + half_height))
            for distance in _DISTANCES
            for right, down in _SIDES
        ]
        boxes = [_box(x + right, y + down, half, half_height) for right, down in options]
        best = min(range(len(boxes)), key=lambda at: _covered(boxes[at], taken))
        found.append(options[best])
        taken.append(boxes[best])
    return found


def _box(x: float, y: float, half_width: float, half_height: float) -> Box:
    return x - half_width, y - half_height, x + half_width, y + half_height


def _covered(box: Box, others: Sequence[Box]) -> float:
    """Area of ``box`` that ``others`` cover, counted once for each."""
    return sum(
        max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in others
    )
