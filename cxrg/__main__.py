"""``python -m cxrg`` is the command ``cxrg``."""

from cxrg.cli import main

if __name__ == "__main__":  # a process that a run starts imports this too
    main()
