"""Run the benchmarks: ``python -m benchmarks [--only NAME] [--quick] [--rounds N] [--output FILE]``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.suite import NAMES, run, show, write

#: a real stream of River's, used where it is there
_ELECTRICITY = Path(
    os.environ.get("PERENNIAL_DATA", Path(__file__).parents[2] / "shared" / "data"), "electricity.parquet"
)


def main(arguments: list[str]) -> int:
    """Measure, show and write; the exit status is 1 if a target is missed, 2 if results differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Each number against its peer.")
    parser.add_argument("--only", action="append", choices=NAMES, help="run this benchmark; may be repeated")
    parser.add_argument("--quick", action="store_true", help="smaller sizes: a look, not numbers to quote")
    parser.add_argument("--rounds", type=int, help="interleaved rounds, of which the median is taken")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    chosen = parser.parse_args(arguments)
    outcome = run(
        chosen.only or NAMES,
        "quick" if chosen.quick else "full",
        rounds=chosen.rounds,
        electricity=_ELECTRICITY if _ELECTRICITY.exists() else None,
        tell=lambda words: print(words, file=sys.stderr, flush=True),
    )
    show(outcome)
    write(outcome, chosen.output)
    if outcome.different:
        return 2
    return 1 if any(figure.met is False for figure in outcome.figures) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
