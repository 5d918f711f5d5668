"""What the loss asks of the evidence: that it stands where the finding is.

The truth leaves free how evidence is spread, as long as the logit is right, and what is free comes
out as a pattern of position that all pictures share. Boxes and lungs bind it, and evidence of zero
comes to mean that there is nothing.

Does not: look at the logit (``training`` does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from chestxray.learning.augmentation import Batch

if TYPE_CHECKING:
    from chestxray.learning.config import EvidenceLoss


LEAST_SHARE = 1e-4
LEAST_COVERED = 0.05


def evidence_loss(evidence: Tensor, batch: Batch, weights: EvidenceLoss) -> Tensor:
    """The parts of ``weights`` for ``evidence`` (B, H, W), summed; means over all B pictures."""
    positive = batch.targets > 0.5
    boxed = batch.knows_boxes & positive
    in_lungs = batch.knows_lungs & positive & ~boxed
    within = torch.where(boxed[:, None, None], batch.boxes, batch.lungs)
    touched = functional.adaptive_max_pool2d(within[:, None], _cells(evidence))[:, 0]
    elsewhere = torch.where(positive[:, None, None], 1 - touched, 1.0)
    knows = boxed | in_lungs | ~positive
    per_picture = (
        weights.boxes * boxed * missed_share(evidence, batch.boxes)
        + weights.lungs * in_lungs * missed_share(evidence, batch.lungs)
        + weights.elsewhere * knows * (elsewhere * evidence.square()).mean((1, 2))
    )
    return per_picture.mean()


def missed_share(evidence: Tensor, region: Tensor) -> Tensor:
    """−log of the share of softmax(evidence) that lies in ``region`` (B, h, w) in [0, 1], (B,).

    A cell counts as far as the region covers it, relative to the cell that it covers most.
    """
    covered = functional.adaptive_avg_pool2d(region[:, None], _cells(evidence)).flatten(1)
    covered = covered / covered.amax(1, keepdim=True).clamp_min(LEAST_COVERED)
    share = (evidence.flatten(1).softmax(1) * covered).sum(1)
    return -torch.log(share.clamp(LEAST_SHARE, 1))


def _cells(evidence: Tensor) -> tuple[int, int]:
    return evidence.shape[1], evidence.shape[2]
