"""``chestxray pacs``: the DICOM node on the command line.

Does not: compute anything; see ``cli``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from chestxray.errors import ConfigError

if TYPE_CHECKING:
    from chestxray.pacs.status import Status

pacs = typer.Typer(
    name="pacs",
    help="The DICOM node: receive radiographs, answer with a report and a heatmap.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file; see configs/pacs.toml")]


@pacs.command()
def run(config: Config) -> None:
    """Receive, judge and answer until SIGTERM or Ctrl-C."""
    try:
        from chestxray.pacs.config import read_config  # noqa: PLC0415
        from chestxray.pacs.node import run as run_node  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"{exc.name} is missing; it comes with the extra: pip install 'chestxray[pacs]'"
        ) from exc

    run_node(read_config(config))


@pacs.command()
def status(
    config: Config,
    *,
    json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Received, answered, refused by reason, waiting, failing; also while the node is down."""
    from chestxray.pacs.config import read_config  # noqa: PLC0415
    from chestxray.pacs.status import read_status  # noqa: PLC0415

    found = read_status(read_config(config))
    if json:
        print(found.model_dump_json(), flush=True)  # noqa: T201
    else:
        console = Console()
        console.print(_totals(found), _by_destination(found))


def _totals(status: Status) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("received", str(status.received))
    table.add_row("answered", str(status.answered))
    table.add_row("refused", str(sum(status.refused.values())), _by_reason(status.refused))
    table.add_row("waiting", str(status.waiting), _oldest(status.oldest_waiting_s))
    table.add_row("of these, to judge", str(status.to_judge))
    table.add_row("kept", str(status.kept))
    return table


def _by_destination(status: Status) -> Table:
    table = Table("destination", "answered", "waiting", "", "failing", box=box.SIMPLE_HEAD)
    for name, its in status.destinations.items():
        table.add_row(
            name,
            str(its.answered),
            str(its.waiting),
            _oldest(its.oldest_waiting_s),
            _by_reason(its.failing),
        )
    return table


def _by_reason(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()))


def _oldest(age_s: float | None) -> str:
    return "" if age_s is None else f"oldest {age_s:.0f} s"
