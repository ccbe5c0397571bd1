"""ZeroMQ PULL and PUSH, as the transports over it use them."""

from __future__ import annotations

from collections.abc import Sequence

from braggscope.core.errors import InputError

from ..urls import Url

QUEUE = 1000  # messages that either end holds before the sender waits: a second at 1 kHz
AT_ONCE = 64 * 2**20  # bytes that are taken at once; large frames would fill the memory otherwise
NOBODY_MS = 60_000  # without a receiver, after which a sender gives up
LINGER_MS = 60_000  # how long a sender that closes waits for a slow receiver


def _address(url: Url) -> str:
    host, colon, port = url.place.rpartition(":")
    if not colon or not host or not (port.isdigit() and 0 < int(port) < 65536):
        raise InputError(
            f"source {url.scheme}: needs an address HOST:PORT, like {url.scheme}://127.0.0.1:9999, got '{url.place}'"
        )
    return f"tcp://{url.place}"


PARAMETERS = {
    "bind": "1: listen at the address instead of connecting to it",
    "queue": f"messages that are held before the sender waits ({QUEUE}); fewer for frames of many megabytes",
}


class Pull:
    """Takes whole messages; reconnects by itself when the sender comes back.

    largest: Bytes of one part; a peer that sends more is disconnected.
    """

    def __init__(self, url: Url, largest: int) -> None:
        import zmq

        self._zmq, address = zmq, _address(url)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.MAXMSGSIZE, largest)
        self._socket.setsockopt(zmq.RCVHWM, int(url.number("queue", QUEUE, low=1, high=1e6)))
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        try:
            (self._socket.bind if url.yes("bind") else self._socket.connect)(address)
        except zmq.ZMQError as error:
            self._context.destroy(0)
            raise InputError(f"source {url} cannot be opened: {error.strerror}") from None

    def receive(self, timeout_s: float, most: int) -> list[list[bytes]]:
        """The parts of the messages that are there; waits for the first one."""
        if not self._socket.poll(int(timeout_s * 1000)):
            return []
        found: list[list[bytes]] = []
        size = 0
        while len(found) < most and size < AT_ONCE:
            try:
                found.append(self._socket.recv_multipart(self._zmq.NOBLOCK))
            except self._zmq.Again:
                break
            size += sum(map(len, found[-1]))
        return found

    def close(self) -> None:
        """Close the socket at once."""
        self._context.destroy(0)


class Push:
    """Sends whole messages; waits where nobody takes them."""

    def __init__(self, url: Url) -> None:
        import zmq

        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, QUEUE)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.SNDTIMEO, NOBODY_MS)
        try:
            (self._socket.connect if url.yes("bind") else self._socket.bind)(_address(url))
        except zmq.ZMQError as error:
            self._context.destroy(0)
            raise InputError(f"{url} cannot be opened: {error.strerror}") from None

    def send(self, parts: Sequence[bytes]) -> None:
        """Send a message. Raises InputError where nobody takes it."""
        import zmq

        try:
            self._socket.send_multipart(parts, copy=False)
        except zmq.Again:
            raise InputError(f"nobody took a frame for {NOBODY_MS / 1000:g} s; is `braggscope watch` running?") from None

    def close(self) -> None:
        """Close the socket when all is sent, or nobody took it for a minute."""
        self._socket.close()
        self._context.term()
