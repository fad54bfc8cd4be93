"""``python -m bench [NAME ...] [--quick] [--json FILE]``: run benchmarks and print their ratios."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import Figure, Skipped

BENCHMARKS = {
    "openflow_codec": "the OpenFlow codec against os-ken's",
    "packet_in": "table misses answered in a second against os-ken",
    "mdp": "the migration decision against QuantEcon",
    "placement": "choosing a data centre, and many decisions at once",
    "trace": "five policies on a day of taxis (FOLLOWME_TRACE)",
    "lisp_dataplane": "two LISP tunnel routers in the kernel against a path without a tunnel (root)",
    "mapserver": "a LISP map server: look-ups a second, and a move told to 1000 subscribers",
    "switch_rules": "100 000 rewrite rules into Open vSwitch against ovs-ofctl (root)",
    "federation_moves": "users' moves through four domains' controllers over NATS",
    "federation_mappings": "a million mappings in one controller, and a move among them told to three",
    "federation_takeover": "a domain's active controller is killed while machines move (root)",
    "following": "a machine follows its user in the lab, against the papers (root)",
    "lisp_following": "the same over LISP: downtime, pings lost, the controller's distance (root)",
}


def main() -> int:
    arguments = _arguments()
    # A pipe or file has no width of its own: give the table what it needs.
    console = Console() if sys.stdout.isatty() else Console(width=150)
    errors = Console(stderr=True, soft_wrap=True)
    found: dict[str, Any] = {}

    def say(text: str) -> None:
        errors.print(f"  {text}", markup=False, highlight=False)

    for name in arguments.names or BENCHMARKS:
        errors.print(f"[bold]{name}[/bold]: {BENCHMARKS[name]}", highlight=False)
        try:
            module = importlib.import_module(f"bench.{name}")
            begin = time.monotonic()
            figures: list[Figure] = module.figures(arguments.quick, say)
        except (Skipped, ImportError) as problem:
            console.print(f"{name}: skipped: {problem}", markup=False)
            found[name] = {"skipped": str(problem)}
            continue
        console.print(_table(name, figures, time.monotonic() - begin))
        found[name] = [asdict(figure) for figure in figures]
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    missed = [figure.what for figures in found.values() if isinstance(figures, list)
              for figure in (Figure(**one) for one in figures) if figure.met is False]  # fmt: skip
    for what in missed:
        console.print(f"missed: {what}", style="red")
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    lines = [f"  {name:16} {what}" for name, what in BENCHMARKS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Runs benchmarks; each measures its peer or limit in the same run.",
        epilog="benchmarks:\n" + "\n".join(lines), formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: noisier figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in BENCHMARKS:
            parser.error(f"{name!r} is not a benchmark; there are {', '.join(BENCHMARKS)}")
    return arguments


def _table(name: str, figures: list[Figure], seconds: float) -> Table:
    table = Table(title=f"{name} ({seconds:.0f} s)", title_justify="left")
    for heading in ("figure", "ours", "peer", "", "ratio", "target", ""):
        table.add_column(heading, justify="right" if heading in ("ours", "peer", "ratio") else "left")
    for one in figures:
        verdict = {True: "[green]met[/green]", False: "[red]missed[/red]", None: ""}[one.met]
        ratio = "" if one.ratio is None else f"{one.ratio:.3g}"
        peer = "" if one.peer is None else _value(one.peer, one.unit)
        table.add_row(one.what, _value(one.ours, one.unit), peer, one.peer_name, ratio, one.target, verdict)
    return table


def _value(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
