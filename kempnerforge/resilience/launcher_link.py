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

from ..bootstrap import contract, wire
from .descriptors import NONE, above_stdio
from .dispositions import is_caught

#: How long register() waits for a launcher whose backlog is full (s): a guess.
_CONNECT_TIMEOUT = 1


class LauncherLink:
    """A connection to the launcher."""

    def __init__(self, connection: socket.socket, stacks: int | None) -> None:
        self._connection = connection
        self._stacks = stacks

    def fileno(self) -> int:
        """Return the descriptor, for poll."""
        return self._connection.fileno()

    # --- up ------------------------------------------------------------------------------------------

    def registered(self, timeout: float | None) -> None:
        """Say who we are, and our own limit (s; None: no forced exit)."""
        program = (getattr(sys, "argv", None) or [""])[0] or sys.executable or "python"
        self._send(wire.Registered(program, timeout or 0, self._stacks))

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
        self._send(wire.ForcedExit())

    def status(self, text: str) -> None:
        """Have a text logged."""
        self._send(wire.Status(text))

    def _send(self, message: wire.Message) -> None:
        packet = wire.encode(message)
        try:
            self._connection.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # Gone, or not reading: a training step never waits for whoever watches it.

    # --- down ----------------------------------------------------------------------------------------

    def receive(self) -> list[wire.Notice]:
        """Return the notices that have come.

        Raises:
            EOFError: the launcher is gone.
            OSError: the connection is not ours any more.
        """
        notices: list[wire.Notice] = []
        while True:
            try:
                packet = self._connection.recv(wire.MAX_MESSAGE + 1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return notices
            except ConnectionResetError:
                raise EOFError from None  # killed before it had read all we sent
            if not packet:
                raise EOFError
            try:
                message = wire.decode(packet)
            except ValueError:
                continue  # what cannot be read is answered with nothing at all
            if isinstance(message, wire.Notice):
                notices.append(message)

    # --- the end -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close our end; in a forked child this leaves the parent's connection as it is."""
        if self._stacks is not None:
            faulthandler.unregister(self._stacks)
        try:
            self._connection.close()
        except OSError:
            pass  # closed by the program


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

    def connect(self, log: int) -> LauncherLink:
        """Connect, and have a signal dump the stacks of all threads into the log.

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
        return LauncherLink(connection, _dump_stacks_on_signal(log))

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


def _dump_stacks_on_signal(log: int) -> int | None:
    """Choose a real-time signal that nothing uses; None: all are taken, or there is no log."""
    if log == NONE:
        return None
    for signum in range(signal.SIGRTMAX - 1, signal.SIGRTMIN, -1):
        if signal.getsignal(signum) == signal.SIG_DFL and not is_caught(signum):
            faulthandler.register(signum, file=log, all_threads=True, chain=False)
            return signum
    return None
