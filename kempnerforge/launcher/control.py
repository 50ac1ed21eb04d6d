"""The control socket: cooperative processes register on it, report, and are told the notice.

A connection is a registration, and its end is the process's end, so that no pid is ever guessed. The other side is
training code: nothing it sends, or fails to send, may do more here than cost a line in the log.
"""

from __future__ import annotations

# The builtin module: `import socket` costs 4 ms (it builds its enums), a tenth of our start.
import _socket
import os
import select
import signal
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..bootstrap import contract
from . import pidfd, tree
from .policy.words import Finished, Gone, Identity, MoreTime, Polled, Registered

#: Connections kept at a time, in all and from one process: more than any node has ranks, and a process that opens one
#: after another cannot keep others from registering.
_MOST_PEERS = 4096
_MOST_PER_PROCESS = 64
#: Descriptors kept free for everything else.
_SPARE_DESCRIPTORS = 64
#: struct ucred: pid, uid, gid (unix(7)).
_UCRED = struct.Struct("iII")
#: Messages read from one connection before the others have their turn.
_MOST_AT_A_TIME = 256
#: Messages that a process may repeat (status, more time): so many at once, and one more every so often (s).
_BURST = 20
_REFILL_EVERY = 0.5


class StatusText(NamedTuple):
    pid: int
    text: str


class Unusable(NamedTuple):
    """Something came that is not of the contract; told once per connection."""

    pid: int
    why: str


Report = Registered | Polled | Finished | Gone | MoreTime | StatusText | Unusable


class Peer:
    """One connection."""

    def __init__(self, connection: _socket.socket, who: Identity) -> None:
        self._connection = connection
        self.who = who
        self.pid = who.pid
        self.program = "?"
        #: It has a registered handler that is not finished yet.
        self.cooperative = False
        #: On this signal it dumps its stacks; None: it does not.
        self.stacks: int | None = None
        #: What it has said already, of what counts once.
        self.said: set[tuple[str, bool]] = set()
        self._allowance = float(_BURST)
        self._refilled = time.monotonic()
        self._pidfd = pidfd.open_of(who.pid)

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, signum: int) -> bool:
        """Signal the process; return whether it was there to get it."""
        # 0: outside our pid namespace; kill(2) would take it for our own process group.
        return self.pid != 0 and pidfd.send(self.pid, self._pidfd, signum)

    def notify(self, signum: int) -> bool:
        """Signal the process so that its main thread notices; return whether it was there to get it."""
        return self.pid != 0 and pidfd.notify(self.pid, self._pidfd, signum)

    def tell(self, packet: bytes) -> None:
        """Send a packet, unless the process has let so many pile up that it is not reading."""
        try:
            self._connection.send(packet, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except OSError:
            pass  # it is gone, or stuck: its signal tells it the same

    def receive(self) -> bytes | None:
        """Return the next packet, None when there is none; empty at the end of the connection."""
        for _try in range(2):
            try:
                return self._connection.recv(contract.MAX_MESSAGE + 1, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                continue  # told once: it left a message of ours unread. What it said before that can still be read.
            except OSError:
                break
        return b""

    def may_repeat(self) -> bool:
        """Return whether it may send one more message of the kind that can be repeated for ever."""
        now = time.monotonic()
        self._allowance = min(self._allowance + (now - self._refilled) / _REFILL_EVERY, float(_BURST))
        self._refilled = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def close(self) -> None:
        self._connection.close()
        if self._pidfd is not None:
            os.close(self._pidfd)


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
        self._peers: dict[int, Peer] = {}
        self._most = min(_MOST_PEERS, max(os.sysconf("SC_OPEN_MAX") - _SPARE_DESCRIPTORS, 16) // 2)
        self._refused = False

    @property
    def peers(self) -> list[Peer]:
        return list(self._peers.values())

    def owns(self, descriptor: int) -> bool:
        return descriptor == self._listener.fileno() or descriptor in self._peers

    def reports(self, descriptor: int | None = None) -> Iterator[tuple[Peer | None, Report]]:
        """Yield what came in on one descriptor, or on all of them (None): nothing that was sent is left behind."""
        if descriptor is None or descriptor == self._listener.fileno():
            yield from self._accept_all()
        waiting = self.peers if descriptor is None else [self._peers[descriptor]] if descriptor in self._peers else []
        for peer in waiting:
            yield from self._read(peer)

    def tell(self, message: dict[str, Any], to: Identity | None = None) -> None:
        """Send a message to all that cooperate, or to one of them."""
        import json

        told = [peer for peer in self.peers if peer.cooperative and (to is None or peer.who == to)]
        packet = json.dumps(message).encode()
        for other in told:
            other.tell(packet)

    def _accept_all(self) -> Iterator[tuple[Peer | None, Report]]:
        while self._listening:
            if len(self._peers) >= self._most:
                self._listen(False)
                return
            try:
                descriptor, _address = self._listener._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._listen(False)  # no descriptor left
                return
            connection = _socket.socket(fileno=descriptor)
            credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size)
            pid, uid, _gid = _UCRED.unpack(credentials)
            from_same = sum(peer.pid == pid for peer in self._peers.values())
            if uid != os.getuid() or from_same >= _MOST_PER_PROCESS:
                connection.close()
                if not self._refused:
                    self._refused = True
                    yield None, Unusable(pid, f"a connection of uid {uid}, its process's number {from_same + 1}")
                continue
            peer = Peer(connection, Identity(contract.node_name(), pid, tree.started(pid)))
            self._peers[descriptor] = peer
            self._poller.register(descriptor, select.POLLIN)
            yield from self._read(peer)

    def _listen(self, listening: bool) -> None:
        """Wait for new connections, or leave them waiting: one that is closed would take us for dead."""
        if listening != self._listening:
            self._listening = listening
            if listening:
                self._poller.register(self._listener.fileno(), select.POLLIN)
            else:
                self._poller.unregister(self._listener.fileno())

    def _read(self, peer: Peer) -> Iterator[tuple[Peer | None, Report]]:
        for _turn in range(_MOST_AT_A_TIME):
            packet = peer.receive()
            if packet is None:
                return
            if not packet:
                self._drop(peer)
                if peer.cooperative:
                    yield peer, Gone(peer.who)
                return
            report = _parse(packet, peer)
            if report is not None:
                yield peer, report

    def _drop(self, peer: Peer) -> None:
        self._poller.unregister(peer.fileno())
        del self._peers[peer.fileno()]
        peer.close()
        self._listen(True)

    def close(self) -> None:
        for peer in self.peers:
            self._drop(peer)
        self._listen(False)
        self._listener.close()


def _parse(packet: bytes, peer: Peer) -> Report | None:
    """Return what a packet says, None where it says nothing new, and note on the peer what it says of itself."""
    import json

    report: Report
    try:
        if len(packet) > contract.MAX_MESSAGE:
            raise ValueError("too long")
        message = json.loads(packet)
        verb = message["verb"]
        if verb == contract.REGISTERED:
            timeout, stacks = _seconds(message["timeout"]), message.get("stacks")
            peer.program = _text(message["program"], slice(-contract.LONGEST_TEXT, None))
            peer.stacks = stacks if isinstance(stacks, int) and signal.SIGRTMIN < stacks <= signal.SIGRTMAX else None
            peer.cooperative = True
            report = Registered(peer.program, peer.who, timeout, message.get("is_launcher") is True)
        elif verb == contract.POLLED:
            report = Polled(peer.who, message["stop"] is True)
        elif verb == contract.FINISHED:
            peer.cooperative = False
            report = Finished(peer.who)
        elif verb == contract.MORE_TIME:
            report = MoreTime(peer.who, _seconds(message["seconds"]))
        elif verb == contract.STATUS:
            report = StatusText(peer.pid, _text(message["text"], slice(contract.LONGEST_TEXT)))
        else:
            raise ValueError("of an unknown kind")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        report = Unusable(peer.pid, f"a message that cannot be read ({type(error).__name__}: {error})")
    if isinstance(report, (MoreTime, StatusText)):
        return report if peer.may_repeat() else None
    key = (type(report).__name__, isinstance(report, Polled) and report.stop)
    if key in peer.said:
        return None
    peer.said.add(key)
    return report


def _text(value: Any, part: slice) -> str:
    """Return a part of a text as one printable line."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return "".join(letter if letter.isprintable() else "?" for letter in value[part])


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise ValueError("not a number of seconds")
    return float(value)
