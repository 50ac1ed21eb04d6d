"""The connection to kforge-run: its end is the process's end, and its messages are those of ``bootstrap.wire``.

Imported only where the environment names a launcher. Nothing here raises or blocks: without a launcher, or with one
that talks rubbish, a handler is simply on its own.
"""

from __future__ import annotations

import errno
import faulthandler
import os
import signal
import socket
import struct
import sys
import threading

from ..bootstrap import contract, wire
from .descriptors import NONE, Owned, above_stdio
from .dispositions import is_caught

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: How long register() waits for a launcher whose backlog is full (s): a guess.
_CONNECT_TIMEOUT = 1
_INT = struct.Struct("i")


class LauncherLink:
    """A connection to the launcher.

    Args:
        connection: owned by this object.
        log: gets the stacks of all threads on a signal.
    """

    def __init__(self, connection: socket.socket, log: int) -> None:
        self._connection = connection
        self._owned = Owned(connection.fileno())
        self._log = log
        self._stacks = _dump_stacks_on_signal(log)
        #: As it was said last; None: it was not, or this is closed for good.
        self._registration: wire.Registered | None = None
        #: The watcher mends, and so does who has something to say. Reentrant: a signal handler may interrupt it.
        self._mending = threading.RLock()

    def fileno(self) -> int:
        """Return the descriptor, for poll."""
        return self._owned.fd

    @property
    def is_ours(self) -> bool:
        """Whether the program has left the connection open."""
        return self._owned.is_ours

    def mend(self, log: int, wait: bool = True) -> None:
        """Connect and register anew, if a program has closed the connection with all else that it does not know.

        Args:
            log: where stacks go from now on.
            wait: for another thread that is at it.
        """
        if self.is_ours or self._registration is None or not self._mending.acquire(blocking=wait):
            return
        try:
            if not self.is_ours:
                self._connect_anew(log, self._registration)
        finally:
            self._mending.release()

    def _connect_anew(self, log: int, registration: wire.Registered) -> None:
        self._forget()
        self._log = log
        try:
            launcher = Launcher()
        except OSError:
            return
        try:
            self._connection = launcher.connect()
        except OSError:
            return
        finally:
            launcher.close()
        self._owned = Owned(self._connection.fileno())
        self._stacks = _dump_stacks_on_signal(log)
        self._registration = registration._replace(stacks=self._stacks)
        self._send_now(self._registration)

    # --- up ------------------------------------------------------------------------------------------

    def registered(self, timeout: float | None) -> None:
        """Say who we are, and our own limit (s; None: no forced exit)."""
        program = (getattr(sys, "argv", None) or [""])[0] or sys.executable or "python"
        self._registration = wire.Registered(program, timeout or 0, self._stacks)
        self._send(self._registration)

    def joined(self, world: str, rank: int, size: int) -> None:
        """Say which ranks have to stop together with this one."""
        self._send(wire.Joined(world, rank, size))

    def noticed(self) -> None:
        """Say that a notice has come to this rank: kforge-run may not have it."""
        self._send(wire.Noticed())

    def left(self) -> None:
        """Say that this process goes without having been told to."""
        self._send(wire.Left())

    def polled(self, stop: bool) -> None:
        """Say what a poll returned."""
        self._send(wire.Polled(stop))

    def finished(self) -> None:
        """Say that everything is saved."""
        self._send(wire.Finished())

    def more_time(self, seconds: float) -> None:
        """Ask for so many seconds from now."""
        self._send(wire.MoreTime(seconds))

    def forced_exit(self) -> None:
        """Say that the process ends itself."""
        self._send(wire.ForcedExit(), wait=False)

    def status(self, text: str) -> None:
        """Have a text logged."""
        self._send(wire.Status(text))

    def _send(self, message: wire.Message, wait: bool = True) -> None:
        self.mend(self._log, wait)
        if self.is_ours:
            self._send_now(message)

    def _send_now(self, message: wire.Message) -> None:
        packet = wire.encode(message)
        try:
            self._connection.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # Gone, or not reading: a training step never waits for whoever watches it.

    # --- down ----------------------------------------------------------------------------------------

    def receive(self, adopt: Callable[[int, int], None]) -> list[wire.Notice]:
        """Return the notices that have come.

        Args:
            adopt: takes the page, its descriptor (`NONE`: there is no page) and the number of our line.

        Raises:
            EOFError: the launcher is gone.
        """
        notices: list[wire.Notice] = []
        while self.is_ours:
            try:
                packet, descriptor = _receive(self._connection)
            except BlockingIOError:
                return notices
            except ConnectionResetError:
                raise EOFError from None  # killed before it had read all we sent
            except OSError:
                break  # the program has closed it this very moment
            if not packet:
                raise EOFError
            try:
                message = wire.decode(packet)
            except ValueError:
                continue  # what cannot be read is answered with nothing at all
            if isinstance(message, wire.Notice):
                notices.append(message)
            elif isinstance(message, wire.Page):
                adopt(descriptor, message.line)
        return notices

    # --- the end -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close our end; in a forked child this leaves the parent's connection as it is."""
        self._registration = None
        self._forget()

    def _forget(self) -> None:
        if self._stacks is not None:
            faulthandler.unregister(self._stacks)
        self._stacks = None
        self._connection.detach()  # or Python would close what may be the program's by now
        self._owned.close()


class Launcher:
    """The launcher that the environment names.

    Raises:
        OSError: there is none: a stale environment, or that of another node or job.
    """

    def __init__(self) -> None:
        folder = contract.control_folder()
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, "no launcher on this node")
        self._folder = above_stdio(contract.open_private_folder(folder))

    def connect(self) -> socket.socket:
        """Connect.

        Raises:
            OSError: no kforge-run listens.
        """
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        opened = socket.socket(socket.AF_UNIX, kind)
        connection = socket.socket(socket.AF_UNIX, kind, fileno=above_stdio(opened.detach()))
        try:
            connection.setblocking(True)  # whatever socket.setdefaulttimeout() says
            # Not settimeout(): a connect that does not block fails at once when the backlog is full.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _CONNECT_TIMEOUT, 0))
            connection.connect(contract.socket_address(self._folder))
        except OSError:
            connection.close()
            raise
        return connection

    def notice(self) -> wire.Notice | None:
        """Return the notice that came before us, if there is a legible one."""
        try:
            # O_NONBLOCK: never wait for a writer, whatever is there.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(contract.NOTICE_FILE, flags, dir_fd=self._folder)
            with os.fdopen(fd, "rb") as file:
                message = wire.decode(file.read(wire.MAX_MESSAGE + 1))
        except (OSError, ValueError):
            return None
        return message if isinstance(message, wire.Notice) else None

    def close(self) -> None:
        """Forget the folder; a connection stays."""
        os.close(self._folder)


def _receive(connection: socket.socket) -> tuple[bytes, int]:
    """Return a packet and the descriptor that came with it; `NONE`: none did."""
    room, flags = socket.CMSG_SPACE(_INT.size), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    packet, extras, _flags, _address = connection.recvmsg(wire.MAX_MESSAGE + 1, room, flags)
    for level, kind, extra in extras:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return packet, above_stdio(_INT.unpack(extra[: _INT.size])[0])
    return packet, NONE


def _dump_stacks_on_signal(log: int) -> int | None:
    """Choose a real-time signal that nothing uses; None: all are taken, or there is no log."""
    if log == NONE:
        return None
    for signum in range(signal.SIGRTMAX - 1, signal.SIGRTMIN, -1):
        if signal.getsignal(signum) == signal.SIG_DFL and not is_caught(signum):
            faulthandler.register(signum, file=log, all_threads=True, chain=False)
            return signum
    return None
