"""Lists the samples of data sets: truth, subject, source, groups, duplicates, and splits.

A data set is one or several folders. ``samples`` lists them, with what ``labels.csv`` says of their
files; ``table`` reads such tables, and ``file_names`` finds the files that they mean. ``splits``
keeps subjects together. ``boxes`` and ``lungs`` read where in a radiograph a finding and the lungs
are.

Does not: decode an image, or judge whether a file is one (``imaging`` does).
"""

from chestxray.dataset.boxes import Box, read_boxes
from chestxray.dataset.lungs import read_lungs
from chestxray.dataset.samples import Labels, Sample, dataset_name, read_dataset
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
    "dataset_name",
    "duplicates",
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
