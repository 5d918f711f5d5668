"""One assessment for all who ask: a file's bytes in, what is decided of it and why out.

``decoding`` makes radiographs, ``policy`` says what is refused and what is a warning, ``assess``
puts both around a prediction, and ``registry`` holds the bundles by name.

Does not: know of HTTP, terminals, archives or DICOM's network.
"""

from chestxray.assessment.assess import Assessment, Assessor, Stage, Stopwatch, assess, assess_all
from chestxray.assessment.decoding import MemoryBudget
from chestxray.assessment.policy import Choice, Choices, Policy
from chestxray.assessment.registry import Registry, named, put_to_work, read_bundles

__all__ = [
    "Assessment",
    "Assessor",
    "Choice",
    "Choices",
    "MemoryBudget",
    "Policy",
    "Registry",
    "Stage",
    "Stopwatch",
    "assess",
    "assess_all",
    "named",
    "put_to_work",
    "read_bundles",
]
