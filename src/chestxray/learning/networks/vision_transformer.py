"""A Vision Transformer, written to be read.

Dosovitskiy et al.: "An Image is Worth 16x16 Words" (2021), arXiv 2010.11929, as a plain one: the
mean of the patches in place of a class token, and positions that start as sines and cosines
(Beyer, Zhai, Kolesnikov 2022, arXiv 2205.01580). Parameters have timm's names, which DeiT and DINO
share, so that published weights load by name.

Does not: read files (see ``initialise``), know about labels, thresholds or probabilities, or drop
anything at random: the data are augmented instead.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from chestxray.learning.networks.network import Network, standardise

EPSILON = 1e-6
"""Of every LayerNorm, as in the published weights."""


class PatchEmbedding(nn.Module):
    """Cuts a picture into squares and makes a vector of each: (B, 1, S, S) → (B, width, H, W)."""

    def __init__(self, patch_px: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, patch_px, patch_px)

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.proj(x)
        return patches


class Attention(nn.Module):
    """Every patch looks at every other, with several heads at once: (B, N, width) → the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, width / heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(seen.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear layers for each patch by itself: (B, N, width) → the same."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention, then the MLP, each added to what came in and normalised before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, EPSILON)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class VisionTransformer(Network):
    """A transformer over square patches of one grey channel, with one logit.

    The feature map is that of the normalised patches, so the evidence has S / ``patch_px`` cells a
    side, 14 at S = 224. Positions are kept for ``side_px`` and interpolated for other sizes.

    Raises:
        ValueError: S is no multiple of ``patch_px``.
    """

    def __init__(
        self, *, width: int, depth: int, heads: int, patch_px: int = 16, side_px: int = 224
    ) -> None:
        super().__init__()
        self.patch_px = patch_px
        self.patch_embed = PatchEmbedding(patch_px, width)
        self.pos_embed = nn.Parameter(_sines_and_cosines(side_px // patch_px, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, EPSILON)
        self.fc = nn.Linear(width, 1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
        # Patches as large as positions, when the input has a standard deviation of 1.
        nn.init.trunc_normal_(self.patch_embed.proj.weight, std=1 / self.patch_px)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        self._initialise_head()

    def positions(self, cells: int) -> Tensor:
        """The position embedding (1, cells², width) for ``cells`` patches a side."""
        kept = round(self.pos_embed.shape[1] ** 0.5)
        if cells == kept:
            return self.pos_embed
        grid = self.pos_embed.reshape(1, kept, kept, -1).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, (cells, cells), mode="bicubic", antialias=True)
        return grid.flatten(2).transpose(1, 2)

    def feature_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, 1, S, S) → the patches after half of the blocks and after the last norm, both
        (B, width, H, W)."""
        side_px = x.shape[-1]
        if side_px % self.patch_px:
            raise ValueError(f"inputs of {side_px} px: no multiple of {self.patch_px}")
        cells = side_px // self.patch_px
        patches: Tensor = self.patch_embed(standardise(x)).flatten(2).transpose(1, 2)
        half = len(self.blocks) // 2
        early = self.blocks[:half](patches + self.positions(cells))
        last = self.norm(self.blocks[half:](early))
        return _as_map(early, cells), _as_map(last, cells)


def _as_map(patches: Tensor, cells: int) -> Tensor:
    return patches.transpose(1, 2).reshape(patches.shape[0], -1, cells, cells)


def _sines_and_cosines(cells: int, width: int) -> Tensor:
    """Where each of ``cells``² patches lies, (1, cells², width): of x and of y, sine and cosine at
    ``width`` / 4 frequencies from 1 to 1/10,000 (Beyer 2022, section 2)."""
    frequencies = 10_000 ** -torch.linspace(0, 1, width // 4)
    y, x = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
    x_angles, y_angles = (at.flatten()[:, None] * frequencies for at in (x, y))
    waves = (x_angles.sin(), x_angles.cos(), y_angles.sin(), y_angles.cos())
    return torch.cat(waves, dim=1)[None]


def vit_s16() -> VisionTransformer:
    return VisionTransformer(width=384, depth=12, heads=6)
