"""``python -m followme``."""

from followme.cli import main

main()
