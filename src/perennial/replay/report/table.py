"""The report on a terminal: strategies, no-skill lines, costs and the recommendation, readable at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from perennial.replay.report import reading, words

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

Cell = tuple[str, str]  #: text and its rich style
NAME_WIDTH = 30  #: longer names are folded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    title: str  #: its words stand one below the other
    cells: Sequence[Cell]  #: one per strategy, then one per no-skill line

    @property
    def width(self) -> int:
        """Characters of its longest line."""
        return max(map(len, [*self.title.split("\n"), *(text for text, _ in self.cells)]))


def table(report: dict[str, Any]) -> RenderableType:
    """The report for a terminal, as something that rich prints.

    Strategies are sorted by money if prices were given, else by the first metric; the best score of each metric is
    bold and starred. If scores and costs do not fit side by side, they come one below the other. Names are shown as
    they are, never read as markup.

    Parameters
    ----------
    report : dict
        The content of ``report.json``.
    """
    return _Terminal(report)


def show(report: dict[str, Any], console: Console | None = None) -> None:
    """Print the report; plain text of 80 columns if the output is no terminal."""
    if console is None:
        from rich.console import Console

        console = Console(highlight=False)
    console.print(table(report))


@final
class _Terminal:
    """Lays the report out when the width is known."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._head()
        scores, costs = self._scores(), self._costs()
        for columns in self._fitted([*scores, *costs], options.max_width) or (
            *self._split(scores, options.max_width),
            *self._split(costs, options.max_width),
        ):
            yield self._grid(columns)
        yield from self._foot()

    def _names(self) -> list[str]:
        strategies, lines = self.report["strategies"], self.report["baselines"]
        return [str(s["name"]) for s in strategies] + [words.baseline(b["name"]) for b in lines]

    def _fitted(self, columns: Sequence[_Column], width: int) -> list[Sequence[_Column]]:
        """All columns as one table if that is narrow enough, else nothing."""
        name = min(NAME_WIDTH, max(map(len, self._names()), default=0))
        return [columns] if name + 1 + sum(column.width + 1 for column in columns) <= width else []

    def _split(self, columns: Sequence[_Column], width: int) -> list[Sequence[_Column]]:
        """Columns in as few tables as the width allows, at least one column each."""
        out: list[list[_Column]] = []
        for column in columns:
            if not out or not self._fitted([*out[-1], column], width):
                out.append([])
            out[-1].append(column)
        return [*out]

    def _head(self) -> RenderResult:
        from rich.text import Text

        data, evaluated = self.report["data"], self.report["evaluated"]
        yield Text.assemble(
            ("Backtest of ", "bold"),
            (str(data["name"]), "bold"),
            f": {words.count(evaluated['rows'])} rows scored, {words.day(evaluated['first'])} to "
            f"{words.day(evaluated['last'])}; the same rows for every strategy",
        )
        if data["implicit_label_delay"]:
            yield Text(reading.IMPLICIT_DELAY, style="bold")

    def _grid(self, columns: Sequence[_Column]) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        out = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
        out.add_column("strategy", max_width=NAME_WIDTH, overflow="fold", vertical="bottom")
        for column in columns:
            out.add_column(column.title, justify="right", no_wrap=True, min_width=column.width)
        strategies = reading.ranked(self.report)
        names: list[Cell] = [(s["name"], "") for s in strategies]
        names += [(words.baseline(b["name"]), "dim") for b in self.report["baselines"]]
        for i, (name, style) in enumerate(names):
            if i == len(strategies):
                out.add_section()
                out.add_row(Text("no-skill lines", style="italic"))
            out.add_row(Text(name, style=style), *(Text(*column.cells[i]) for column in columns))
        return out

    def _scores(self) -> list[_Column]:
        strategies, lines = reading.ranked(self.report), self.report["baselines"]
        out = []
        for metric in self.report["metrics"]:
            top = reading.best(self.report, metric)
            cells: list[Cell] = []
            for strategy in strategies:
                value = words.finite(strategy["scores"].get(metric["name"]))
                first = value is not None and value == top
                cells.append((words.score(value) + ("*" if first else " "), "bold green" if first else ""))
            cells += [(words.score(line["scores"].get(metric["name"])) + " ", "dim") for line in lines]
            out.append(_Column(title=_stacked(words.metric(metric["name"])), cells=cells))
        return out

    def _costs(self) -> list[_Column]:
        report = self.report
        shown = [("train\nCPU s", "train_cpu_seconds", _cpu), ("train-\nings", "trainings", words.count)]
        shown.append(("rows\ntrained", "rows_trained", words.count))
        if reading.priced(report):
            shown.insert(0, ("money", "money", words.money))
        blank: list[Cell] = [("", "")] * len(report["baselines"])
        return [
            _Column(title=title, cells=[(spell(s["costs"].get(key)), "") for s in reading.ranked(report)] + blank)
            for title, key, spell in shown
        ]

    def _foot(self) -> RenderResult:
        from rich.text import Text

        yield Text("* best of the strategies on that metric", style="dim")
        if any(line["name"].startswith("no_change") for line in self.report["baselines"]):
            yield Text(
                "No change repeats the last label known row by row; strategies that learn by batch do not have it.",
                style="dim",
            )
        for caution in reading.cautions(self.report):
            yield Text(f"Warning: {caution}", style="yellow")
        if (schedule := self.report.get("clairvoyant")) is not None:
            yield Text(
                f"Clairvoyant schedule of {schedule['strategy']}: {words.count(schedule['trainings'])} trainings, "
                f"cost {words.score(schedule['cost'])}; a lower bound that nobody can reach in advance."
            )
        if (advice := self.report.get("recommended")) is not None:
            yield Text.assemble(
                ("Recommended: ", "bold"),
                (advice["strategy"], "bold green"),
                f" (by {words.metric(advice['by'])}): {advice['reason']}",
            )
            for sentence in reading.beside(self.report):
                yield Text(sentence)
        else:
            yield Text("No strategy is recommended.", style="bold")


def _stacked(title: str) -> str:
    """A title with one word a line, each followed by the place of a star."""
    return "\n".join(f"{word} " for word in title.split())


def _cpu(value: Any) -> str:
    number = words.finite(value)
    return words.NONE if number is None else f"{number:,.{1 if number >= 10 else 2}f}"
