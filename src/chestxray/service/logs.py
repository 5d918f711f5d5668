"""The log: JSON lines for machines, plain lines on a terminal, the request's id in each.

No file name, pixel, patient's value or query gets here: what is logged of a request is chosen by
hand in ``http.boundary``, and of an unexpected error only its type and the lines of code it passed.

Does not: write files or rotate them (whoever starts the service does), or log health checks above
``debug``.
"""

from __future__ import annotations

import logging
import logging.config
import sys

from pythonjsonlogger.json import JsonFormatter

from chestxray.service.http.request_id import request_id


class RequestIdFilter(logging.Filter):
    """Gives each record the id of the request that it was made for, or ``None``."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


def json_formatter() -> JsonFormatter:
    """One JSON object a line: time, level, logger, message, request_id, and a record's extras."""
    return JsonFormatter(
        "{asctime}{levelname}{name}{message}{request_id}",
        style="{",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        json_ensure_ascii=False,
    )


def configure_logging(level: str) -> None:
    """Log to stderr from ``level`` up."""
    style = "plain" if sys.stderr.isatty() else "json"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"request_id": {"()": RequestIdFilter}},
            "formatters": {
                "json": {"()": json_formatter},
                "plain": {"format": "%(asctime)s %(levelname)-7s %(message)s"},
            },
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": style,
                    "filters": ["request_id"],
                }
            },
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {
                "chestxray": {"level": level.upper()},
                # Its messages of a broken connection or body quote what was sent.
                "python_multipart": {"level": "CRITICAL"},
                # Its errors are exceptions of ours, which ``http.boundary`` has logged without
                # their messages, and what the end of the process has cut off.
                "uvicorn": {"level": level.upper() if level == "debug" else "CRITICAL"},
            },
        }
    )
