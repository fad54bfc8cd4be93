"""The command line: thin, one function a command. Exit codes: 0 done, 1 it failed, 2 wrong use or config."""

from __future__ import annotations

from .application import app, main

__all__ = ["app", "main"]
