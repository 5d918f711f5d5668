"""deploy/nginx.conf in a real nginx, in front of the real server, with a certificate of its own."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from chestxray.client import Client, NotReadyError, ProblemError, UnreachableError
from chestxray.service.http.keys import hash_of
from chestxray.service.settings import Settings
from factories.bundles import write_tiny_bundle
from factories.deployment import (
    NGINX_CONF,
    Proxy,
    Service,
    listens,
    nginx,
    service_process,
    wait_for,
)
from factories.pacs import free_port
from factories.requests import radiograph_png

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
MAX_BODY_BYTES = 2_000_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_process(
        tmp_path_factory.mktemp("service"), CHESTXRAY_MAX_BODY_BYTES=str(MAX_BODY_BYTES)
    ) as service:
        yield service


@pytest.fixture(scope="module")
def proxy(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with nginx(tmp_path_factory.mktemp("nginx"), service.port) as proxy:
        yield proxy


@pytest.fixture
def https(proxy: Proxy) -> Iterator[httpx.Client]:
    """Someone outside, without a key."""
    with httpx.Client(base_url=proxy.url, verify=proxy.trusted, timeout=30) as https:
        yield https


@pytest.fixture
def client(proxy: Proxy, service: Service) -> Iterator[Client]:
    """Someone outside, with a key."""
    with Client(proxy.url, api_key=service.key, ssl_context=proxy.trusted, retry_for_s=0) as client:
        yield client


def test_a_radiograph_is_answered_over_https_and_its_request_found_in_both_logs(
    https: httpx.Client, service: Service, proxy: Proxy
) -> None:
    response = https.post(
        "/predict",
        params={"heatmap": "true"},
        files={"file": ("roe_jane.png", radiograph_png())},
        headers={"X-API-Key": service.key, "X-Request-ID": "chosen-by-a-stranger"},
    )
    assert response.status_code == 200
    assert response.json()["heatmap"].startswith("data:image/png;base64,")
    (identity,) = response.headers.get_list("X-Request-ID")
    assert re.fullmatch("[0-9a-f]{32}", identity)
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
    (line,) = wait_for(lambda: [e for e in proxy.access_log if e["request_id"] == identity])
    assert (line["method"], line["route"], line["status"]) == ("POST", "/predict", 200)
    (entry,) = wait_for(lambda: service.log_entries(identity))
    assert (entry["method"], entry["route"], entry["status"]) == ("POST", "/predict", 200)
    assert entry["key"] == "radiology"
    table = PAGE.partition("\n| field |")[2].partition("\n\n")[0]
    first_cells = "".join(re.findall(r"^\|([^|]*)\|", table, flags=re.MULTILINE))
    assert set(entry) == set(re.findall(r"`(\w+)`", first_cells))


def test_the_logs_of_the_proxy_hold_no_query_and_no_path_that_does_not_exist(
    https: httpx.Client, proxy: Proxy
) -> None:
    https.get("/metadata", params={"patient": "roe_jane"})
    last = https.get("/roe_jane").headers["X-Request-ID"]
    wait_for(lambda: [e for e in proxy.access_log if e["request_id"] == last])
    assert "roe_jane" not in str(proxy.access_log)
    assert "roe_jane" not in proxy.error_log
    assert proxy.access_log[-1]["route"] == "other"


def test_the_client_reads_answers_through_the_proxy(client: Client) -> None:
    assert client.ready()
    assert client.metadata().name == "tiny"
    files = [radiograph_png(seed) for seed in range(8)]
    assert client.predict_batch(files) == [client.predict(file) for file in files]


@pytest.mark.parametrize(
    "target",
    [
        *("/metrics", "/metrics?", "/%6Detrics", "//metrics", "/docs/../metrics", "/docs/%2e%2e/x"),
        *("https://localhost/metrics", "/metadata/", "/predict/metrics", "/problem", "/nothing"),
    ],
)
def test_metrics_and_what_does_not_exist_are_not_there_for_the_outside(
    https: httpx.Client, service: Service, target: str
) -> None:
    headers = {"X-API-Key": service.key}
    inside = httpx.get(f"http://127.0.0.1:{service.port}/metrics", headers=headers, timeout=30)
    assert inside.status_code == 200
    as_written = {"target": target.encode()}
    outside = https.get("/", headers=headers, extensions=as_written)
    assert outside.status_code == 404
    assert_problem(outside, "not_found")


@pytest.mark.parametrize(("address", "status"), [("127.0.0.1", 200), ("10.1.2.3", 403)])
def test_the_page_says_how_another_machine_may_read_the_metrics(
    service: Service, tmp_path: Path, address: str, status: int
) -> None:
    (location,) = re.findall(r"`(location = /metrics {.*})`", PAGE)
    location = location.replace("10.1.2.3", address)

    (folder := tmp_path / "chestxray.d").mkdir()
    (folder / "metrics.conf").write_text(location, encoding="utf-8")
    with nginx(tmp_path, service.port) as proxy:
        headers = {"X-API-Key": service.key}
        answer = httpx.get(f"{proxy.url}/metrics", headers=headers, verify=proxy.trusted)
    assert answer.status_code == status
    assert ("chestxray_requests_total" in answer.text) == (status == 200)


def page_paths() -> list[str]:
    """All that the reading page loads."""
    package = REPOSITORY / "src" / "chestxray"
    web = package / "service" / "page" / "web"
    parts = {file.name for file in web.iterdir()} - {"index.html"}
    examples = [f"examples/{file.name}" for file in (package / "examples").iterdir()]
    return [f"/page/{name}" for name in ["settings.json", "colour-bar.png", *parts, *examples]]


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/docs/swagger-ui.css", "/openapi.json", "/livez", *sorted(page_paths())]
)
def test_what_is_open_is_open_through_the_proxy(https: httpx.Client, path: str) -> None:
    assert https.get(path, follow_redirects=True).status_code == 200


def test_without_a_key_the_services_own_problem_comes_through(https: httpx.Client) -> None:
    response = https.get("/metadata")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert_problem(response, "unauthorized")


def test_plain_http_leads_to_https_and_no_further(proxy: Proxy, service: Service) -> None:
    response = httpx.get(
        f"http://127.0.0.1:{proxy.http_port}/metadata",
        headers={"Host": "localhost", "X-API-Key": service.key},
        timeout=30,
    )
    assert response.status_code == 301
    assert response.headers["Location"] == "https://localhost/metadata"


@pytest.mark.parametrize("host", ["elsewhere.example", "localhost.elsewhere.example", ""])
def test_plain_http_leads_to_no_other_host_whatever_it_is_told(proxy: Proxy, host: str) -> None:
    with raw_connection(proxy.http_port) as connection:
        connection.sendall(b"GET /docs HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
        with closing(HTTPResponse(connection)) as response:
            response.begin()
            assert response.headers.get("Location") in {None, "https://localhost/docs"}
            assert (response.status, bool(host)) in {(301, True), (400, False)}


@pytest.mark.parametrize(
    "line",
    [
        b"GET /livez?\tx HTTP/1.1",
        b"GET /livez\t HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET livez HTTP/1.1",
        b"G\0T /livez HTTP/1.1",
        b"GET /livez HTTP/x.1",
        b"GET /%zz HTTP/1.1",
        b"\x00",
    ],
)
def test_a_malformed_request_line_is_the_clients_fault(proxy: Proxy, line: bytes) -> None:
    with (
        raw_connection(proxy.https_port) as connection,
        proxy.trusted.wrap_socket(connection, server_hostname="localhost") as secured,
    ):
        secured.sendall(line + b"\r\nHost: localhost\r\n\r\n")
        with closing(HTTPResponse(secured)) as response:
            response.begin()
            assert response.status == 400
            problem = json.loads(response.read())
            assert (problem["status"], problem["code"]) == (400, "malformed_request")


def raw_connection(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def test_an_address_that_asks_for_too_much_gets_429_and_when_to_come_back(
    service: Service, tmp_path: Path
) -> None:
    def hardly_any(text: str) -> str:
        return changed("burst=1000", "burst=2", changed("rate=1000r/s", "rate=1r/m", text))

    with (
        nginx(tmp_path, service.port, hardly_any) as proxy,
        httpx.Client(base_url=proxy.url, verify=proxy.trusted, timeout=30) as https,
    ):
        answers = [https.get("/livez") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].headers["Retry-After"] == "1"
    assert "Retry-After" not in answers[0].headers
    assert_problem(answers[-1], "overloaded")


def test_an_address_has_no_more_requests_under_way_than_it_may(
    service: Service, tmp_path: Path
) -> None:
    one = partial(changed, "chestxray_connections 100", "chestxray_connections 1")
    with nginx(tmp_path, service.port, one) as proxy, reading_late(proxy) as answer:
        with httpx.Client(base_url=proxy.url, verify=proxy.trusted, timeout=30) as https:
            assert_problem(https.get("/livez"), "overloaded")
        assert answer.read()


def changed(there: str, here: str, text: str) -> str:
    assert there in text
    return text.replace(there, here)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_good_versions_of_tls_offer_http_2(proxy: Proxy, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=proxy.folder / "chestxray.crt")
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", proxy.https_port), timeout=30) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as secured,
    ):
        assert secured.version() == version.name.replace("_", ".")
        assert secured.selected_alpn_protocol() == "h2"


def test_a_certificate_that_is_not_trusted_ends_the_clients_patience_at_once(proxy: Proxy) -> None:
    def no_pause(_: float) -> None:
        raise AssertionError("it was tried again")

    with Client(proxy.url, sleep=no_pause) as client, pytest.raises(UnreachableError) as caught:
        client.metadata()
    assert "certificate verify failed" in str(caught.value)


def test_nothing_of_a_request_is_written_to_disk_and_nginx_unhindered_would_write_it(
    client: Client, proxy: Proxy, service: Service, tmp_path: Path
) -> None:
    body = radiograph_png() + bytes(1_000_000)
    client.predict_batch([body])
    assert "temporary file" not in proxy.error_log
    with nginx(tmp_path, service.port, without("proxy_request_buffering off;")) as other:
        with Client(other.url, api_key=service.key, ssl_context=other.trusted) as spooled:
            spooled.predict_batch([body])
        assert "a client request body is buffered to a temporary file" in other.error_log


def test_nothing_of_an_answer_is_written_to_disk_and_nginx_unhindered_would_write_it(
    proxy: Proxy, service: Service, tmp_path: Path
) -> None:
    with reading_late(proxy) as answer:
        assert len(answer.read()) > 1_000_000
    assert "temporary file" not in proxy.error_log
    spooled = "an upstream response is buffered to a temporary file"
    with (
        nginx(tmp_path, service.port, without("proxy_max_temp_file_size 0;")) as other,
        reading_late(other),
    ):
        wait_for(lambda: spooled in other.error_log)


def without(directive: str) -> Callable[[str], str]:
    def removed(text: str) -> str:
        assert directive in text
        return text.replace(directive, "")

    return removed


@contextmanager
def reading_late(proxy: Proxy) -> Iterator[HTTPResponse]:
    """A long answer through a connection that holds little until it is read."""
    connection = HTTPSConnection("localhost", proxy.https_port, context=proxy.trusted)
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(30)
    plain.connect(("127.0.0.1", proxy.https_port))
    connection.sock = proxy.trusted.wrap_socket(plain, server_hostname="localhost")
    with closing(connection):
        connection.request("GET", "/docs/swagger-ui-bundle.js")
        with connection.getresponse() as answer:
            yield answer


def test_an_answer_before_the_body_has_been_read_reaches_the_sender(client: Client) -> None:
    with pytest.raises(ProblemError) as caught:
        client.predict(bytes(4 * MAX_BODY_BYTES))
    assert caught.value.problem.code == "too_many_bytes"
    assert str(MAX_BODY_BYTES) in caught.value.problem.detail  # the service's own words


def test_the_proxy_takes_bodies_as_long_as_the_service_does(proxy: Proxy, service: Service) -> None:
    assert "client_max_body_size 128m;" in NGINX_CONF.read_text(encoding="utf-8")
    longest = Settings.model_fields["max_body_bytes"].default
    assert longest == 128 * 1024 * 1024
    # What the proxy lets pass is here refused by the service, which takes less, in other words.
    of_the_service = f"the body has more than the {MAX_BODY_BYTES} bytes accepted"
    for n_bytes, detail in [(longest, of_the_service), (longest + 1, "Too many bytes")]:
        with closing(
            HTTPSConnection("localhost", proxy.https_port, timeout=30, context=proxy.trusted)
        ) as connection:
            connection.putrequest("POST", "/predict")
            connection.putheader("Content-Length", str(n_bytes))
            connection.putheader("Content-Type", "multipart/form-data; boundary=b")
            connection.putheader("X-API-Key", service.key)
            connection.endheaders()  # it is enough to announce them
            answer = connection.getresponse()
            problem = json.loads(answer.read())
            assert (answer.status, problem["code"]) == (413, "too_many_bytes")
            assert problem["detail"] == detail


def test_a_service_that_is_not_there_is_a_problem_and_not_ready(tmp_path: Path) -> None:
    with (
        nginx(tmp_path, free_port()) as proxy,
        Client(proxy.url, ssl_context=proxy.trusted, retry_for_s=0) as client,
    ):
        assert not client.ready()
        with pytest.raises(NotReadyError) as caught:
            client.predict(radiograph_png())
        assert caught.value.problem.status == 502
        assert caught.value.problem.code == "not_reachable"
        assert re.fullmatch("[0-9a-f]{32}", caught.value.problem.request_id or "")


def test_a_second_process_takes_over_without_a_request_lost(tmp_path: Path) -> None:
    """By the lines of the page that change nginx over and end the first process."""
    (lines,) = re.findall(r"^(sed -i .*\n(?:.*\n)*?kill .*)\n```", PAGE, flags=re.MULTILINE)
    folders = {name: tmp_path / name for name in ("first", "second", "bundle", "nginx")}
    for folder in folders.values():
        folder.mkdir()
    bundle = write_tiny_bundle(folders["bundle"], seed=1)
    with service_process(folders["first"]) as first, nginx(folders["nginx"], first.port) as proxy:
        same_key = {"CHESTXRAY_API_KEYS": f"radiology:{hash_of(first.key)}"}
        with service_process(folders["second"], bundle=bundle, **same_key) as second:
            here = {
                "127.0.0.1:8000": f"127.0.0.1:{first.port}",
                "127.0.0.1:8001": f"127.0.0.1:{second.port}",
                "/etc/nginx/conf.d/": f"{proxy.folder}/",
                "nginx -": f"nginx -c {proxy.folder}/nginx.conf -e {proxy.folder}/error.log -",
            }
            for there, instead in here.items():
                assert there in lines
                lines = lines.replace(there, instead)
            answered: list[str] = []
            changed = threading.Event()

            def ask() -> None:
                with Client(
                    proxy.url, api_key=first.key, ssl_context=proxy.trusted, retry_for_s=0
                ) as client:
                    while not changed.is_set():
                        answered.append(client.predict(radiograph_png()).model.bundle_sha256)

            with ThreadPoolExecutor() as askers:
                asking = [askers.submit(ask) for _ in range(3)]
                wait_for(lambda: len(answered) >= 10)
                try:
                    environment = os.environ | {"PID": str(first.pid)}
                    subprocess.run(["bash", "-ec", lines], env=environment, check=True)  # noqa: S607
                    wait_for(lambda: not listens(first.port))
                finally:
                    changed.set()
                for of in asking:
                    of.result()
            assert len(set(answered)) == 2


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (radiograph_png(), 200, None),
        (b"text", 415, "unsupported_format"),
    ],
)
def test_http_2_gets_the_same_answers(
    proxy: Proxy, service: Service, tmp_path: Path, data: bytes, status: int, code: str | None
) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    answer = over_http_2(proxy, service, "-F", f"file=@{file}")
    assert answer["status"] == status
    assert answer.get("code") == code


def test_http_2_is_told_by_the_proxy_what_is_too_long(proxy: Proxy, service: Service) -> None:
    answer = over_http_2(proxy, service, "-H", f"Content-Length: {2**27 + 1}", "-d", "x")
    assert (answer["status"], answer["code"]) == (413, "too_many_bytes")


def over_http_2(proxy: Proxy, service: Service, *options: str) -> dict[str, Any]:
    """What ``/predict`` answers to curl, with its status."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    key, trusted = f"X-API-Key: {service.key}", str(proxy.folder / "chestxray.crt")
    done = subprocess.run(
        [
            *("curl", "-s", "--http2", "--cacert", trusted, "-H", key, *options),
            *("-w", "\n%{http_version} %{http_code}", f"{proxy.url}/predict"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    body, _, last = done.stdout.rpartition("\n")
    version, status = last.split()
    assert version == "2"
    return json.loads(body) | {"status": int(status)}


def assert_problem(response: httpx.Response, code: str) -> None:
    """The whole of a problem, by whoever it was made."""
    problem = response.json()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
    assert problem["status"] == response.status_code
    assert problem["code"] == code
    assert problem["type"] == f"urn:chestxray:problem:{code}"
    assert response.headers.get_list("X-Request-ID") == [problem["request_id"]]
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert response.headers["Cache-Control"] == "no-store"
