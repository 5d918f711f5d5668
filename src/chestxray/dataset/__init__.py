"""Lists the samples of data sets: truth, subject, source, groups, duplicates, and splits.

A data set is one or several folders. ``layout`` finds what lies in them, ``labelled`` what the
folders or a ``labels.csv`` say of each file, and ``samples`` makes samples of both. ``table`` reads
such tables in any ``encoding``, ``file_names`` finds the files that they mean, ``litter`` knows
what is no part of a data set, and ``remarks`` count what is wrong or left out. ``splits`` keeps
subjects together. ``boxes`` and ``lungs`` read where in a radiograph a finding and the lungs are.

Does not: decode an image, or judge whether a file is one (``imaging`` does).
"""

from chestxray.dataset.boxes import Box, find_boxes, read_boxes
from chestxray.dataset.layout import Labels
from chestxray.dataset.lungs import read_lungs
from chestxray.dataset.remarks import counted
from chestxray.dataset.samples import Sample, dataset_name, read_dataset
from chestxray.dataset.splits import (
    Split,
    check_disjoint,
    duplicates,
    inseparable,
    leave_out,
    of_sources,
    read_split,
    split_folds,
    split_heldout,
    write_split,
)

__all__ = [
    "Box",
    "Labels",
    "Sample",
    "Split",
    "check_disjoint",
    "counted",
    "dataset_name",
    "duplicates",
    "find_boxes",
    "inseparable",
    "leave_out",
    "of_sources",
    "read_boxes",
    "read_dataset",
    "read_lungs",
    "read_split",
    "split_folds",
    "split_heldout",
    "write_split",
]
