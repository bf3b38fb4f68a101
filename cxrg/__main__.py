"""``python -m cxrg`` is the command ``cxrg``."""

from cxrg.cli import main

main()
