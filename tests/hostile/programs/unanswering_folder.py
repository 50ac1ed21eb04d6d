"""A folder whose file server stops answering, as a dead NFS server does: also to whoever only looks a name up.

Run as `python unanswering_folder.py FOLDER FLAG`: mounts an empty file system (FUSE) on FOLDER, says `mounted`, and
answers nothing any more as soon as the file FLAG exists.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys

#: What is asked of a file system (enum fuse_opcode in linux/fuse.h).
LOOKUP, FORGET, GETATTR, INIT, OPENDIR, READDIR, RELEASEDIR, INTERRUPT, BATCH_FORGET = 1, 2, 3, 26, 27, 28, 29, 36, 42
#: struct fuse_in_header: length, opcode, unique, node, uid, gid, pid, padding.
REQUEST = struct.Struct("<IIQQIIII")
#: struct fuse_out_header: length, error, unique.
ANSWER = struct.Struct("<IiQ")
MODE = stat.S_IFDIR | 0o755
#: struct fuse_attr of the one folder that there is: number, sizes, times, mode, links, owner, device, block size.
ATTRIBUTES = struct.pack("<QQQQQQIIIIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0, 0, MODE, 2, 0, 0, 0, 4096, 0)
#: struct fuse_init_out: version 7.31, and how much at a time.
STARTED = struct.pack("<IIIIHHIIHHI", 7, 31, 0, 0, 12, 10, 4096 * 4, 1, 32, 0, 0) + bytes(24)


def answer_to(opcode: int) -> tuple[int, bytes]:
    """Return an error (errno(3)) or 0, and what is answered."""
    if opcode == INIT:
        return 0, STARTED
    if opcode == GETATTR:
        return 0, struct.pack("<QII", 0, 0, 0) + ATTRIBUTES
    if opcode == OPENDIR:
        return 0, struct.pack("<QII", 1, 0, 0)
    if opcode in (READDIR, RELEASEDIR):
        return 0, b""
    return (errno.ENOENT if opcode == LOOKUP else errno.ENOSYS), b""


def main(folder: str, flag: str) -> None:
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode={MODE:o},user_id=0,group_id=0,allow_other"
    if ctypes.CDLL(None).mount(b"unanswering", os.fsencode(folder), b"fuse.unanswering", 0, options.encode()) != 0:
        sys.exit("cannot mount it")
    print("mounted", flush=True)
    while True:
        try:
            request = os.read(device, 1 << 17)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return  # unmounted
            continue
        _length, opcode, unique, *_ = REQUEST.unpack_from(request)
        if opcode not in (FORGET, INTERRUPT, BATCH_FORGET) and not os.path.exists(flag):
            why, data = answer_to(opcode)
            os.write(device, ANSWER.pack(ANSWER.size + len(data), -why, unique) + data)


if __name__ == "__main__":
    main(*sys.argv[1:])
