"""The way up: an inner kforge-run registers with the outer one of its job on the same node.

The outer one then signals it, and not the shell between the two, and waits for what it still saves.
"""

from __future__ import annotations

# As in control.py: `import socket` is a tenth of our start.
import _socket
import os
import struct

from ...bootstrap import contract, wire

#: How long a full backlog may hold up our start: a struct timeval of one second, a guess. A timeout of Python's own
#: would make the socket non-blocking, and connect(2) fail at once.
_PATIENCE = struct.pack("@ll", 1, 0)


class Outer:
    """A connection to the outer kforge-run, which ends with this process.

    Raises:
        OSError: there is none, or it does not listen.
    """

    def __init__(self) -> None:
        folder = contract.control_folder()
        if folder is None:
            raise FileNotFoundError("no kforge-run above this one")
        folder_fd = contract.open_private_folder(folder)
        self._connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            self._connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _PATIENCE)
            self._connection.connect(contract.socket_address(folder_fd))
        except OSError:
            self._connection.close()
            raise
        finally:
            os.close(folder_fd)
        self._send(wire.Registered("kforge-run", 0, is_launcher=True))

    def finished(self) -> None:
        """Say that what runs below this kforge-run has saved."""
        self._send(wire.Finished())

    def _send(self, message: wire.Message) -> None:
        try:
            self._connection.send(wire.encode(message), _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except OSError:
            pass  # it is gone, or stuck; what it says to us comes as a signal
