"""One of several ranks: meets the others where PyTorch's would, then trains, and polls. `distributed.py STEPS`.

Each line begins with the rank. It needs no PyTorch, so that a dozen of them start at once.
"""

from __future__ import annotations

import os
import socket
import sys
import time

from kempnerforge.resilience import shutdown_handler
from tests.slurm.programs.training import checkpoint_of, load, save, say

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
master = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])


def meet() -> None:
    """Connect to rank 0 as init_process_group() does, which returns when all are there."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        connect().close()  # torchrun listens there itself
    elif rank == 0:
        with socket.create_server(("", master[1])) as server:
            others = [server.accept()[0] for _ in range(1, size)]
            met = sorted(int(other.makefile().readline()) for other in others)
            assert met == list(range(1, size))
            for other in others:
                other.close()
    else:
        with connect() as connection:
            connection.sendall(f"{rank}\n".encode())
            connection.recv(1)


def connect() -> socket.socket:
    while True:
        try:
            return socket.create_connection(master)
        except ConnectionRefusedError:
            time.sleep(0.05)  # nobody listens yet


meet()
say(f"{rank}: of {size}, local {os.environ['LOCAL_RANK']} on {os.environ['SLURMD_NODENAME']}, met at {master[0]}")
steps, checkpoint = int(sys.argv[1]), checkpoint_of(str(rank))
step = load(checkpoint, f"{rank}: ")
while step < steps and not shutdown_handler.should_shutdown():
    time.sleep(0.2)
    step += 1
    say(f"{rank}: step {step} done")
time.sleep(1 + rank * 0.3)  # somebody is still saving when others have ended
save(checkpoint, step)
say(f"{rank}: checkpoint saved at step {step}")
if step == steps:
    say(f"{rank}: finished at step {step}")
shutdown_handler.finish()
