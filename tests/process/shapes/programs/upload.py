"""What comes after the training: it must not be interrupted."""

from __future__ import annotations

import time

from train import say


def upload() -> None:
    try:
        time.sleep(0.3)
        say("SAVED upload")
    except KeyboardInterrupt:
        say("hurt upload")


if __name__ == "__main__":
    upload()
