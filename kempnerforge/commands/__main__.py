"""`python -m kempnerforge.commands`: the same as the command `kforge`."""

from .cli import main

if __name__ == "__main__":
    main()
