"""Hostile HTTP requests: what the functions below give is a function of (seed, index) alone.

``form_mutant`` makes an upload and breaks its form (RFC 7578), the framing of its body (RFC 9112)
or both; ``request_mutant`` breaks request lines and headers of any route. Each gives all bytes of
one connection, which are to be sent as they are.

Does not: send anything (``exchanges`` does).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from random import Random

from factories.images import jpeg, png, smooth
from factories.mutations import BLIND, GROWN_BYTES, Mutant, image_mutant

LARGE = 20_000
"""More than any parser takes for a line or a header."""


CLOSING = (b"Host: localhost", b"Connection: close")
"""Of most requests, so that nobody has to wait for what comes after the answer."""


@dataclass
class Part:
    headers: list[bytes]
    content: bytes


@dataclass
class Form:
    """A request with a multipart body, its members free to contradict one another."""

    target: bytes
    boundary: bytes
    content_type: bytes
    parts: list[Part]
    line_end: bytes = b"\r\n"
    before: bytes = b""
    after: bytes = b"\r\n"
    closed: bool = True
    headers: list[bytes] = field(default_factory=lambda: [*CLOSING])

    def body(self) -> bytes:
        """The parts between their boundaries, as many as there is room for."""
        nl = self.line_end
        body = bytearray(self.before)
        for part in self.parts:
            lines = [b"--" + self.boundary, *part.headers, b"", part.content, b""]
            body += nl.join(lines)
            if len(body) > GROWN_BYTES:
                break
        return bytes(body) + (b"--" + self.boundary + b"--" if self.closed else b"") + self.after


def form_mutant(seed: int, index: int) -> Mutant:
    """An upload to ``/predict`` or ``/predict_batch`` with one to three things wrong."""
    rng = Random(f"form {seed} {index}")
    form = _good_form(rng)
    used = []
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        breaks = rng.choice(FORM)
        breaks(rng, form)
        used.append(breaks.__name__)
    body = form.body()
    if not used or rng.random() < 0.15:
        operator = rng.choice(BLIND)
        body = operator(rng, body)
        used.append(operator.__name__)
    frame = rng.choice((*(content_length,) * 6, *FRAMING))
    if frame is not content_length:
        used.append(frame.__name__)
    headers = [*form.headers]
    if form.content_type:
        headers.append(b"Content-Type: " + form.content_type)
    if frame is more_behind or rng.random() < 0.1:
        headers = [header for header in headers if header != CLOSING[1]]
    fields, framed = frame(rng, body)
    data = _request(b"POST " + form.target + b" HTTP/1.1", [*headers, *fields], framed)
    return Mutant(form.target.partition(b"?")[0].decode(), tuple(used), data)


def request_mutant(seed: int, index: int) -> Mutant:
    """A request to any route, its line or headers mutated; some have others behind them."""
    rng = Random(f"request {seed} {index}")
    name = rng.choice(sorted(requests()))
    data = requests()[name]
    if rng.random() < 0.2:
        data = data.replace(CLOSING[1] + b"\r\n", b"")
    used = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        breaks = rng.choice(REQUEST)
        data = breaks(rng, data)
        used.append(breaks.__name__)
    return Mutant(name, tuple(used), data)


@cache
def requests() -> dict[str, bytes]:
    """One good request for each route, and some that no route is for, by name."""
    form = _good_form(Random("requests"))
    form.target = b"/predict"
    form.parts = form.parts[:1]
    body = form.body()
    fields = [*form.headers, b"Content-Type: " + form.content_type]
    fields.append(b"Content-Length: %d" % len(body))
    gets = ("/livez", "/readyz", "/metadata", "/metrics", "/docs", "/openapi.json", "/none")
    gets += ("/", "/page/main.js", "/page/settings.json", "/page/examples/normal-1.jpeg")
    lines = {path: f"GET {path} HTTP/1.1".encode() for path in gets}
    lines |= {f"OPTIONS {path}": f"OPTIONS {path} HTTP/1.1".encode() for path in ("/predict", "*")}
    made = {name: _request(line, [*CLOSING], b"") for name, line in lines.items()}
    line = b"POST /predict?heatmap=true&operating_point=balanced HTTP/1.1"
    return made | {"/predict": _request(line, fields, body)}


def _request(line: bytes, headers: list[bytes], body: bytes) -> bytes:
    return b"\r\n".join([line, *headers, b"", body])


@cache
def _good_files() -> tuple[bytes, ...]:
    grey = smooth(32, 32)
    return jpeg(grey), png(grey), jpeg(grey, progressive=True)


def _good_form(rng: Random) -> Form:
    batch = rng.random() < 0.4
    boundary = rng.choice((b"b0undary", b"----WebKitFormBoundary7MA4YWxkTrZu0gW", b"-"))
    name = b"files" if batch else b"file"
    disposition = b'Content-Disposition: form-data; name="%s"; filename="a.jpg"' % name
    parts = [
        Part([disposition, b"Content-Type: image/jpeg"], rng.choice(_good_files()))
        for _ in range(rng.choice((1, 2, 5)) if batch else 1)
    ]
    target = b"/predict_batch" if batch else b"/predict"
    query = rng.choice((b"", b"", b"", b"?input_check=warn", b"?heatmap=true&evidence=true"))
    return Form(target + query, boundary, b"multipart/form-data; boundary=" + boundary, parts)


# --- what breaks a form ---------------------------------------------------------------------------


def boundary(rng: Random, form: Form) -> None:
    """Another boundary, rightly declared, that few parsers meet."""
    form.boundary = rng.choice(
        (
            b"",
            b"x",
            b"x" * 70,
            b"x" * 71,
            b"x" * 257,
            b"x" * LARGE,
            b"--",
            b"a b",
            b"'()+_,-./:=?",
            b'quo"te',
            b"semi;colon",
            "grün".encode(),
            b"\xff\xfe",
            b"nul\0",
            b"\r\n",
            form.parts[0].content[:20] if form.parts else b"",
            rng.randbytes(rng.randrange(1, 70)),
        )
    )
    quoted = b'"' + form.boundary + b'"'
    form.content_type = b"multipart/form-data; boundary=" + rng.choice((form.boundary, quoted))


def content_type(rng: Random, form: Form) -> None:
    """A declaration that says something else, or nothing, or the same in another way."""
    known = form.boundary
    form.content_type = rng.choice(
        (
            b"",
            b"multipart/form-data",
            b"multipart/form-data; boundary",
            b"multipart/form-data; boundary=",
            b"multipart/form-data; boundary=other",
            b"multipart/form-data; boundary=" + known[:-1],
            b"multipart/form-data; boundary=" + known + b"; boundary=other",
            b"multipart/form-data; boundary=other; boundary=" + known,
            b"multipart/form-data; boundary*=UTF-8''" + known,
            b"multipart/form-data; boundary*0=" + known[:2] + b"; boundary*1=" + known[2:],
            b"multipart/form-data; charset=utf-16; boundary=" + known,
            b"MULTIPART/Form-Data; BOUNDARY=" + known,
            b"multipart/form-data;boundary=" + known + b";",
            b" multipart/form-data ; boundary = " + known,
            b"multipart/form-data, boundary=" + known,
            b"multipart/mixed; boundary=" + known,
            b"multipart/form-data; boundary=" + known + b"\0",
            b"multipart/form-data; x=" + b"y" * LARGE + b"; boundary=" + known,
            b"multipart/form-data" + b"; a=b" * 500 + b"; boundary=" + known,
            b"application/x-www-form-urlencoded",
            b"image/jpeg",
            b"/",
            rng.randbytes(20).replace(b"\r", b"").replace(b"\n", b""),
        )
    )


FILE_NAMES = (
    b'filename=""',
    b"filename=",
    b"filename",
    b"filename=a.jpg",
    b'filename="a',
    b'filename="a\\"b.jpg"',
    b'filename="C:\\\\dir\\\\a.jpg"',
    b'filename="../../etc/passwd"',
    b'filename="a;b=c.jpg"',
    b'filename="a%22%0d%0a.jpg"',
    b'filename="nul\0.jpg"',
    b'filename="tab\t.jpg"',
    b'filename="\xff\xfe\x80.jpg"',
    'filename="Größe 肺.jpg"'.encode(),
    'filename="Größe.jpg"'.encode("latin-1"),
    b"filename*=UTF-8''%e2%82%ac%20a.jpg",
    b"filename*=utf-8'de'%ff%fe",
    b"filename*=no-such-charset''a",
    b"filename*=UTF-8",
    b"filename*=UTF-8''%zz%",
    b"filename*=UTF-8''%00",
    b"filename*=UTF-16''%d8%00",
    b'filename*0="a"; filename*1="b.jpg"',
    b"filename*0*=UTF-8''%41; filename*2*=%42",
    b'filename="a.jpg"; filename="b.jpg"',
    b"filename=\"a.jpg\"; filename*=UTF-8''b.jpg",
    b"filename==?utf-8?B?YQ==?=",
    b'filename="' + b"x" * 300 + b'"',
    b'filename="' + b"x" * LARGE + b'"',
    b'filename="\xed\xa0\x80"',  # a surrogate in UTF-8
    b'filename="\xf0\x9f\xab\x81"',
    b"FileName=a.jpg",
    b"",
)


def file_name(rng: Random, form: Form) -> None:
    for part in _some(rng, form.parts):
        name = b"files" if b"batch" in form.target else b"file"
        named = b'Content-Disposition: form-data; name="%s"; ' % name
        part.headers = [named + rng.choice(FILE_NAMES), *part.headers[1:]]


def disposition(rng: Random, form: Form) -> None:
    for part in _some(rng, form.parts):
        good = part.headers[0] if part.headers else b""
        broken = (
            [],
            [good, good],
            [good.replace(b"form-data", b"attachment")],
            [good.replace(b"form-data", b"")],
            [good.replace(b"form-data; ", b"")],
            [good.replace(b'name="file', b'name="picture')],
            [good.replace(b'name="file', b'name="FILE')],
            [good.replace(b'name="', b'name ="')],
            [good.replace(b'"', b"'")],
            [good.replace(b'"', b"")],
            [good.replace(b'"', b"", 1)],
            [good.replace(b"; ", b";")],
            [good.replace(b"; ", b"\r\n ")],
            [good.replace(b"; ", b" ; ; ")],
            [good.replace(b":", b"")],
            [good.replace(b":", b" :")],
            [good.replace(b": ", b":")],
            [good.replace(b"-", b"\0")],
            [good.lower()],
            [good.upper()],
            [good + b'; name="other"'],
            [good + b"; name*=UTF-8''other"],
            [good + b"; x" * 1000],
            [b"Content-Disposition: "],
            [b"Content-Disposition: form-data"],
            [b'Content-Disposition: form-data; name=""'],
            [rng.choice(BLIND)(rng, good)],
        )
        part.headers = rng.choice(broken) + part.headers[1:]


def part_headers(rng: Random, form: Form) -> None:
    """Headers in the parts: too many, too long, without colon, folded, or lying."""
    added = (
        [b"X-Long: " + b"v" * LARGE],
        [b"X" * LARGE + b": v"],
        [b"X-Many: v"] * 1000,
        [b"no colon here"],
        [b": no name"],
        [b" folded"],
        [b""],
        [b"\0: nul"],
        ["X-Größe: 1".encode()],
        [b"X-Control: \x01\x02\x7f"],
        [b"Content-Length: 5"],
        [b"Content-Length: -1"],
        [b"Content-Transfer-Encoding: base64"],
        [b"Content-Transfer-Encoding: quoted-printable"],
        [b"Content-Encoding: gzip"],
        [b"Content-Type: multipart/mixed; boundary=inner"],
        [b"Content-Type: " + b"x" * 300],
        [b"X-Bare: a\rb"],
        [b"X-Bare: a\nb"],
    )
    for part in _some(rng, form.parts):
        part.headers = rng.choice((lambda a, h: a + h, lambda a, h: h + a))(
            rng.choice(added), part.headers
        )


def contents(rng: Random, form: Form) -> None:
    """Contents with mutants of images in them, or with what looks like the end of the part."""
    edge = b"\r\n--" + form.boundary
    for part in _some(rng, form.parts):
        mutant = image_mutant(rng.randrange(2**32), 0).data
        part.content = rng.choice(
            (
                mutant,
                b"",
                b"\r\n",
                b"-" * 1000,
                edge[:-1] * 50,
                edge + b"x" + part.content,
                edge + b"--" + part.content,
                edge + b"\r\n\r\n" + part.content,
                b"\r" * 1000,
                b"\n--" + form.boundary + b"\n" + part.content,
                part.content + b"\r\n-",
                bytes(100_000),
            )
        )


def nested(rng: Random, form: Form) -> None:
    for part in _some(rng, form.parts):
        inner = Form(b"", rng.choice((b"inner", form.boundary)), b"", [Part(part.headers, b"x")])
        kind = b"Content-Type: multipart/mixed; boundary=" + inner.boundary
        part.headers = [*part.headers[:1], kind]
        part.content = inner.body() * rng.choice((1, 1, 30))


def number_of_parts(rng: Random, form: Form) -> None:
    field = Part([b'Content-Disposition: form-data; name="note"'], b"v")
    form.parts = rng.choice(
        (
            [],
            [field],
            form.parts * 2,
            form.parts * rng.choice((17, 63, 66)),
            [*form.parts, field],
            [field] * 16 + form.parts,
            [*form.parts, *[field] * 200],
            [field] * 5000,
            [Part([], b"")] * 30,
        )
    )


def line_ends(rng: Random, form: Form) -> None:
    form.line_end = rng.choice((b"\n", b"\r", b"\r\r\n", b"\n\r", b" \r\n", b""))


def around(rng: Random, form: Form) -> None:
    """Bytes before the first boundary and after the last, or no last one."""
    form.before = rng.choice((b"", b"\r\n", b"preamble\r\n", b"preamble", b"\r\n" * 1000, b"--"))
    form.after = rng.choice((b"", b"\r\n", b"epilogue", b"\r\n--x\r\n", b"--", rng.randbytes(50)))
    form.closed = rng.random() < 0.7


def query(rng: Random, form: Form) -> None:
    form.target = form.target.partition(b"?")[0] + rng.choice(QUERIES)


def more_headers(rng: Random, form: Form) -> None:
    form.headers += rng.choice(HEADERS)


FORM: tuple[Callable[[Random, Form], None], ...] = (
    boundary,
    content_type,
    file_name,
    file_name,
    disposition,
    disposition,
    part_headers,
    contents,
    contents,
    nested,
    number_of_parts,
    line_ends,
    around,
    query,
    more_headers,
)

QUERIES = (
    b"?",
    b"?heatmap=maybe",
    b"?heatmap=true&heatmap=false",
    b"?heatmap",
    b"?hetmap=true",
    b"?operating_point=best",
    b"?operating_point=%00",
    b"?operating_point=%ff%fe",
    b"?operating_point=" + b"x" * LARGE,
    b"?operating_point=rule_in&evidence=1&preview=on&heatmap=yes",
    b"?input_check=refuse&input_check=warn",
    b"?input_check=%77arn",
    b"?%",
    b"?%zz=1",
    b"?=&=&&;",
    b"?\xff=\xfe",
    b"?a[]=1&a[b]=2",
    b"?" + b"a=b&" * 2000,
)

HEADERS: tuple[list[bytes], ...] = (
    [b"X-Request-ID: 0123456789abcdef"],
    [b"X-Request-ID: " + b"a" * 65],
    [b"X-Request-ID: x\x01y"],
    [b"X-Request-ID: \xff\xfe"],
    [b"X-Request-ID:"],
    [b"X-Request-ID: 01234567", b"X-Request-ID: 89abcdef"],
    [b"Authorization: Bearer"],
    [b"Authorization: Bearer \xff\xfe"],
    [b"Authorization: Basic OjpiYWQ="],
    [b"Authorization: " + b"x" * 5000],
    [b"X-API-Key: "],
    [b"X-API-Key: \xe4\xf6"],
    [b"Accept: text/html"],
    [b"Accept: \xff"],
    [b"Accept-Encoding: gzip, br, *;q=0"],
    [b"Content-Encoding: gzip"],
    [b"Origin: null", b"Access-Control-Request-Method: PUT"],
    [b"Cookie: " + b"a=b; " * 500],
    [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Key: x"],
    [b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAA"],
    [b"Connection: close, close, keep-alive"],
    [b"Connection: Content-Type"],
    [b"Expect: 100-continue"],
    [b"Expect: 200-maybe"],
    [b"Range: bytes=0-1"],
    [b"If-None-Match: *"],
    [b"X-Forwarded-For: \xff, ::::", b"X-Forwarded-Proto: gopher"],
    [b"Host: other"],
    [b"X-Many: v"] * 200,
)


def _some(rng: Random, parts: list[Part]) -> list[Part]:
    return [part for part in parts[:8] if rng.random() < 0.7] or parts[:1]


# --- how a body is framed -------------------------------------------------------------------------


def content_length(_: Random, body: bytes) -> tuple[list[bytes], bytes]:
    """The one that is right."""
    return [b"Content-Length: %d" % len(body)], body


def wrong_length(rng: Random, body: bytes) -> tuple[list[bytes], bytes]:
    length = rng.choice(
        (
            b"%d" % (len(body) + rng.choice((1, 2, 100, 10_000))),
            b"%d" % max(0, len(body) - rng.choice((1, 2, 100))),
            b"0",
            b"-1",
            b"+%d" % len(body),
            b"%d.0" % len(body),
            b"0x%x" % len(body),
            b"%d, %d" % (len(body), len(body)),
            b" %d " % len(body),
            b"99999999999999999999999999",
            b"9223372036854775807",
            b"134217729",
            "٣".encode(),
            b"",
            b"ten",
        )
    )
    return [b"Content-Length: " + length], body


def two_lengths(rng: Random, body: bytes) -> tuple[list[bytes], bytes]:
    other = len(body) + rng.choice((-1, 0, 1))
    return [b"Content-Length: %d" % len(body), b"Content-Length: %d" % other], body


def no_length(_: Random, body: bytes) -> tuple[list[bytes], bytes]:
    return [], body


def chunked(rng: Random, body: bytes) -> tuple[list[bytes], bytes]:
    """Rightly chunked, in odd sizes, with odd but legal spellings and trailers."""
    size = rng.choice((1, 7, 100, 4096, 65536))
    size = max(size, len(body) // 2000)
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    form = rng.choice((b"%x\r\n%b\r\n", b"%X\r\n%b\r\n", b"000%x\r\n%b\r\n", b'%x;a="b"\r\n%b\r\n'))
    trailer = rng.choice((b"", b"", b"X-Trailer: v\r\n"))
    framed = b"".join(form % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailer + b"\r\n"
    return [b"Transfer-Encoding: chunked"], framed


def wrong_chunks(rng: Random, body: bytes) -> tuple[list[bytes], bytes]:
    half = body[: len(body) // 2]
    framed = rng.choice(
        (
            body,
            b"%x\r\n" % len(body) + body,
            b"%x\r\n" % (len(body) + 1) + body + b"\r\n0\r\n\r\n",
            b"%x\r\n" % max(0, len(body) - 1) + body + b"\r\n0\r\n\r\n",
            b"%x\n" % len(body) + body + b"\n0\n\n",
            b"-1\r\n" + body + b"\r\n0\r\n\r\n",
            b"0x%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\n" + body,
            b"g\r\n" + body,
            b"\r\n\r\n" + body,
            b"%x;" % len(half) + b"e" * LARGE + b"\r\n" + half + b"\r\n0\r\n\r\n",
            b"%x\r\n" % len(half) + half + b"\r\n",
            b"0\r\n\r\n",
            b"0\r\n" + b"X-Trailer: v\r\n" * 500 + b"\r\n",
        )
    )
    return [b"Transfer-Encoding: chunked"], framed


def two_framings(rng: Random, body: bytes) -> tuple[list[bytes], bytes]:
    """What smugglers send."""
    encoding = rng.choice((b"chunked", b"gzip, chunked", b"identity", b"xchunked", b"chunked, x"))
    fields = [b"Transfer-Encoding: " + encoding, b"Content-Length: %d" % len(body)]
    rng.shuffle(fields)
    return fields, rng.choice((body, b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"))


def cut_off(rng: Random, body: bytes) -> tuple[list[bytes], bytes]:
    return [b"Content-Length: %d" % len(body)], body[: rng.randrange(len(body) + 1)]


def more_behind(rng: Random, body: bytes) -> tuple[list[bytes], bytes]:
    """Another request, or garbage, right behind the body."""
    behind = rng.choice(
        (*requests().values(), rng.randbytes(100), b"\r\n\r\n", b"POST", b"\0" * 50)
    )
    return [b"Content-Length: %d" % len(body)], body + behind * rng.choice((1, 1, 5))


FRAMING: tuple[Callable[[Random, bytes], tuple[list[bytes], bytes]], ...] = (
    wrong_length,
    two_lengths,
    no_length,
    chunked,
    chunked,
    wrong_chunks,
    two_framings,
    cut_off,
    more_behind,
)


# --- what breaks a request ------------------------------------------------------------------------


def method(rng: Random, data: bytes) -> bytes:
    _, _, rest = data.partition(b" ")
    methods = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT")
    odd = (
        b"PRI",
        b"BREW",
        b"get",
        b"G" * 300,
        b"",
        b"\0",
        b"GE T",
        b"M-SEARCH",
        b"PATCH",
        b"QUERY",
    )
    return rng.choice(methods + odd) + b" " + rest


def target(rng: Random, data: bytes) -> bytes:
    first, _, rest = data.partition(b" ")
    path, _, rest = rest.partition(b" ")
    odd = (
        b"*",
        b"",
        b"//" + path,
        path + b"/",
        path + b"/..",
        b"/../../etc/passwd",
        b"/%2e%2e/%00",
        b"/%ff%fe",
        b"/" + "肺".encode(),
        b"/\xff",
        b"/" + b"a" * 70_000,
        b"/" + b"%41" * 3000,
        b"http://localhost" + path,
        b"http://[::1",
        b"http://user:pass@other:99999" + path,
        b"localhost:80",
        path.upper(),
        path + b"#fragment",
        path + b"?" + b"&" * 1000,
        path + b"\t",
        path + b" extra",
        path.replace(b"/", b"\\"),
        path + rng.choice(QUERIES),
        b"/docs/../livez",
        b"/.git/config",
    )
    return first + b" " + rng.choice(odd) + b" " + rest


def version(rng: Random, data: bytes) -> bytes:
    versions = (b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/1.10", b"HTTP/", b"")
    versions += (
        b"http/1.1",
        b"HTTP/1.1 ",
        b"HTTP/-1.1",
        b"HTTP/1.1\0",
        b"ICE/1.0",
        b"HTTP/99999.1",
    )
    return data.replace(b"HTTP/1.1", rng.choice(versions), 1)


def headers_added(rng: Random, data: bytes) -> bytes:
    line, _, rest = data.partition(b"\r\n")
    return b"\r\n".join([line, *rng.choice(HEADERS), rest])


def header_lines(rng: Random, data: bytes) -> bytes:
    """Lines that no header may have."""
    line, _, rest = data.partition(b"\r\n")
    odd = (
        b"no colon here",
        b": no name",
        b" folded at the start",
        b"X-Folded: a\r\n b\r\n\tc",
        b"X-Space : v",
        b"X-Nul: \0",
        b"X\0: v",
        b"X-Control: \x01\x7f",
        b"X-Bare: a\rb",
        b"X-Bare: a\nb",
        b"X-Latin: \xe4\xf6\xfc",
        "X-Größe: v".encode(),
        b"X-Long: " + b"v" * 100_000,
        b"X" * 100_000 + b": v",
        b"\r\n".join([b"X-%d: v" % i for i in range(2000)]),
        b"Content-Length: 5",
        b"Content-Length: x",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip",
        b"Host:",
        b"Host: a, b",
        b"",
    )
    return b"\r\n".join([line, rng.choice(odd), rest])


def no_host(_: Random, data: bytes) -> bytes:
    return data.replace(b"Host: localhost\r\n", b"", 1)


def bare_line_ends(rng: Random, data: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    end = rng.choice((b"\n", b"\r", b"\n\r"))
    return (head + b"\r\n\r\n").replace(b"\r\n", end) + body


def head_mutated(rng: Random, data: bytes) -> bytes:
    """A blind operator on the request line and headers."""
    head, _, body = data.partition(b"\r\n\r\n")
    return rng.choice(BLIND[:-2])(rng, head) + b"\r\n\r\n" + body


def head_cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(data.index(b"\r\n\r\n") + 4) if b"\r\n\r\n" in data else 0]


def garbage_before(rng: Random, data: bytes) -> bytes:
    tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    return rng.choice((b"\r\n", b"\r\n" * 100, b"\0", tls_hello, rng.randbytes(30), b" ")) + data


def pipelined(rng: Random, data: bytes) -> bytes:
    others = [rng.choice(sorted(requests().values())) for _ in range(rng.choice((1, 3, 20)))]
    return (data + b"".join(others)).replace(CLOSING[1] + b"\r\n", b"")


REQUEST: tuple[Callable[[Random, bytes], bytes], ...] = (
    method,
    target,
    target,
    version,
    headers_added,
    headers_added,
    header_lines,
    header_lines,
    no_host,
    bare_line_ends,
    head_mutated,
    head_mutated,
    head_cut,
    garbage_before,
    pipelined,
)
