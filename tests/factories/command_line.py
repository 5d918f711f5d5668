"""The command line in this process: what it prints, to which stream, and its exit code."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import NamedTuple

import pytest

from chestxray import cli


class Answer(NamedTuple):
    """What the command line left behind."""

    code: int
    out: str
    err: str


def chestxray(*arguments: object) -> Answer:
    """Run the command line in this process, its output no terminal."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["chestxray", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            cli.main()
    return Answer(int(exited.value.code or 0), out.getvalue(), err.getvalue())
