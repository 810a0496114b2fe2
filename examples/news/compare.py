"""Should a headline classifier be trained anew, or fine-tuned as labels come? Both, on the same headlines.

Run from the clone, after `make demo` or `make test` has made the environment, and
`.venv/bin/pip install 'torch>=2.4' safetensors`:

    .venv/bin/python examples/news/compare.py [headlines.parquet]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa
from headlines import NAME, find, made_up, read
from rich.console import Console

import perennial as pn
from perennial import learners, strategies, triggers

HERE = Path(__file__).parent
#: the same network everywhere; passes and rates were chosen on the first 45 days alone, before anything is predicted
TRAINING: dict[str, Any] = {
    "module": "encoder:Encoder",
    "encode": "encoder:encode",
    "rows": 32,
    "epochs": 2,
    "rate": 0.01,
    "update_epochs": 2,
    "update_rate": 0.003,
    "self_supervised": 0.0,
}


def network(**settings: Any) -> Any:
    """The classifier, with settings of its own."""
    return learners.FineTuned(**{**TRAINING, **settings})


def compare(
    table: pa.Table, *, initial: str = "45d", epochs: int = 2, places: int = 1 << 14, jobs: int | None = None
) -> pn.BacktestResult:
    """Training anew every month and week, and fine-tuning every day in five ways, on a stream of headlines.

    Parameters
    ----------
    table : Table
        ``timestamp``, ``title`` and ``target``.
    initial : str
        How long before the first training.
    epochs, places : int
        Passes of a fit, and the size of the encoder.
    jobs : int, optional
        Processes; as many as there are CPUs unless given.
    """
    stream = pn.Stream(
        table,
        time="timestamp",
        time_zone="UTC",
        target="target",
        text=["title"],
        label_delay="1d",
        batch="1d",
        name="news",
    )

    def made(**settings: Any) -> Any:
        return network(epochs=epochs, params={"places": places}, **settings)

    def anew(every: str) -> strategies.Stateless:
        return strategies.Stateless(made(), initial=initial, trigger=triggers.every(every))

    def tuned(**settings: Any) -> strategies.Stateful:
        return strategies.Stateful(made(**settings), initial=initial, trigger=triggers.every("1d"))

    return pn.backtest(
        stream,
        {
            "frozen": strategies.Frozen(made(), initial=initial),
            "monthly, anew on all": anew("30d"),
            "weekly, anew on all": anew("7d"),
            "daily, fine-tuned": tuned(),
            "daily, with an anchor": tuned(anchor=0.001),
            "daily, with replay": tuned(replay=2000),
            "daily, shrunk and perturbed": tuned(shrink=0.95, perturb=0.001),
            "daily, with a loss of its own": tuned(self_supervised=0.1),
        },
        metrics=["log_loss", "accuracy"],
        jobs=jobs,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", help=f"headlines, as Parquet; else {NAME} in $PERENNIAL_DATA")
    parser.add_argument("--output", type=Path, default=HERE / "report", help="folder to write the report to")
    parser.add_argument("--jobs", type=int, help="processes; as many as there are CPUs unless given")
    arguments = parser.parse_args()
    file = find(arguments.file)
    if file is None:
        print(f"There is no {NAME} here: this is a stream of made-up headlines, and shows only how it works.")
    result = compare(made_up() if file is None else read(file), jobs=arguments.jobs)
    Console().print(result.table())
    arguments.output.mkdir(parents=True, exist_ok=True)
    print(f"wrote {result.to_html(arguments.output / 'report.html')}")
    print(f"wrote {result.to_json(arguments.output / 'report.json')}")
