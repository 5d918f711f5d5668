"""Sends answers: C-STORE as SCU, over a few associations with each destination, until every one is
acknowledged.

Does not: give up. What a destination refuses is sent again after a while, and so is everything when
it cannot be reached.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, build_context
from pynetdicom import _config as pynetdicom_config
from pynetdicom.association import Association

from chestxray.errors import NodeError
from chestxray.pacs.config import Destination, NodeConfig
from chestxray.pacs.processes import begin_child, log_unexpected, slow_down_polling
from chestxray.pacs.spool import MAX_BACKOFF_S, Judged, Spool
from chestxray.pacs.tls import client_context

logger = logging.getLogger(__name__)

POLL_S = 0.1
"""How often an idle sender looks for answers."""

BATCH = 16
"""Answers that are looked up at once."""

ASSOCIATIONS = 2
"""With each destination: while one waits for its archive's disk, another sends."""

IDLE_S = 5.0
"""How long an association is held without work."""

FIRST_BACKOFF_S = 1.0
CONNECTION_S, RESPONSE_S = 10, 60

SOP_CLASSES = (SecondaryCaptureImageStorage, Comprehensive3DSRStorage)


class DestinationError(Exception):
    """Nothing can be sent now; ``reason`` says why in a word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def run_sender(config: NodeConfig, keep_s: float) -> None:
    """What the sender's process does until it is told to end."""
    stopping = begin_child()
    # Files go out as they lie there, without being parsed.
    pynetdicom_config.STORE_SEND_CHUNKED_DATASET = True
    spool = Spool(config.node.folder, keep_s=keep_s)
    senders = [
        Sender(destination, config.node.ae_title, spool, stopping, lane)
        for destination in config.destination
        for lane in range(ASSOCIATIONS)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


def backoff_s(attempts: int) -> float:
    """How long to wait after ``attempts`` failures: doubled to a limit, and scattered."""
    whole = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempts - 1, 16))
    return whole * random.uniform(0.5, 1)  # noqa: S311 - nobody gains by guessing it


class Sender(threading.Thread):
    """Sends every ``ASSOCIATIONS``-th of what is judged for one destination, oldest first."""

    def __init__(
        self,
        destination: Destination,
        ae_title: str,
        spool: Spool,
        stopping: threading.Event,
        lane: int,
    ) -> None:
        super().__init__(name=f"sender {lane} to {destination.name}")
        self._name, self._lane = destination.name, lane
        self._spool, self._stopping = spool, stopping
        self._link = Link(destination, ae_title)
        self._failures = 0

    def run(self) -> None:
        idle_since = time.monotonic()
        while not self._stopping.is_set():
            try:
                if self._send_batch():
                    idle_since = time.monotonic()
                    continue
                if time.monotonic() - idle_since > IDLE_S:
                    self._link.close()
                self._stopping.wait(POLL_S)
            except DestinationError as exc:
                self._rest(exc.reason)
            except (OSError, NodeError) as exc:
                logger.error("the sender to %s rests: %s", self._name, exc)  # noqa: TRY400
                self._stopping.wait(FIRST_BACKOFF_S)
            except Exception as exc:  # noqa: BLE001 - the last resort
                log_unexpected(exc)
                self._rest("unexpected")
        self._link.close()

    def _send_batch(self) -> bool:
        """Send what is due; whether there was anything."""
        batch = self._spool.to_send(self._name, BATCH, lane=self._lane, lanes=ASSOCIATIONS)
        for judged in batch:
            if self._stopping.is_set():
                break
            self._link.open()
            if self._failures:
                logger.info("%s can be reached again", self._name)
                self._failures = 0
                self._spool.destination_recovered(self._name)
            self._send(judged)
        return bool(batch)

    def _send(self, judged: Judged) -> None:
        begun = time.monotonic()
        try:
            for file in judged.files:
                status = self._link.store(file)
                if not _is_success(status):
                    self._failed(judged, f"status_0x{status:04X}")
                    return
        except FileNotFoundError:
            logger.warning("instance %d has lost its answer and is judged again", judged.number)
            self._spool.answer_lost(judged.number)
            return
        except DestinationError as exc:
            self._failed(judged, exc.reason)  # should it be the answer's fault, others go first
            raise
        self._spool.answered(judged.number, self._name)
        took_ms = 1000 * (time.monotonic() - begun)
        logger.info("instance %d answered to %s in %.0f ms", judged.number, self._name, took_ms)

    def _failed(self, judged: Judged, reason: str) -> None:
        wait_s = backoff_s(judged.attempts + 1)
        logger.warning(
            "the answer to instance %d has failed at %s: %s; again in %.0f s",
            judged.number,
            self._name,
            reason,
            wait_s,
        )
        self._spool.failed(judged.number, reason, wait_s)

    def _rest(self, reason: str) -> None:
        self._link.close()
        self._failures += 1
        wait_s = backoff_s(self._failures)
        logger.warning("cannot send to %s: %s; again in %.0f s", self._name, reason, wait_s)
        self._spool.destination_failed(self._name, reason)
        self._stopping.wait(wait_s)


def _is_success(status: int) -> bool:
    """Success, or a warning: stored, though not all of it as it was (PS3.4, B.2.3)."""
    return status == 0x0000 or status >> 12 == 0xB


class Link:
    """An association with a destination that is opened when it is needed."""

    def __init__(self, destination: Destination, ae_title: str) -> None:
        self._destination = destination
        self._ae = AE(ae_title)
        self._ae.connection_timeout = self._ae.acse_timeout = CONNECTION_S
        self._ae.network_timeout = self._ae.dimse_timeout = RESPONSE_S
        tls = destination.tls
        self._tls = None if tls is None else (client_context(tls), destination.host)
        self._association: Association | None = None

    def open(self) -> None:
        """Make sure that there is an association.

        Raises:
            DestinationError: there can be none.
        """
        if self._association is not None and self._association.is_established:
            return
        self.close()
        association = self._ae.associate(
            _address_of(self._destination),
            self._destination.port,
            # Explicit VR is how answers lie there; Implicit VR is what everybody must take.
            contexts=[
                build_context(sop_class, syntax)
                for sop_class in SOP_CLASSES
                for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
            ],
            ae_title=self._destination.ae_title,
            tls_args=self._tls,
        )
        self._association = association
        if association.is_rejected:
            raise DestinationError("association_rejected")
        if not association.is_established:
            raise DestinationError("unreachable")
        if len({context.abstract_syntax for context in association.accepted_contexts}) < 2:
            raise DestinationError("sop_class_refused")
        slow_down_polling(association)
        _acknowledge_at_once(association)

    def store(self, file: Path) -> int:
        """The status that the destination answers ``file`` with.

        Raises:
            DestinationError: it does not answer.
            FileNotFoundError: there is no such file.
        """
        association = self._association
        if association is None or not association.is_established:
            raise DestinationError("connection_lost")
        explicit = {
            context.abstract_syntax
            for context in association.accepted_contexts
            if context.transfer_syntax == [ExplicitVRLittleEndian]
        }
        as_it_is = len(explicit) == len(SOP_CLASSES)
        try:
            response = association.send_c_store(file if as_it_is else dcmread(file))
        except RuntimeError as exc:  # it ended between our question and this
            raise DestinationError("connection_lost") from exc
        if "Status" not in response:
            raise DestinationError("no_answer")
        return int(response.Status)

    def close(self) -> None:
        association, self._association = self._association, None
        if association is None:
            return
        if association.is_established:
            association.release()
        _close_socket(association)


def _acknowledge_at_once(association: Association) -> None:
    """Archives send a response in two pieces, and wait for our system to acknowledge the first.

    It would do so 40 ms later. Told otherwise it does so at once, until something is sent again.
    """
    connection = association.dul.socket
    if connection is None or connection.socket is None or not hasattr(socket, "TCP_QUICKACK"):
        return
    tcp, send = connection.socket, connection.send

    def send_and_acknowledge(data: bytes) -> None:
        send(data)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.send = send_and_acknowledge  # type: ignore[method-assign, assignment]


def _close_socket(association: Association) -> None:
    """pynetdicom leaves it open when the other side was first to close it."""
    association.dul.join(1)
    connection = association.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.close()


def _address_of(destination: Destination) -> str:
    """The destination's first address: pynetdicom takes a name without dots for IPv6."""
    try:
        found = socket.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise DestinationError("unreachable") from exc
    return str(found[0][4][0])
