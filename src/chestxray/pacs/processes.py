"""What every process of the node does first: a log without patients, and an end in good time.

pydicom, pynetdicom and highdicom quote values in what they log, warn of and raise. So nothing of
theirs is logged, and of an unexpected error only its type and the lines of code it passed.

Does not: start processes (``node`` does).
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
import warnings
from pathlib import Path
from types import TracebackType

from pynetdicom import _config as pynetdicom_config
from pynetdicom.association import Association

logger = logging.getLogger(__name__)


def configure_logging() -> None:
    """Log what ``chestxray`` says to stderr, and nothing that anybody else says."""
    logging.getLogger().addHandler(logging.NullHandler())  # or Python would print their warnings
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    ours = logging.getLogger("chestxray")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"  # nor format what nobody reads
    warnings.simplefilter("ignore")
    sys.excepthook = lambda _, exc, __: log_unexpected(exc)
    threading.excepthook = lambda thrown: log_unexpected(thrown.exc_value)


def log_unexpected(exc: BaseException | None) -> None:
    """Log an unexpected error without its message, which may quote a patient's data."""
    if exc is not None:
        logger.error("unexpected %s at %s", type(exc).__name__, _lines(exc.__traceback__))


def _lines(passed: TracebackType | None) -> str:
    frames = traceback.extract_tb(passed)
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)


POLL_S = 0.005


def slow_down_polling(association: Association) -> None:
    """Let an association look for something to do 200 times a second instead of 1,000.

    pynetdicom polls, and what that costs is a few hundredths of a core for each association.
    """
    association.dul._run_loop_delay = POLL_S


def begin_child() -> threading.Event:
    """Set a child of the node up; the event that is returned is set when it is to end.

    SIGTERM sets it. SIGINT is left to the node, which gets it from the same terminal. Should the
    node die without a word, the child does not outlive it.
    """
    configure_logging()
    stopping = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    return stopping


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
