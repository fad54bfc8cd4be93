"""What tests of pictures share."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written from now on."""
    kept: list[Figure] = []
    save = Figure.savefig

    def savefig(figure: Figure, *where: Any, **how: Any) -> None:
        kept.append(figure)
        save(figure, *where, **how)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return kept
