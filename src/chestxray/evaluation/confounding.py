"""What the answers give away besides the finding: the view, the source, how much lung is seen.

Among radiographs of one label none of these should be told from the logit. Where one can, a high
AUROC on a data set in which it goes with the label says little of the finding. It is told only as
far as the logit has it: some views and sources have the graver cases.

Does not: tell the label from such things without a network (``shortcuts`` does).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from chestxray.dataset import Sample
from chestxray.evaluation.breakdown import Answered
from chestxray.evaluation.metrics import Bools, auroc, resample

_Sides = list[bool | None]
"""On which side of a question each radiograph is; None: on none."""


def given_away(
    answered: Answered, lungs: Mapping[str, Bools] | None = None
) -> list[dict[str, Any]]:
    """For each label and question ``what``: the AUROC of the logit for telling ``one`` from
    ``other``, near 0.5 where it gives nothing away.

    Asked are the two commonest views, each source against the rest, and a ``lungs`` mask above
    against below the median area of the label's.
    """
    rows = []
    for truth in (False, True):
        part = answered.part((answered.truth == truth).tolist())
        for what, one, other, sides in _questions(part.samples, lungs or {}):
            asked = part.part([side is not None for side in sides])
            is_one = np.array([side for side in sides if side is not None], dtype=bool)
            if not 0 < is_one.sum() < len(is_one):
                continue
            logit = np.array([prediction.logit for prediction in asked.predictions])
            told = resample(partial(auroc, is_one, logit), asked.subjects)
            rows.append(
                {
                    "truth": part.samples[0].truth,
                    "what": what,
                    "one": one,
                    "other": other,
                    "n_one": int(is_one.sum()),
                    "n_other": int((~is_one).sum()),
                    "auroc": told.figure(),
                }
            )
    return rows


def _questions(
    samples: Sequence[Sample], lungs: Mapping[str, Bools]
) -> Iterator[tuple[str, str, str, _Sides]]:
    views = Counter(s.view for s in samples if s.view is not None).most_common(2)
    for one, other in pairwise(sorted(view for view, _ in views)):
        sides: _Sides = [s.view == one if s.view in {one, other} else None for s in samples]
        yield "view", one, other, sides
    sources = sorted({s.source for s in samples})
    if len(sources) == 2:  # the second against the first would say the same again
        yield "source", sources[0], sources[1], [s.source == sources[0] for s in samples]
    elif len(sources) > 2:
        for source in sources:
            yield "source", source, "the rest", [s.source == source for s in samples]
    areas = [float(lungs[s.path].mean()) if s.path in lungs else None for s in samples]
    known = [area for area in areas if area is not None]
    if known:
        median = float(np.median(known))
        larger: _Sides = [None if area is None else area > median for area in areas]
        yield "mask area", "above the median", "the rest", larger
