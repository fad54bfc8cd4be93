"""``python -m followme.cli`` is ``followme``."""

from . import main

main()
