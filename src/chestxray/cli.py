"""The command line: parses arguments, shows progress, prints answers.

Errors are one line on stderr. Exit codes: 0 all well, 1 failed, 2 wrong use, 3 some inputs of many
failed. Progress bars are shown on a terminal, never in a pipe.

Does not: compute anything. Each command imports what it needs when it runs, so that ``predict``
loads no web server and nothing but ``train`` and ``export`` loads PyTorch.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from typer.exceptions import TyperException

from chestxray import __version__
from chestxray.cli_pacs import pacs
from chestxray.errors import ChestXrayError, ConfigError, RequestError

if TYPE_CHECKING:
    from chestxray.archive.run import Tally
    from chestxray.assessment import Assessment
    from chestxray.dataset import Labels, Sample
    from chestxray.evaluation.evaluate import Scored
    from chestxray.inference import Manifest
    from chestxray.learning.learning_curve import BetterFrom, Step
    from chestxray.service.api.schemas import BatchElement

EXIT_FAILED, EXIT_WRONG_USE, EXIT_SOME_FAILED = 1, 2, 3
EXIT_INTERRUPTED = 128 + signal.SIGINT  # Typer's answer to Ctrl-C
SAY_EVERY_S = 30
"""How often `score` says how far it is where there is no terminal."""

app = typer.Typer(
    help="Chest X-ray classifier: train, judge, serve. Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(pacs)

DataFolders = Annotated[
    list[Path],
    typer.Option(
        exists=True, file_okay=False, help="folder of radiographs (docs/data.md); again for another"
    ),
]
BoxesFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="boxes.csv: where findings are"),
]
LungsFiles = Annotated[
    list[Path] | None,
    typer.Option(exists=True, dir_okay=False, help=".npz: where lungs are; again for another"),
]
BundleFolder = Annotated[
    Path | None, typer.Option(file_okay=False, help="folder of a bundle; unset, the shipped one")
]
BundleOptions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]DIR", help="folder of a bundle; again for another; unset, the shipped one"
    ),
]
ShadowOptions = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=DIR", help="folder of a bundle that assesses and is not shown"),
]
OperatingPointName = Annotated[str | None, typer.Option(help="screening, balanced, …")]
InputCheckChoice = Annotated[
    Literal["refuse", "warn"], typer.Option(help="what to do with what looks like no chest")
]
PopulationChoice = Annotated[
    Literal["refuse", "warn"], typer.Option(help="what to do with ages unknown to the model")
]
AcquisitionChoice = Annotated[
    Literal["refuse", "warn"],
    typer.Option(help="what to do with modalities, body parts and views unknown to the model"),
]
ExternalFolders = Annotated[
    list[Path] | None,
    typer.Option(exists=True, file_okay=False, help="another hospital's data, to be judged on too"),
]


def main() -> None:
    """Run the command line and exit."""
    try:
        code = app(standalone_mode=False)
        if code == EXIT_INTERRUPTED:
            _fail("interrupted", code)
    except TyperException as exc:
        code = _fail(exc.format_message(), EXIT_WRONG_USE)
    except typer.Abort:
        code = _fail("interrupted", EXIT_FAILED)
    except (ConfigError, RequestError) as exc:
        code = _fail(str(exc), EXIT_WRONG_USE)
    except ChestXrayError as exc:
        code = _fail(str(exc), EXIT_FAILED)
    except BrokenPipeError:  # the reader of our output has gone: nothing to say, nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except OSError as exc:
        code = _fail(f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc), EXIT_FAILED)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> int:
    print(f"chestxray: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return code


def _warn(message: str) -> None:
    print(f"chestxray: warning: {message}", file=sys.stderr)  # noqa: T201


def _say(message: str) -> None:
    print(message, flush=True)  # noqa: T201


@app.callback(invoke_without_command=True)
def chestxray(
    *, version: Annotated[bool, typer.Option("--version", help="print the version")] = False
) -> None:
    if version:
        _say(__version__)
        raise typer.Exit


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="address to listen on [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on [8000]")] = None,
    workers: Annotated[int | None, typer.Option(help="processes that serve [1]")] = None,
    bundle: BundleOptions = None,
    shadow: ShadowOptions = None,
) -> None:
    """Answer over HTTP. Everything else is set by CHESTXRAY_* (docs/configuration.md)."""
    from chestxray.service.server import serve as run_server  # noqa: PLC0415
    from chestxray.service.settings import load_settings  # noqa: PLC0415

    run_server(load_settings(host=host, port=port, workers=workers, bundle=bundle, shadow=shadow))


@app.command()
def key(name: Annotated[str, typer.Argument(help="whose key it is, in log and metrics")]) -> None:
    """Make an API key: to stdout the key, shown this once; to stderr what to set for it."""
    from chestxray.service.http.keys import hash_of, make_key  # noqa: PLC0415
    from chestxray.service.settings import PREFIX, Settings  # noqa: PLC0415

    made = make_key()
    setting = f"{name}:{hash_of(made)}"
    try:
        Settings(api_keys=setting)
    except ValueError:
        raise ConfigError("NAME must be letters, digits, '.', '-' or '_'") from None
    print(f"{PREFIX}API_KEYS={setting}", file=sys.stderr)  # noqa: T201
    _say(made)


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", exists=True, dir_okay=False)],
    *,
    json: Annotated[bool, typer.Option("--json", help="one predict_batch element a line")] = False,
    heatmap: Annotated[
        Path | None, typer.Option(file_okay=False, help="folder for a heatmap PNG of each file")
    ] = None,
    operating_point: OperatingPointName = None,
    input_check: InputCheckChoice = "refuse",
    population: PopulationChoice = "refuse",
    acquisition: AcquisitionChoice = "refuse",
    bundle: BundleOptions = None,
) -> None:
    """Answer for image files: label, calibrated probability, and why. A line for each bundle."""
    from chestxray.assessment import Registry, assess_all, named, read_bundles  # noqa: PLC0415
    from chestxray.imaging import load  # noqa: PLC0415
    from chestxray.service.api.answers import batch_element  # noqa: PLC0415
    from chestxray.service.api.schemas import PredictOptions  # noqa: PLC0415

    options = PredictOptions(
        operating_point=operating_point,
        heatmap=heatmap is not None,
        input_check=input_check,
        population=population,
        acquisition=acquisition,
    )
    registry = Registry.of(read_bundles(map(named, bundle or [])))
    assessors = registry.assessors(choices=options.choices)
    if heatmap is not None:
        heatmap.mkdir(parents=True, exist_ok=True)
    loads = [partial(load, file) for file in files]

    def elements(of: partial[bytes], assessments: list[Assessment]) -> list[BatchElement]:
        return [batch_element(str(of.args[0]), each, options) for each in assessments]

    unanswered = 0
    with _bar("predict", len(files), shown=len(files) > 8) as on_done:
        answered = assess_all(loads, assessors, elements, threads=_cores())
        for done, (name, of_file) in enumerate(
            zip(_heatmap_names(files), answered, strict=True), start=1
        ):
            on_done(done)
            failures = 0
            for assessor, element in zip(assessors, of_file, strict=True):
                asked = assessor.name if len(assessors) > 1 else None
                failures += _print_element(element, asked, as_json=json)
                if heatmap is not None:
                    _save_heatmap(element, heatmap / _heatmap_name(name, asked))
            unanswered += failures == len(assessors)  # others may be for other patients
    if unanswered:
        raise typer.Exit(EXIT_FAILED if unanswered == len(files) else EXIT_SOME_FAILED)


def _heatmap_name(name: str, model: str | None) -> str:
    # A bundle may call itself whatever it likes.
    of_model = "" if model is None else "." + re.sub(r"[^A-Za-z0-9_.-]", "_", model)
    return f"{name}{of_model}.heatmap.png"


def _print_element(element: BatchElement, model: str | None, *, as_json: bool) -> bool:
    """Print an element and say whether it is a failure; ``model`` where there are several."""
    from pydantic_core import to_json  # noqa: PLC0415

    from chestxray.service.api.schemas import FailedFile  # noqa: PLC0415

    if as_json:
        told = element.model_dump(mode="json")
        # The element of a failed file does not say which model failed.
        _say(to_json(told if model is None else {"model": model} | told).decode())
    if isinstance(element, FailedFile):
        asked = "" if model is None else f" ({model})"
        _fail(f"{element.filename}{asked}: {element.error.detail}", EXIT_FAILED)
        return True
    if as_json:
        return False
    answer = element.prediction
    asked = "" if model is None else f"{model}, "
    remarks = [*(["uncertain"] if answer.uncertain else []), *answer.warnings]
    _say(
        f"{answer.label:9} {answer.probability:6.1%}  (threshold {answer.threshold:.1%}, "
        f"{asked}{answer.operating_point})  {element.filename}"
        + "".join(f"  [{r}]" for r in remarks)
    )
    return False


def _heatmap_names(files: list[Path]) -> list[str]:
    """A name for each file's heatmap; files of one name in several folders are numbered."""
    seen: Counter[str] = Counter()
    names = []
    for file in files:
        seen[file.name] += 1
        number = f".{seen[file.name]}" if seen[file.name] > 1 else ""
        names.append(f"{file.name}{number}")
    return names


def _save_heatmap(element: BatchElement, file: Path) -> None:
    from chestxray.service.api.schemas import AnsweredFile  # noqa: PLC0415

    if isinstance(element, AnsweredFile) and element.prediction.heatmap is not None:
        file.write_bytes(base64.b64decode(element.prediction.heatmap.partition(",")[2]))


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", exists=True, dir_okay=False)],
    data: DataFolders,
    out: Annotated[Path, typer.Option(file_okay=False, help="folder of the run")],
    init: Annotated[
        Path | None, typer.Option(exists=True, help=".pth, .safetensors or an earlier run")
    ] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="cross-validate instead")] = None,
    seeds: Annotated[int | None, typer.Option(min=2, help="repeat with so many seeds")] = None,
    external: ExternalFolders = None,
    boxes: BoxesFile = None,
    lungs: LungsFiles = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE", help="learn from the other sources, be judged on this; again for more"
        ),
    ] = None,
) -> None:
    """Train as CONFIG says and export RUN/bundle. The same command resumes a killed run.

    Under torchrun several processes train together (docs/training.md).
    """
    from chestxray.dataset import leave_out as leave_sources_out  # noqa: PLC0415
    from chestxray.dataset import read_dataset  # noqa: PLC0415

    with _extra("train"):
        from chestxray.learning.config import read_config  # noqa: PLC0415
        from chestxray.learning.export import export as export_run  # noqa: PLC0415
        from chestxray.learning.inputs import read_where  # noqa: PLC0415
        from chestxray.learning.processes import together  # noqa: PLC0415
        from chestxray.learning.repetition import cross_validate, repeat  # noqa: PLC0415
        from chestxray.learning.training import no_progress  # noqa: PLC0415
        from chestxray.learning.training import train as train_run  # noqa: PLC0415

    told = read_config(config)
    labels = told.finding.labels
    samples, others = read_dataset(data, labels, say=_warn), _read_datasets(external, labels)
    where = read_where(samples, told, boxes, lungs or [])
    if leave_out:
        apart = leave_sources_out(samples, leave_out)
        samples = apart.train
        judging = [sample for sample in apart.heldout if sample.source not in told.lungs_only]
        if {sample.positive for sample in judging} != {False, True}:  # now, not after hours
            raise ConfigError(
                "--leave-out: what is left out must hold whole pictures of both labels"
            )
        others[" + ".join(leave_out)] = judging
    if folds is not None and seeds is not None:
        raise ConfigError("choose --folds or --seeds")
    repeated = folds is not None or seeds is not None
    with (
        together() as processes,
        _progress() if processes.first else nullcontext(no_progress) as progress,
    ):
        if repeated:
            repetition, times = (cross_validate, folds) if folds else (repeat, seeds or 0)
            result = repetition(
                told,
                samples,
                out,
                times,
                init=init,
                external=others,
                where=where,
                processes=processes,
                progress=progress,
                say=_say,
            )
        else:
            run = train_run(
                told,
                samples,
                out,
                init=init,
                where=where,
                processes=processes,
                progress=progress,
                say=_say,
            )
    if not processes.first:
        return
    if repeated:
        for name, figure in result["summary"].items():
            _say(f"{name:12} {figure['mean']:.4f} ± {figure['std']:.4f}")
        return
    with _progress() as progress:
        manifest = export_run(
            run, out / "bundle", external=others, boxes=where.boxes, progress=progress
        )
    _describe(manifest, out / "bundle")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", exists=True, file_okay=False)],
    data: DataFolders,
    out: Annotated[Path, typer.Option(file_okay=False, help="folder of the bundle")],
    precision: Annotated[Literal["int8", "fp32"], typer.Option()] = "int8",
    report: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="report.json to quote in the manifest"),
    ] = None,
    external: ExternalFolders = None,
    boxes: BoxesFile = None,
) -> None:
    """Export the finished RUN into a bundle, if it computes what the network computes."""
    from chestxray.dataset import read_dataset  # noqa: PLC0415

    with _extra("train"):
        from chestxray.learning.export import export as export_run  # noqa: PLC0415
        from chestxray.learning.inputs import read_where  # noqa: PLC0415
        from chestxray.learning.training import read_run, read_run_config  # noqa: PLC0415

    told = read_run_config(run)
    samples = read_dataset(data, told.finding.labels, say=_warn)
    finished = read_run(run, samples)
    with _progress() as progress:
        manifest = export_run(
            finished,
            out,
            precision=precision,
            external=_read_datasets(external, told.finding.labels),
            reports=report or [],
            boxes=read_where(samples, told, boxes, []).boxes,
            progress=progress,
        )
    _describe(manifest, out)


@app.command()
def calibrate(
    data: DataFolders,
    out: Annotated[Path, typer.Option(file_okay=False, help="folder of the new bundle")],
    bundle: BundleFolder = None,
) -> None:
    """Fit calibration and operating points to a site's own radiographs, as a new bundle."""
    from chestxray.inference import BUNDLED  # noqa: PLC0415
    from chestxray.learning.recalibration import recalibrate  # noqa: PLC0415

    with _progress() as progress:
        made = recalibrate(
            data, bundle or BUNDLED, out, threads=_cores(), progress=progress, say=_warn
        )
    _print_learning_curve(made.curve)
    _say_from_when_it_pays(made.better_from, made.n)
    _describe(made.manifest, out)


def _print_learning_curve(curve: list[Step]) -> None:
    if not curve:
        return
    _say("fitted to  log loss                      Youden index")
    _say("         n    old     new  better in       old     new  better in")
    for step in curve:
        compared = "     ".join(
            f"{c['old']:6.3f}  {c['new']:6.3f}  {c['better']:9.0%}"
            for c in (step["log_loss"], step["youden"])
        )
        _say(f"{step['n']:10} {compared}")


def _say_from_when_it_pays(better_from: BetterFrom, n: int) -> None:
    """One sentence for what is shown to pay, and a warning for what is not."""
    first = {"probabilities": better_from["probabilities"], "decisions": better_from["decisions"]}
    shown = " and ".join(
        f"for {what} from about {at} radiographs on" for what, at in first.items() if at is not None
    )
    if shown:
        _say(f"On this data recalibrating pays {shown}; you gave {n}.")
    missing = " and ".join(what for what, at in first.items() if at is None)
    if missing:
        _warn(
            f"not shown to pay for {missing} with the {n} radiographs given: "
            "keep the old bundle for these, or label more"
        )


@app.command()
def evaluate(
    data: DataFolders,
    out: Annotated[Path, typer.Option(file_okay=False, help="folder of the report")],
    bundle: BundleFolder = None,
    *,
    heldout: Annotated[
        bool, typer.Option("--heldout", help="only subjects the bundle was not trained on")
    ] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(help="judge radiographs of this source alone; again for more"),
    ] = None,
    prevalence: Annotated[
        float | None, typer.Option(help="of the finding where you work, for predictive values")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(file_okay=False, help="folder of a bundle to compare with")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="where findings are; unset, boxes.csv in the data's folders",
        ),
    ] = None,
    lungs: LungsFiles = None,
    stress: Annotated[
        bool, typer.Option("--stress", help="also score corrupted copies, over 60 of each file")
    ] = False,
) -> None:
    """Judge a bundle on labelled radiographs: report.html, report.json and predictions.csv."""
    from chestxray.dataset import (  # noqa: PLC0415
        counted,
        dataset_name,
        find_boxes,
        of_sources,
        read_dataset,
        read_lungs,
    )
    from chestxray.evaluation.comparison import check_finding, comparison_of  # noqa: PLC0415
    from chestxray.evaluation.confounding import given_away  # noqa: PLC0415
    from chestxray.evaluation.evaluate import (  # noqa: PLC0415
        answered_of,
        check_prevalence,
        report_of,
        score_samples,
        write_json,
        write_report,
    )
    from chestxray.evaluation.evidence import evidence_of  # noqa: PLC0415
    from chestxray.evaluation.heldout import heldout_samples  # noqa: PLC0415
    from chestxray.inference import BUNDLED, Predictor  # noqa: PLC0415

    with _extra("evaluate"):
        from chestxray.evaluation import stress as stressing  # noqa: PLC0415
        from chestxray.evaluation.report import write_html  # noqa: PLC0415
        from chestxray.evaluation.shortcuts import shortcut_floor  # noqa: PLC0415

    if prevalence is not None:
        check_prevalence(prevalence)
    predictor = Predictor.load(bundle or BUNDLED)
    other = Predictor.load(compare) if compare is not None else None
    if other is not None:
        check_finding(other.manifest, predictor.manifest.finding)
    samples = read_dataset(data, predictor.manifest.finding.labels, say=_warn)
    boxed = find_boxes(data, samples, boxes)
    masks = read_lungs(lungs, samples) if lungs else None
    if heldout:
        judged = [p.manifest for p in (predictor, other) if p is not None]
        samples = heldout_samples(samples, judged)
    if source:
        samples = of_sources(samples, source)

    def score(by: Predictor, what: str) -> list[Scored]:
        with _bar(what, len(samples)) as on_scored:
            return score_samples(by, samples, threads=_cores(), on_scored=on_scored)

    scored = score(predictor, "evaluate")
    if unread := [f"{s.sample.path}: {s.error.code}" for s in scored if s.error is not None]:
        _warn(f"files that cannot be read, left out: {counted(unread)}")
    split = "held-out subjects" if heldout else "all"
    dataset = ", ".join(source) if source else dataset_name(data)
    report = report_of(predictor, scored, dataset, split, prevalence=prevalence)
    if other is not None:
        report["comparison"] = comparison_of(predictor, scored, other, score(other, "compare"))
    report["evidence"] = evidence_of(predictor, scored, boxes=boxed, lungs=masks, threads=_cores())
    report["given_away"] = given_away(answered_of(scored), masks)
    report["shortcuts"] = shortcut_floor(samples, predictor.manifest, threads=_cores())
    write_report(report, scored, out)
    stressed = None
    if stress:
        with _bar("stress", stressing.n_predictions(samples)) as on_scored:
            stressed = stressing.stress(predictor, samples, threads=_cores(), on_scored=on_scored)
        write_json(stressed, out / "stress.json")
    write_html(report, scored, predictor.manifest, out / "report.html", stress=stressed)
    _say_figures(report)
    _say(f"{out / 'report.html'}")


def _say_figures(report: dict[str, Any]) -> None:
    from chestxray.evaluation.metrics import FIGURES  # noqa: PLC0415

    _say(
        f"n = {report['n']} of {report['n_subjects']} subjects, {report['n_refused']} refused, "
        f"{report['n_unreadable']} unreadable; operating point {report['operating_point']}"
    )
    for name in FIGURES:
        figure = report[name]
        if figure["value"] is not None:
            _say(
                f"{name:12} {figure['value']:.4f}  ({figure['ci_low']:.4f}–{figure['ci_high']:.4f})"
            )
    against = report["evidence"]["boxes"]
    if against is not None and against["n"]:
        _say(
            f"{against['n']} with boxes: the evidence peaks in one in "
            f"{against['pointing']['value']:.1%}, the best fixed point in "
            f"{against['best_fixed_point']['value']:.1%}; pixel AUPRC "
            f"{against['auprc']['value']:.3f}, chance {against['chance']['value']:.3f}"
        )


@app.command()
def score(
    source: Annotated[
        str, typer.Argument(metavar="PATH", help="folder, zip, tar, text file of paths, or glob")
    ],
    out: Annotated[Path, typer.Option(dir_okay=False, help="FILE.csv or FILE.parquet")],
    *,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="score on this Ray cluster; local: here")
    ] = None,
    operating_point: OperatingPointName = None,
    input_check: InputCheckChoice = "refuse",
    population: PopulationChoice = "refuse",
    acquisition: AcquisitionChoice = "refuse",
    bundle: BundleOptions = None,
) -> None:
    """Judge an archive, each file a row by each bundle. The same command resumes a killed run."""
    from chestxray.archive.run import score as score_archive  # noqa: PLC0415
    from chestxray.assessment import Choices, named, read_bundles  # noqa: PLC0415

    with _extra("parquet" if ray is None else "cluster"), _archive_progress() as watch:
        tally = score_archive(
            source,
            out,
            bundles=read_bundles(map(named, bundle or [])),
            choices=Choices(operating_point, input_check, population, acquisition),
            threads=_cores(),
            ray=ray,
            watch=watch,
        )
    _say(
        f"{out}: {tally.n_files:,} files, {tally.n_judged:,} judged, {tally.n_refused:,} refused, "
        f"{tally.n_unreadable:,} unreadable"
    )
    if tally.n_litter:
        _say(
            f"left out besides: {tally.n_litter:,} files that operating systems leave behind "
            "(.DS_Store, ._*, __MACOSX, Thumbs.db, desktop.ini, …)"
        )
    if tally.n_judged < tally.n_files:
        raise typer.Exit(EXIT_SOME_FAILED if tally.n_judged else EXIT_FAILED)


def _describe(manifest: Manifest, folder: Path) -> None:
    points = ", ".join(f"{n} {p.threshold:.3f}" for n, p in manifest.operating_points.items())
    _say(f"{folder}: {manifest.name}, {manifest.precision}; thresholds: {points}")


def _read_datasets(folders: list[Path] | None, labels: Labels) -> dict[str, list[Sample]]:
    from chestxray.dataset import read_dataset  # noqa: PLC0415

    return {
        folder.resolve().name: read_dataset(folder, labels, say=_warn) for folder in folders or []
    }


def _cores() -> int:
    from chestxray.service.settings import usable_cores  # noqa: PLC0415

    return usable_cores()


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say which extra is missing, instead of which module."""
    try:
        yield
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"{exc.name} is missing; it comes with the extra: pip install 'chestxray[{name}]'"
        ) from exc


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (what, done, total) that draws a bar on a terminal and nothing in a pipe."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task("", total=None)

        def show(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total)

        yield show


@contextmanager
def _archive_progress() -> Iterator[Callable[[Tally], None]]:
    """Rate, time left and refusals: in a bar on a terminal, on a line now and then in a pipe."""
    started = said = time.monotonic()

    def line(tally: Tally) -> str:
        rate = (tally.n_done - tally.n_before) / max(time.monotonic() - started, 1e-9)
        left_s = (tally.n_files - tally.n_done) / rate if rate else None
        return (
            f"{tally.n_done:,} of {tally.n_files:,} files, {rate:,.1f}/s, "
            f"{'?' if left_s is None else timedelta(seconds=round(left_s))} left, "
            f"{tally.n_refused:,} refused, {tally.n_unreadable:,} unreadable"
        )

    def say_now_and_then(tally: Tally) -> None:
        nonlocal said
        if time.monotonic() - said >= SAY_EVERY_S:
            said = time.monotonic()
            print(f"chestxray: {line(tally)}", file=sys.stderr, flush=True)  # noqa: T201

    console = Console(stderr=True)
    if not console.is_terminal:
        yield say_now_and_then
        return
    with Bars(
        BarColumn(), TextColumn("{task.description}"), console=console, transient=True
    ) as bars:
        task = bars.add_task("", total=None)
        yield lambda tally: bars.update(
            task, description=line(tally), completed=tally.n_done, total=tally.n_files
        )


@contextmanager
def _bar(what: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """A callback (done) for work of a known length."""
    if not shown:
        yield lambda _: None
        return
    with _progress() as show:
        yield lambda done: show(what, done, total)
