"""Chest X-ray classifier: from a folder of radiographs to an answer with its evidence.

Not a medical device. Read ``docs/architecture.md`` for the rooms and the way a request takes.
"""

import os

# ONNX Runtime's builds report to their maker from the moment they are imported, unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
