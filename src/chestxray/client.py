"""A client of the service: typed answers, and patience with a server that is busy or restarting.

::

    with Client("https://xray.example.org", api_key=key) as client:
        prediction = client.predict("radiograph.jpeg", heatmap=True)

What can go wrong, by what a caller does about it::

    ClientError                the answer is not one of this service: is the address right?
    ├── UnreachableError       no answer: is it running, is the network up?
    └── ProblemError           the service says no, and why in its problem
        ├── RefusedError       422: readable, but nothing that the model may judge
        ├── UnauthorizedError  401: the API key is missing or wrong
        ├── OverloadedError    429: still busy after all patience
        └── NotReadyError      503, or 502 and 504 of a proxy: starting, ending, or not there

The service keeps nothing of a request, so a request may be sent twice: after 429, 502, 503 and 504,
not before the time that the server names, and after a broken connection, with growing pauses.

Does not: import anything of this package, log anything, tell the server the name of a file, or
follow redirects (an API key and a radiograph go to no address that was not given).
"""

from __future__ import annotations

import base64
import os
import random
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar

import httpx

Image: TypeAlias = bytes | str | os.PathLike[str]
"""A file's content, or the path of a file."""

Choice: TypeAlias = Literal["refuse", "warn"]
"""What becomes of a radiograph that the model does not know."""

BYTES_PER_REQUEST = 32 * 1024 * 1024
"""A request of a batch is sent before it has more, unless a single file has."""

CONNECT_TIMEOUT_S = 5.0
"""A server that takes longer to accept a connection is not there."""

PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
"""A pause between attempts is random, up to the first at first, then twice as long each time."""


# --- answers --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InputCheck:
    """``score`` in [0, 1] is higher for pictures more like a chest radiograph."""

    accepted: bool
    score: float


@dataclass(frozen=True, slots=True)
class Radiograph:
    """The file's format by its bytes, and its size in pixels when upright."""

    format: str
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class Model:
    """Which bundle answered: the name that asks for it, and its identity."""

    name: str
    bundle_sha256: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one radiograph.

    ``probability`` is the calibrated one of the model's finding; ``label`` is the positive one of
    its two from ``threshold`` up.
    ``heatmap`` and ``preview`` are PNG files, ``evidence`` signed numbers by row and column;
    ``None`` unless asked for. Unless ``evidence_validated``, nothing shows that heatmap and
    evidence point at the finding.
    """

    label: str
    probability: float
    threshold: float
    operating_point: str
    uncertain: bool
    input_check: InputCheck
    radiograph: Radiograph
    heatmap: bytes | None
    evidence: tuple[tuple[float, ...], ...] | None
    evidence_validated: bool
    preview: bytes | None
    warnings: tuple[str, ...]
    model: Model


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there is no answer. ``code`` is stable; ``title`` and ``detail`` are for people.

    ``request_id`` finds the request in the server's log; ``input_check`` is there when the input
    check refused.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = None
    input_check: InputCheck | None = None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A named threshold on the probability; ``rule`` says in words how it was found."""

    threshold: float
    rule: str


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the manifest says of the bundle that answers, and the ``version`` of the software.

    ``models`` are all that can be asked, the default first, and ``model`` is the one described.
    What is a mapping here is as the server says it.
    """

    version: str
    models: tuple[Mapping[str, Any], ...]
    model: str
    bundle_sha256: str
    format: int
    name: str
    created: str
    model_sha256: str
    precision: Literal["int8", "fp32"]
    finding: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    evidence: Mapping[str, Any]
    calibration: Mapping[str, Any]
    operating_points: Mapping[str, OperatingPoint]
    default_operating_point: str
    uncertainty: Mapping[str, Any]
    population: Mapping[str, Any]
    input_check: Mapping[str, Any]
    reference_answers: tuple[Mapping[str, Any], ...]
    training: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]


# --- errors ---------------------------------------------------------------------------------------


class ClientError(Exception):
    """Root of what this module raises on purpose, but for a ``ValueError`` on wrong use.

    ``retry_after_s`` is how long the server asks to wait before the next attempt, 0 if it does not
    say; ``None`` where the same request would end the same way.
    """

    retry_after_s: float | None = None


class UnreachableError(ClientError):
    """No answer came; the reason is the ``__cause__``, an exception of httpx."""


class ProblemError(ClientError):
    """The service says no; ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        said = self.problem
        named = f" (request {said.request_id})" if said.request_id else ""
        return f"{said.status} {said.title}: {said.detail}{named}"


class RefusedError(ProblemError):
    """422: readable, but nothing that the model may judge; ``problem.input_check`` may say more."""


class UnauthorizedError(ProblemError):
    """401: the API key is missing or wrong."""


class OverloadedError(ProblemError):
    """429: the service is busy, and was for as long as the client had patience."""


class NotReadyError(ProblemError):
    """503: the service starts or ends; 502 and 504: a proxy cannot reach it."""


ERRORS: dict[int, type[ProblemError]] = {
    401: UnauthorizedError,
    422: RefusedError,
    429: OverloadedError,
    502: NotReadyError,
    503: NotReadyError,
    504: NotReadyError,
}
"""The class for a status; :class:`ProblemError` for any other."""


# --- client ---------------------------------------------------------------------------------------


class Client:
    """One service. Threads may share a client; close it, or use it in a ``with`` statement.

    Args:
        base_url: where the service is, ``http://`` or ``https://``.
        api_key: sent as ``Authorization: Bearer``.
        timeout_s: longest silence of the server; an answer that takes longer is given up.
        retry_for_s: no further attempt begins so long after a request's first; 0 is one attempt.
        ssl_context: whom to trust; unset, the certificates of certifi or of ``SSL_CERT_FILE``.
        transport, sleep, clock, jitter: in place of the network, ``time.sleep`` (s),
            ``time.monotonic`` (s) and ``random.random`` ([0, 1)), for tests.

    Raises:
        ValueError: ``base_url`` is no such address, or ``api_key`` cannot be one.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        retry_for_s: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        headers = {"User-Agent": "chestxray.client"}
        if api_key is not None:
            if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
                # httpx would say so too, and quote the key.
                raise ValueError("an API key consists of printable ASCII characters, no spaces")
            headers["Authorization"] = f"Bearer {api_key}"
        self._http = httpx.Client(
            base_url=_checked(base_url),
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            verify=True if ssl_context is None else ssl_context,
            transport=transport,
        )
        self._retry_for_s = retry_for_s
        self._sleep, self._clock, self._jitter = sleep, clock, jitter

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def predict(
        self,
        image: Image,
        *,
        model: str | None = None,
        operating_point: str | None = None,
        heatmap: bool = False,
        evidence: bool = False,
        preview: bool = False,
        input_check: Choice = "refuse",
        population: Choice = "refuse",
        acquisition: Choice = "refuse",
    ) -> Prediction:
        """Judge one radiograph.

        Args:
            image: a DICOM file, JPEG or PNG.
            model: which model answers; unset, the server's default.
            operating_point: which threshold decides; unset, the model's default.
            heatmap, evidence, preview: what to add to the answer.
            input_check: ``warn`` answers for what does not look like a chest radiograph, too.
            population: ``warn`` answers for patients of an age that the model does not know, too.
            acquisition: ``warn`` answers for modalities, body parts and views that it does not
                know, too.

        Raises:
            ClientError: see the module.
            OSError: the file cannot be read.
        """
        query = _query(
            model=model,
            operating_point=operating_point,
            heatmap=heatmap,
            evidence=evidence,
            preview=preview,
            input_check=input_check,
            population=population,
            acquisition=acquisition,
        )
        answer = self._ask("POST", "/predict", query, [("file", _part(0, image))])
        return _understood(_prediction, answer)

    def predict_batch(
        self,
        images: Iterable[Image],
        *,
        model: str | None = None,
        operating_point: str | None = None,
        heatmap: bool = False,
        evidence: bool = False,
        preview: bool = False,
        input_check: Choice = "refuse",
        population: Choice = "refuse",
        acquisition: Choice = "refuse",
        files_per_request: int = 64,
    ) -> list[Prediction | Problem]:
        """Judge many radiographs: for each, in order, its answer or why there is none.

        Files are read when their request is made, one request after the other, so that any number
        may be given. An error that is no single file's fault ends the whole; what has been
        answered until then is lost.

        Args:
            images: as :meth:`predict` takes them; so are the others.
            files_per_request: most files in one request; fewer if they are large, or if the server
                takes fewer.

        Raises:
            ClientError: see the module; not for a bad file among others.
            OSError: a file cannot be read.
        """
        query = _query(
            model=model,
            operating_point=operating_point,
            heatmap=heatmap,
            evidence=evidence,
            preview=preview,
            input_check=input_check,
            population=population,
            acquisition=acquisition,
        )
        results: list[Prediction | Problem] = []
        for parts in _requests(images, files_per_request):
            results += self._batch(parts, query)
        return results

    def metadata(self, model: str | None = None) -> Metadata:
        """What the service says of a bundle that answers; unset, of its default.

        Raises:
            ClientError: see the module.
        """
        query = _query(model=model)
        return _understood(_metadata, self._ask("GET", "/metadata", query))

    def ready(self) -> bool:
        """Whether radiographs are accepted now; asks once, and nobody answering is ``False``.

        Raises:
            ProblemError: the answer is none that a service gives, ready or not.
        """
        try:
            self._attempt("GET", "/readyz", None, None)
        except (NotReadyError, UnreachableError):
            return False
        return True

    def _batch(self, parts: list[_Part], query: _Query) -> list[Prediction | Problem]:
        try:
            answer = self._ask("POST", "/predict_batch", query, [("files", p) for p in parts])
        except ProblemError as exc:
            if exc.problem.status != 413:
                raise
            if len(parts) == 1:
                return [exc.problem]
            middle = len(parts) // 2  # this server takes less at a time
            return self._batch(parts[:middle], query) + self._batch(parts[middle:], query)
        results = _understood(_batch_results, answer)
        if len(results) != len(parts):
            raise ClientError(f"{len(parts)} files were sent, {len(results)} were answered")
        return results

    def _ask(
        self, method: str, path: str, query: _Query | None = None, files: _Files | None = None
    ) -> Any:
        """The JSON of the answer, after as many attempts as there is patience for."""
        give_up_at = self._clock() + self._retry_for_s
        longest_s = PAUSE_S
        while True:
            try:
                return self._attempt(method, path, query, files)
            except ClientError as error:
                if error.retry_after_s is None:
                    raise
                # Random, so that those who were sent away together do not come back together.
                pause_s = error.retry_after_s + self._jitter() * longest_s
                if self._clock() + pause_s >= give_up_at:
                    raise
            self._sleep(pause_s)
            longest_s = min(LONGEST_PAUSE_S, 2 * longest_s)

    def _attempt(self, method: str, path: str, query: _Query | None, files: _Files | None) -> Any:
        try:
            response = self._http.request(method, path, params=query, files=files)
        except httpx.RequestError as exc:
            error = UnreachableError(f"no answer from {self._http.base_url.host}: {exc}")
            if isinstance(exc, _BROKEN) and not _distrusted(exc):
                error.retry_after_s = 0.0
            raise error from exc
        if response.status_code != 200:
            raise _problem_error(response)
        return _understood(httpx.Response.json, response)


_BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""What passes by itself. Not a read that timed out: a slow server is not helped by asking again."""


def _distrusted(exc: BaseException | None) -> bool:
    """Whether it is the server's certificate that broke the connection."""
    while exc is not None:
        if isinstance(exc, ssl.SSLCertVerificationError):
            return True
        exc = exc.__cause__ or exc.__context__  # not every layer says which it was
    return False


def _checked(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as exc:
        raise ValueError(f"base_url: {exc}") from exc
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("base_url must begin with http:// or https:// and a host")
    return url


# --- from a question to its parts -----------------------------------------------------------------

_Query: TypeAlias = dict[str, str | bool]
_Part: TypeAlias = tuple[str, bytes, str]
_Files: TypeAlias = list[tuple[str, _Part]]


def _query(**asked: str | bool | None) -> _Query:
    return {name: value for name, value in asked.items() if value is not None}


def _part(number: int, image: Image) -> _Part:
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    # A number for a name: file names hold patients' names, and the order tells who is who.
    return str(number), data, "application/octet-stream"


def _requests(images: Iterable[Image], files_per_request: int) -> Iterator[list[_Part]]:
    """The images as parts, so many together as one request may have."""
    parts: list[_Part] = []
    size_bytes = 0
    for number, image in enumerate(images):
        part = _part(number, image)
        full = len(parts) == files_per_request or size_bytes + len(part[1]) > BYTES_PER_REQUEST
        if parts and full:
            yield parts
            parts, size_bytes = [], 0
        parts.append(part)
        size_bytes += len(part[1])
    if parts:
        yield parts


# --- from JSON to an answer -----------------------------------------------------------------------


T = TypeVar("T")
A = TypeVar("A")


def _understood(read: Callable[[T], A], answer: T) -> A:
    """``read(answer)``.

    Raises:
        ClientError: ``read`` cannot make anything of it.
    """
    try:
        return read(answer)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ClientError("the answer is not one of this service") from exc


def _known(cls: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """What ``data`` has of the fields of ``cls``; a newer server may say more."""
    return {field.name: data[field.name] for field in fields(cls) if field.name in data}


def _prediction(data: Mapping[str, Any]) -> Prediction:
    evidence = data["evidence"]
    made = {
        "input_check": InputCheck(**_known(InputCheck, data["input_check"])),
        "radiograph": Radiograph(**_known(Radiograph, data["radiograph"])),
        "heatmap": _png(data["heatmap"]),
        "evidence": None if evidence is None else tuple(tuple(row) for row in evidence),
        "evidence_validated": data.get("evidence_validated", False),  # older services do not say
        "preview": _png(data["preview"]),
        "warnings": tuple(data["warnings"]),
        "model": Model(**_known(Model, data["model"])),
    }
    return Prediction(**_known(Prediction, data) | made)


def _png(data_url: str | None) -> bytes | None:
    if data_url is None:
        return None
    return base64.b64decode(data_url.removeprefix("data:image/png;base64,"), validate=True)


def _problem(data: Mapping[str, Any]) -> Problem:
    known = _known(Problem, data)
    if known.get("input_check") is not None:
        known["input_check"] = InputCheck(**_known(InputCheck, known["input_check"]))
    return Problem(**known)


def _batch_results(data: Mapping[str, Any]) -> list[Prediction | Problem]:
    return [
        _problem(element["error"]) if "error" in element else _prediction(element["prediction"])
        for element in data["results"]
    ]


def _metadata(data: Mapping[str, Any]) -> Metadata:
    made = {
        "operating_points": {
            name: OperatingPoint(**_known(OperatingPoint, point))
            for name, point in data["operating_points"].items()
        },
        "models": tuple(data["models"]),
        "reference_answers": tuple(data["reference_answers"]),
        "metrics": tuple(data["metrics"]),
    }
    return Metadata(**_known(Metadata, data) | made)


def _problem_error(response: httpx.Response) -> ProblemError:
    try:
        problem = _understood(_problem, _understood(httpx.Response.json, response))
    except ClientError:  # not the service speaks, but a proxy, or something else altogether
        moved = f" to {response.headers['Location']}" if response.has_redirect_location else ""
        problem = Problem(
            type="about:blank",
            title=f"{response.reason_phrase or 'No answer of this service'}{moved}",
            status=response.status_code,
            detail="these are not the service's own words",
            code="http_error",
            request_id=response.headers.get("X-Request-ID"),
        )
    error = ERRORS.get(response.status_code, ProblemError)(problem)
    if isinstance(error, OverloadedError | NotReadyError):
        error.retry_after_s = _retry_after_s(response.headers)
    return error


def _retry_after_s(headers: httpx.Headers) -> float:
    """Seconds from now until the server wants to be asked again; 0 if it does not say."""
    said = headers.get("Retry-After", "")
    if said.isascii() and said.isdigit():
        return float(said)
    try:  # a date, by the server's clock and not by ours
        until = parsedate_to_datetime(said) - parsedate_to_datetime(headers["Date"])
    except (KeyError, TypeError, ValueError):
        return 0.0
    return max(0.0, until.total_seconds())
