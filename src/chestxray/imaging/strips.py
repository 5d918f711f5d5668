"""Rows of a picture taken some at a time, where a step would need several pictures' memory at once.

Does not: know what is done with them.
"""

from collections.abc import Iterator

_STRIP_PIXELS = 2**18


def strips(shape: tuple[int, ...], pixels_each: int = 1) -> Iterator[slice]:
    """The rows of (H, W), from the first to the last, about 260,000 pixels at a time.

    ``pixels_each`` is how many each of them stands for.
    """
    height, width = shape
    step = max(1, _STRIP_PIXELS // max(1, width * pixels_each))
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))
