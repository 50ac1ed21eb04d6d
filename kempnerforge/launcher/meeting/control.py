"""The control socket: cooperative processes register on it, report, and read the notice.

A connection is a registration, and its end is the process's end, so that no pid is ever guessed. The other side is
training code: nothing it sends, or fails to send, may do more here than cost a line in the log.
"""

from __future__ import annotations

# The builtin module: `import socket` costs 4 ms (it builds its enums), a tenth of our start.
import _socket
import os
import select
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ...bootstrap import contract
from ..policy.words import Finished, ForcedExit, Gone, Identity, Joined, Left, MoreTime, Noticed, Polled, Registered
from ..processes.process import Process, identify
from .page import Page

if TYPE_CHECKING:
    # Where it is used it is imported: its messages cost more to define than the rest of the start's modules.
    from ...bootstrap import wire

#: Connections kept at a time, in all and from one process: more than any node has ranks, and a process that opens one
#: after another cannot keep others from registering. Guesses.
_MOST_CONNECTIONS = 4096
_MOST_PER_PROCESS = 64
#: Descriptors kept free for everything else: a guess.
_SPARE_DESCRIPTORS = 64
#: struct ucred: pid, uid, gid (unix(7)).
_UCRED = struct.Struct("iII")
_INT = struct.Struct("i")
#: Messages read from one connection before the others have their turn: a guess.
_MOST_AT_A_TIME = 256
#: Messages that a process may repeat (status, more time): so many at once, and one more every so often (s). Guesses.
_BURST = 20
_REFILL_EVERY = 0.5


class StatusText(NamedTuple):
    pid: int
    text: str


class Unusable(NamedTuple):
    """Something came that is not of the contract; yielded once per connection."""

    pid: int
    why: str


News = Registered | Joined | Noticed | Left | Polled | Finished | ForcedExit | Gone | MoreTime | StatusText | Unusable


class Connection:
    """One connection: a registration of the process behind it.

    Args:
        connection: owned by this object, as is the process.
    """

    def __init__(self, connection: _socket.socket, process: Process) -> None:
        self._socket = connection
        self.process = process
        #: What its handler said of itself; None: none is registered, or it is finished.
        self._handler: wire.Registered | None = None
        #: What it has said already, of what counts once.
        self._said: set[tuple[type[News], bool]] = set()
        self._allowance = float(_BURST)
        self._refilled = time.monotonic()

    @property
    def cooperative(self) -> bool:
        """It has a registered handler that is not finished yet."""
        return self._handler is not None

    @property
    def stacks(self) -> int | None:
        """On this signal the process dumps its stacks; None: it does not, and by default a real-time signal kills."""
        return None if self._handler is None else self._handler.stacks

    def fileno(self) -> int:
        return self._socket.fileno()

    def tell(self, packet: bytes, descriptor: int | None = None) -> None:
        """Send a packet, unless the process has let so many pile up that it is not reading.

        Args:
            descriptor: goes with it.
        """
        rights = [] if descriptor is None else [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _INT.pack(descriptor))]
        try:
            self._socket.sendmsg([packet], rights, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except OSError:
            pass  # it is gone, or stuck: its signal tells it the same

    def receive(self) -> bytes | None:
        """Return the next packet, None when there is none; empty at the end of the connection."""
        from ...bootstrap import wire

        for _try in range(2):
            try:
                return self._socket.recv(wire.MAX_MESSAGE + 1, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                continue  # said once: it left a message of ours unread. What it said before that can still be read.
            except OSError:
                break
        return b""

    def understand(self, packet: bytes) -> News | None:
        """Return what a packet says, None where it says nothing new."""
        news = self._news_in(packet)
        if isinstance(news, (MoreTime, StatusText)):
            return news if self._may_repeat() else None
        key = (type(news), isinstance(news, Polled) and news.stop)
        if key in self._said:
            return None
        self._said.add(key)
        return news

    def _news_in(self, packet: bytes) -> News:
        from ...bootstrap import wire

        who = self.process.who
        try:
            message = wire.decode(packet)
        except ValueError as error:
            return Unusable(who.pid, f"a message that cannot be read ({error})")
        match message:
            case wire.Registered(program, timeout, _, is_launcher):
                self._handler = message
                self.process.program = program
                return Registered(program, who, timeout, is_launcher)
            case wire.Joined(world, rank, size):
                return Joined(who, world, rank, size)
            case wire.Noticed():
                return Noticed(who)
            case wire.Left():
                return Left(who)
            case wire.Polled(stop):
                return Polled(who, stop)
            case wire.Finished():
                self._handler = None
                return Finished(who)
            case wire.ForcedExit():
                return ForcedExit(who)
            case wire.MoreTime(seconds):
                return MoreTime(who, seconds)
            case wire.Status(text):
                return StatusText(who.pid, text)
            case wire.Notice() | wire.Page():
                return Unusable(who.pid, "what only kforge-run says")

    def _may_repeat(self) -> bool:
        """Return whether it may send one more message of the kind that can be repeated for ever."""
        now = time.monotonic()
        self._allowance = min(self._allowance + (now - self._refilled) / _REFILL_EVERY, float(_BURST))
        self._refilled = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def close(self) -> None:
        self._socket.close()
        self.process.close()


class Control:
    """The listening socket and everyone connected to it.

    Args:
        folder_fd: the private folder in which the socket is bound.

    Raises:
        OSError: the socket could not be made there.
    """

    def __init__(self, folder_fd: int, poller: select.poll) -> None:
        self._poller = poller
        self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        self._listener.setblocking(False)
        try:
            self._listener.bind(contract.socket_address(folder_fd))
            self._listener.listen(1024)
        except OSError:
            self._listener.close()
            raise
        self._listening = False
        self._listen(True)
        self._connections: dict[int, Connection] = {}
        self._most = min(_MOST_CONNECTIONS, max(os.sysconf("SC_OPEN_MAX") - _SPARE_DESCRIPTORS, 16) // 2)
        self._refused = False
        self.page = Page()
        self._complained = False

    @property
    def connections(self) -> list[Connection]:
        return list(self._connections.values())

    @property
    def cooperative(self) -> list[Connection]:
        return [connection for connection in self.connections if connection.cooperative]

    def news(self) -> Iterator[News]:
        """Yield all that came in; nothing that was sent is left behind."""
        yield from self._accept_all()
        for connection in self.connections:
            yield from self._read(connection)

    def tell(self, notice: wire.Notice, to: Identity | None = None) -> None:
        """Send a notice to all that cooperate, or to one of them."""
        from ...bootstrap import wire

        packet = wire.encode(notice)
        for connection in self.cooperative:
            if to is None or connection.process.who == to:
                connection.tell(packet)

    def _accept_all(self) -> Iterator[News]:
        while self._listening:
            if len(self._connections) >= self._most:
                self._listen(False)
                return
            try:
                descriptor, _address = self._listener._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._listen(False)  # no descriptor left
                return
            connected = _socket.socket(fileno=descriptor)
            credentials = connected.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size)
            pid, uid, _gid = _UCRED.unpack(credentials)
            from_same = sum(other.process.who.pid == pid for other in self._connections.values())
            if uid != os.getuid() or from_same >= _MOST_PER_PROCESS:
                connected.close()
                if not self._refused:
                    self._refused = True
                    yield Unusable(pid, f"a connection of uid {uid}, its process's number {from_same + 1}")
                continue
            self._connections[descriptor] = Connection(connected, Process(identify(pid)))
            self._poller.register(descriptor, select.POLLIN)
            yield from self._read(self._connections[descriptor])

    def _listen(self, listening: bool) -> None:
        """Wait for new connections, or leave them waiting: one that is closed would take us for dead."""
        if listening != self._listening:
            self._listening = listening
            if listening:
                self._poller.register(self._listener.fileno(), select.POLLIN)
            else:
                self._poller.unregister(self._listener.fileno())

    def _read(self, connection: Connection) -> Iterator[News]:
        for _turn in range(_MOST_AT_A_TIME):
            packet = connection.receive()
            if packet is None:
                return
            if not packet:
                self._drop(connection)
                if connection.cooperative:
                    yield Gone(connection.process.who)
                return
            news = connection.understand(packet)
            if isinstance(news, Registered) and not news.is_launcher:
                yield from self._share_page(connection)
            if news is not None:
                yield news

    def _share_page(self, connection: Connection) -> Iterator[News]:
        """Answer a registration."""
        from ...bootstrap import wire

        number = self.page.number_for(connection.process.who)
        if number is None and not self._complained:
            self._complained = True
            why = self.page.trouble or "every line is taken"
            yield StatusText(connection.process.who.pid, f"no memory can be shared ({why}): its ranks stop one by one")
        packet = wire.encode(wire.Page(number or 0))
        connection.tell(packet, None if number is None else self.page.descriptor)

    def _drop(self, connection: Connection) -> None:
        self._poller.unregister(connection.fileno())
        del self._connections[connection.fileno()]
        connection.close()
        self._listen(True)

    def close(self) -> None:
        for connection in self.connections:
            self._drop(connection)
        self._listen(False)
        self._listener.close()
        self.page.close()
