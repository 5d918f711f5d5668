"""Chest X-ray pneumonia classifier: from a folder of radiographs to an answer with its evidence.

Not a medical device. Read ``docs/architecture.md`` for the rooms and the way a request takes.
"""

__version__ = "0.1.0"
