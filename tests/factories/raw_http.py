"""HTTP as bytes on a socket, for what a well-behaved client library would never send."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPResponse

import httpx

FORM_HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
FORM_TAIL = b"\r\n--b--\r\n"


def form(data: bytes) -> bytes:
    """A multipart body with one file, whose boundary is ``b``."""
    return FORM_HEAD + data + FORM_TAIL


def post(body_bytes: int, *headers: str, path: str = "/predict") -> bytes:
    """The head of a POST whose body will have ``body_bytes``."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: x",
        "Content-Type: multipart/form-data; boundary=b",
        f"Content-Length: {body_bytes}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def connected(client: httpx.Client) -> Iterator[socket.socket]:
    """A connection of its own to the server that ``client`` talks to."""
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=30) as connection:
        yield connection


def received(connection: socket.socket) -> tuple[HTTPResponse, bytes]:
    """The next response on the connection, and its body."""
    with closing(HTTPResponse(connection)) as response:
        response.begin()
        return response, response.read()


def is_closed(connection: socket.socket) -> bool:
    """Whether the server ends the connection without a further byte; waits for it to."""
    return connection.recv(1) == b""
