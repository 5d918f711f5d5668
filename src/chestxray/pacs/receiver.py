"""Takes in radiographs: C-ECHO and C-STORE as SCP, from peers alone, into the queue.

What arrives is kept as it came; a success is answered only once it is durable. What a peer can ask
for is bounded: the size of a PDU and of an instance, how many wait in memory, how long a connection
may be silent, how many there are, and how many of them are one peer's.

Does not: decode a data set.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from socketserver import BaseServer
from typing import Any

from pydicom import uid
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from chestxray.errors import NodeError
from chestxray.imaging import Limits
from chestxray.imaging.dicom import TRANSFER_SYNTAXES
from chestxray.pacs.config import NodeConfig
from chestxray.pacs.processes import slow_down_polling
from chestxray.pacs.spool import Spool
from chestxray.pacs.tls import server_context

logger = logging.getLogger(__name__)

SOP_CLASSES = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.SecondaryCaptureImageStorage,
)

VERIFICATION = UID("1.2.840.10008.1.1")

MAX_PDU_BYTES = 131_072
"""What we ask peers to send at most at once: large ones cost half of what 16 KiB cost, and DCMTK
sends no larger ones."""

MAX_OTHER_PDU_BYTES = 1 << 20
"""No A-ASSOCIATE-RQ is as large as this."""

HEADERS_BYTES = 1 << 20
"""What command sets and the headers of fragments may add to the bytes of an instance."""

SILENT_S = 60
"""How long a peer may say nothing, in an association or within a PDU."""

NEGOTIATION_S = 5
"""How long it may take to ask for an association, and before it as long for TLS."""

MAX_ASKING = 64
"""Connections that have not asked for an association yet; with one more the oldest is ended, of the
address that has the most."""

ABORTION_S = 1.0
"""How long a peer may take to hang up when its association is aborted."""

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
"""PS3.4, B.2.3."""

# Of an A-ASSOCIATE-RJ: result, source, reason (PS3.8, 9.3.4).
_UNKNOWN_CALLING_AE = (1, 1, 3)
_UNKNOWN_CALLED_AE = (1, 1, 7)
_LIMIT_EXCEEDED = (2, 3, 2)


class Receiver:
    """Listens from the moment it is made; accepts associations after :meth:`start`.

    Raises:
        ConfigError: the files for TLS cannot be used.
        NodeError: the address cannot be listened on.
    """

    def __init__(self, config: NodeConfig, spool: Spool, limits: Limits | None = None) -> None:
        self._config, self._spool = config, spool
        self._max_bytes = (limits or Limits()).max_bytes + HEADERS_BYTES
        node = config.node
        ae = AE(node.ae_title)
        ae.maximum_pdu_size = MAX_PDU_BYTES
        ae.maximum_associations = sys.maxsize  # who counts here is in _places
        self._asking = _Asking()
        self._places = _Places(node.associations, n_peers=len(config.peer))
        ae.network_timeout, ae.acse_timeout, ae.dimse_timeout = SILENT_S, NEGOTIATION_S, SILENT_S
        ae.add_supported_context(VERIFICATION)
        for sop_class in SOP_CLASSES:
            ae.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        context = None if node.tls is None else server_context(node.tls)
        try:
            self._server = ae.make_server(
                (node.host, node.port),
                ssl_context=context,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._on_requested),
                    (evt.EVT_C_STORE, self._on_store),
                ],
                server_class=_Server,
                request_handler=_Connection,
                max_bytes=self._max_bytes,
                asking=self._asking,
            )
        except OSError as exc:
            raise NodeError(
                f"cannot listen on {node.host} port {node.port}: {exc.strerror}"
            ) from exc
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Accept nobody any more, and let those who send finish within ``timeout_s``."""
        self._server.shutdown()
        self._thread.join()
        still_open = self._server.active_associations
        _join([link for link in still_open if link.is_established], timeout_s)
        late = [link for link in still_open if link.is_alive()]
        for link in late:
            if link.is_established:
                logger.warning("an association from %s is aborted", link.requestor.address)
                link.abort(block=False)
        _join([link for link in late if link.is_established], ABORTION_S)
        for link in late:
            connection = link.dul.socket
            if connection is not None and connection.socket is not None:
                self._server.shutdown_request(connection.socket)

    def _on_requested(self, event: Event) -> None:
        association = event.assoc
        request = association.requestor.primitive
        assert request is not None  # noqa: S101 - it has just come
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        address = association.requestor.address
        self._asking.has_asked(association.dul.socket)
        if called != self._config.node.ae_title:
            self._reject(association, _UNKNOWN_CALLED_AE, "calls us %r", called)
        elif not any(peer.fits(calling, address) for peer in self._config.peer):
            self._reject(association, _UNKNOWN_CALLING_AE, "calls itself %r", calling)
        elif not self._places.take(association, calling):
            self._reject(association, _LIMIT_EXCEEDED, "is one too many: %r", calling)

    @staticmethod
    def _reject(
        association: Association, reason: tuple[int, int, int], why: str, title: str
    ) -> None:
        logger.warning(
            "association rejected: who asks from %s " + why, association.requestor.address, title
        )
        association.acse.send_reject(*reason)
        association.kill()

    def _on_store(self, event: Event) -> int:
        begun = time.monotonic()
        calling_ae = event.assoc.requestor.ae_title.strip()
        request = event.request
        if not isinstance(request, C_STORE) or not isinstance(request.DataSet, BytesIO):
            return CANNOT_UNDERSTAND
        header = b"\0" * 128 + b"DICM" + encode_file_meta(event.file_meta)
        try:
            with request.DataSet.getbuffer() as body:
                n_bytes = len(body)
                number = self._spool.add([header, body], calling_ae)
        except (OSError, NodeError) as exc:
            logger.error("an instance from %s was not taken in: %s", calling_ae, exc)  # noqa: TRY400
            return OUT_OF_RESOURCES
        took_ms = 1000 * (time.monotonic() - begun)
        logger.info(
            "instance %d received from %s: %d bytes in %.0f ms",
            number,
            calling_ae,
            n_bytes,
            took_ms,
        )
        return SUCCESS


def _join(threads: list[Association], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


class _Places:
    """The associations that there may be at the same time, of which a quarter is for the others.

    Who has one already takes none of that quarter, where there are several peers: one that sends
    from everywhere, or never hangs up, leaves a place to each of the rest.
    """

    def __init__(self, n: int, *, n_peers: int) -> None:
        self._n = n
        self._n_for_others = n // 4 if n_peers > 1 else 0
        self._taken: dict[Association, str] = {}
        self._lock = threading.Lock()

    def take(self, association: Association, calling: str) -> bool:
        """Whether there is a place; it is taken as long as the association lives."""
        with self._lock:
            self._taken = {of: peer for of, peer in self._taken.items() if of.is_alive()}
            has_one = calling in self._taken.values()
            if len(self._taken) >= self._n - has_one * self._n_for_others:
                return False
            self._taken[association] = calling
            return True


class _Asking:
    """The connections from which no association has been asked for yet."""

    def __init__(self) -> None:
        self._address_of: dict[socket.socket, str] = {}  # in the order in which they came
        self._lock = threading.Lock()

    def add(self, connection: socket.socket, address: str) -> None:
        """One more, which may be the end of another."""
        with self._lock:
            open_ones = {of: its for of, its in self._address_of.items() if of.fileno() >= 0}
            open_ones[connection] = address
            if len(open_ones) > MAX_ASKING:
                ((busiest, _),) = Counter(open_ones.values()).most_common(1)
                oldest = next(of for of, its in open_ones.items() if its == busiest)
                del open_ones[oldest]
                with suppress(OSError):  # it has just gone
                    oldest.shutdown(socket.SHUT_RDWR)
            self._address_of = open_ones

    def has_asked(self, connection: AssociationSocket | None) -> None:
        if connection is not None:
            with self._lock:
                self._address_of.pop(connection.socket, None)  # type: ignore[arg-type]


class _Server(ThreadedAssociationServer):
    """Waits for nobody while it accepts, not even for a TLS handshake."""

    def __init__(self, *arguments: Any, max_bytes: int, asking: _Asking, **keywords: Any) -> None:
        self.max_bytes, self._asking = max_bytes, asking
        super().__init__(*arguments, **keywords)

    def get_request(self) -> tuple[socket.socket, Any]:
        assert self.socket is not None  # noqa: S101 - it listens
        connection, address = self.socket.accept()
        connection.settimeout(NEGOTIATION_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        self._asking.add(request, client_address[0])
        return True

    def handle_error(self, _request: Any, client_address: Any) -> None:
        logger.warning("a connection from %s has failed", client_address[0])

    def shutdown(self) -> None:
        # pynetdicom's own takes only servers off its list that were made by start_server().
        BaseServer.shutdown(self)
        self.server_close()


class _Connection(RequestHandler):
    """A connection, secured in a thread of its own, that sends no more than it may."""

    server: _Server

    def handle(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        self.request.settimeout(SILENT_S)
        super().handle()

    def _create_association(self) -> Association:
        association = super()._create_association()
        connection = association.dul.socket
        assert connection is not None  # noqa: S101 - it was given one
        connection.recv = _bounded_recv(self.request)  # type: ignore[method-assign, assignment]
        slow_down_polling(association)
        association.dimse = _BoundedMessages(association, self.server.max_bytes)
        return association


def _bounded_recv(connection: socket.socket) -> Callable[[int], bytearray]:
    """A ``recv`` that believes no length it is told (and asks the kernel for more than 4 KiB)."""

    def recv(nr_bytes: int) -> bytearray:
        if nr_bytes > MAX_OTHER_PDU_BYTES:
            connection.shutdown(socket.SHUT_RDWR)
            raise OSError("the PDU is too large")
        data = bytearray(nr_bytes)
        view, at = memoryview(data), 0
        while at < nr_bytes:
            n_read = connection.recv_into(view[at:])
            if not n_read:
                return data[:at]
            at += n_read
        return data

    return recv


class _BoundedMessages(DIMSEServiceProvider):
    """Aborts the association when a message gets too large, or comes before its turn."""

    def __init__(self, association: Association, max_bytes: int) -> None:
        super().__init__(association)
        self._max_bytes = max_bytes
        self._n_bytes = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        self._n_bytes += sum(len(data) for _, data in primitive.presentation_data_value_list)
        # We negotiate no asynchronous operations: the next request comes after our response.
        if self._n_bytes > self._max_bytes or not self.msg_queue.empty():
            logger.warning("association aborted: more is sent than is accepted")
            self.message = None
            self.assoc.abort(block=False)
            return
        super().receive_primitive(primitive)
        if self.message is None:
            self._n_bytes = 0
