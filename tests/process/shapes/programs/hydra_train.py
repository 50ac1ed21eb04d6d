"""Trains below hydra, which has a configuration and a folder for each run."""

from __future__ import annotations

import hydra
import train


@hydra.main(version_base=None)
def main(_: object) -> None:
    train.train()


if __name__ == "__main__":
    main()
