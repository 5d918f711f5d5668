"""Draws the loss and metric curves of a run.

Does not: keep state or need a screen (no pyplot).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def draw_curves(history: list[dict[str, Any]], file: Path) -> None:
    """Write a picture of the losses and the held-out AUROC over the epochs."""
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in (("train_loss", "training"), ("heldout_loss", "held out")):
        left.plot(epochs, [row[name] for row in history], marker=".", label=label)
    left.set(xlabel="epoch", ylabel="binary cross-entropy", yscale="log")
    left.legend(frameon=False)
    right.plot(epochs, [row["heldout_auroc"] for row in history], marker=".", color="C1")
    right.set(xlabel="epoch", ylabel="AUROC, held-out subjects")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
