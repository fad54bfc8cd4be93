"""A real day of 499 taxis: read, map, learn, six policies; against 30 s, 1 GB, and NumPy's own reader.

It needs the trace and the cells: FOLLOWME_TRACE names the trace (columns in docs/simulate.md), FOLLOWME_CELLS the
cells, by default sf_cells_209.csv beside it. The whole runs in a process of its own, so that the memory is its.

    FOLLOWME_TRACE=sf_taxis_2008-05-21_PDT.csv.gz python -m bench.trace
    python -m bench.trace TRACE [CELLS]
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from bench.figures import Figure, Say, Skipped
from followme.analysis.comparison import POLICY_NAMES, simulate_trace
from followme.analysis.trace import read_trace

MOST_S = 30.0
MOST_BYTES = 1e9


def files() -> tuple[Path, Path]:
    """The trace and the cells; ``Skipped`` says what is not there."""
    name = os.environ.get("FOLLOWME_TRACE")
    if not name:
        raise Skipped("FOLLOWME_TRACE does not name a trace")
    trace = Path(name)
    cells = Path(os.environ.get("FOLLOWME_CELLS") or trace.parent / "sf_cells_209.csv")
    for path in (trace, cells):
        if not path.is_file():
            raise Skipped(f"{path} is not there")
    return trace, cells


def measured(trace: Path, cells: Path) -> dict[str, float]:
    """For the process of its own: seconds of all, bytes at most, the margin of the learned process."""
    start = perf_counter()
    found = simulate_trace(trace, cells)
    seconds = perf_counter() - start
    print("\n".join(found.lines()), file=sys.stderr)
    assert found.margin is not None
    return {"seconds": seconds, "bytes": _most_bytes(), "share": found.margin.share}


def _most_bytes() -> float:
    """The largest resident size so far. Not getrusage's: that begins with what the parent had at the fork."""
    status = Path("/proc/self/status").read_text()
    return 1024.0 * next(float(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def readers(trace: Path) -> tuple[float, float]:
    """Seconds to read the trace: ours, which looks at every row, and ``numpy.loadtxt``, which must find it good."""
    start = perf_counter()
    read_trace(trace)
    ours = perf_counter() - start
    opener = gzip.open if trace.suffix == ".gz" else open
    start = perf_counter()
    with opener(trace, "rt") as lines:
        np.loadtxt(lines, delimiter=",", skiprows=1)
    return ours, perf_counter() - start


def figures(quick: bool, say: Say) -> list[Figure]:
    """For the runner (``python -m bench``); ``quick`` leaves out the other reader."""
    trace, cells = files()
    command = [sys.executable, "-m", "bench.trace", "--measure", str(trace), str(cells)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in run.stderr.splitlines():
        say(line)
    got = json.loads(run.stdout)
    found = [
        Figure(
            f"read, map, learn, {len(POLICY_NAMES)} policies", "s", got["seconds"], MOST_S, "target",
            MOST_S / got["seconds"], "at most 30 s", got["seconds"] <= MOST_S,
        ),
        Figure(
            "memory at most", "MB", 1e-6 * got["bytes"], 1e-6 * MOST_BYTES, "target",
            MOST_BYTES / got["bytes"], "at most 1 GB", got["bytes"] <= MOST_BYTES,
        ),
        Figure(
            "cost of mdp on held-out hours", "%", 100.0 * (1.0 + got["share"]), 100.0, "cheapest of the others",
            1.0 / (1.0 + got["share"]), "not dearer", got["share"] <= 0.0,
        ),
    ]  # fmt: skip
    if not quick:
        ours, theirs = readers(trace)
        found.append(Figure("read the trace", "s", ours, theirs, "numpy.loadtxt", theirs / ours))
    return found


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["--measure"]:
        print(json.dumps(measured(Path(arguments[1]), Path(arguments[2]))))
        return
    for name, value in zip(("FOLLOWME_TRACE", "FOLLOWME_CELLS"), arguments, strict=False):
        os.environ[name] = value
    try:
        for one in figures(False, print):
            peer = "" if one.peer is None else f", {one.peer_name} {one.peer:.4g} {one.unit}"
            verdict = {True: ": met", False: ": missed", None: ""}[one.met]
            print(f"{one.what:34} {one.ours:8.4g} {one.unit}{peer}, ratio {one.ratio:.3g}{verdict}")
    except Skipped as reason:
        print(f"skipped: {reason}")


if __name__ == "__main__":
    main()
