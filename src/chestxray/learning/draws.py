"""Random numbers of one batch: a function of (seed, epoch, step), whoever computes which part.

Numbers are always drawn for the whole batch, and a process keeps those of its own share. So the
number of processes that train together changes no picture, nor does an interruption.

Does not: know what the numbers are for.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor


class Draws:
    """Draws for some rows of a batch of ``n``, on ``device``; call by call the same.

    ``rows`` (B,) are those that this process computes, in a batch; None for all.
    """

    def __init__(
        self, key: tuple[int, ...], n: int, device: torch.device, rows: Tensor | None = None
    ) -> None:
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
        self._generator = torch.Generator(device).manual_seed(seed)
        self._key, self._n, self.device = key, n, device
        self._rows = torch.arange(n, device=device) if rows is None else rows

    def apart(self, what: str, rows: Tensor) -> Draws:
        """Draws of their own, for ``what``, for ``rows`` of these rows.

        How many are drawn here changes nothing there, so what no row needs can be left out.
        """
        key = (*self._key, zlib.crc32(what.encode()))
        return Draws(key, self._n, self.device, self._rows[rows])

    def uniform(self, low: float = 0.0, high: float = 1.0, *shape: int) -> Tensor:
        """(B, *shape) in [low, high)."""
        drawn = torch.rand(self._n, *shape, generator=self._generator, device=self.device)
        return (low + (high - low) * drawn)[self._rows]

    def factor(self, most: float, *shape: int) -> Tensor:
        """(B, *shape) in (1 / most, most], evenly in the logarithm."""
        return torch.exp(self.uniform(-1, 1, *shape) * math.log(most))

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) with mean 0 and standard deviation 1."""
        drawn = torch.randn(self._n, *shape, generator=self._generator, device=self.device)
        return drawn[self._rows]

    def happens(self, probability: float | Tensor) -> Tensor:
        """(B,) bool, true with ``probability``."""
        return self.uniform() < probability

    def choice(self, among: Tensor) -> Tensor:
        """(B,) of ``among`` (M,), with replacement."""
        return among[(self.uniform() * len(among)).long().clamp(max=len(among) - 1)]
