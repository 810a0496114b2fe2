"""The Insects stream: our strategies beside River's forests, in River's own way and in ours.

River's published tables test and train row by row: each row is predicted, and its label is known before the next one
comes. Our strategies are asked to do with labels that come with the end of a batch, and so River's forests are shown
both ways.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.evidence.records import Cell, Goal, Part, Table
from benchmarks.evidence.streams import TARGET, TIME, folder, sources
from benchmarks.evidence.units import kept

METRICS = ["accuracy", "log_loss"]


def measure(settings: Mapping[str, Any], seeds: Sequence[int], tell: Callable[[str], None]) -> Part:  # noqa: ARG001
    name = settings["stream"]
    if folder() is None:
        goal = Goal(what="the best of ours less the best of River's, accuracy", value=None, limit=0.0, way="at least",
                    note=f"PERENNIAL_DATA is not set, or has no {name}")  # fmt: skip
        return Part(name="insects", title="The Insects stream", goals=[goal], tables=[])
    found = kept("insects", dict(settings), lambda: _run(settings, tell))
    rows: list[list[Cell]] = [
        [label, told["labels"], told["accuracy"], told["log_loss"], told["cpu"]] for label, told in found.items()
    ]
    river = {label: told for label, told in found.items() if label.startswith("River")}
    skill = {label: told for label, told in found.items() if told["labels"] == "no skill"}
    ours = {label: told for label, told in found.items() if label not in river and label not in skill}
    best = max(ours, key=lambda label: ours[label]["accuracy"])
    rival = max(river, key=lambda label: river[label]["accuracy"])
    gap = ours[best]["accuracy"] - river[rival]["accuracy"]
    change = max(skill, key=lambda label: skill[label]["accuracy"])
    goals = [
        Goal(what="accuracy of the best of ours less that of the best of River's", value=gap, limit=0.0,
             way="at least", note=f"{best}, {ours[best]['cpu']:.0f} CPU s; {rival}, {river[rival]['cpu']:.0f} CPU s"),
        Goal(what="accuracy of the best of ours less the best line without skill",
             value=ours[best]["accuracy"] - skill[change]["accuracy"], limit=0.0, way="at least", note=change),
    ]  # fmt: skip
    columns = ["strategy", "labels come", "accuracy", "log loss", "CPU s"]
    rows.sort(key=lambda row: -float(row[2] or 0.0))
    return Part(
        name="insects",
        title="The Insects stream, gradual and balanced",
        goals=goals,
        tables=[Table(title="24,150 rows, six classes", columns=columns, rows=rows)],
        notes=[f"ours know labels at the end of a batch of {settings['batch']} rows; River's, where it says so, too"],
    )


def _run(settings: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    import lightgbm as lgb

    import perennial as pn
    from perennial import strategies, triggers, windows
    from perennial.learners import committee

    warnings.filterwarnings("ignore")
    name, batch, initial = settings["stream"], settings["batch"], settings["initial"]
    (source,) = sources({name: batch}, {})
    frame = source.read(0)
    each = triggers.every(rows=batch)

    def stateful(model: Any) -> Any:
        return strategies.Stateful(model, initial=initial, trigger=each)

    def window(width: int, interval: int) -> Any:
        return strategies.Stateless(
            lgb.LGBMClassifier(n_jobs=1, verbose=-1), initial=initial, trigger=triggers.every(rows=interval),
            window=windows.Sliding(rows=width),
        )  # fmt: skip

    ours = {
        "light": stateful(committee.light()),
        "full": stateful(committee.full()),
        **{f"expert {n}": stateful(e) for n, e in committee.full().experts.items()},
        "anew on 1,000 rows every 500": window(1000, 500),
        "anew on 2,000 rows every 500": window(2000, 500),
        "anew on 4,000 rows every 500": window(4000, 500),
    }
    forests = {f"River {kind}": model for kind, model in _forests(settings).items()}
    found: dict[str, dict[str, Any]] = {}
    for what, rows, chosen in (
        ("at the end of a batch", batch, ours),
        ("at the end of a batch", batch, {n: stateful(model) for n, model in forests.items()}),
        ("before the next row", 1, {
            n: strategies.Stateful(model, initial=None, trigger=triggers.every(rows=1)) for n, model in forests.items()
        }),
    ):  # fmt: skip
        stream = pn.Stream(frame, time=TIME, target=TARGET, batch=rows)
        result = pn.backtest(stream, chosen, metrics=METRICS, jobs=1)
        for label in result:
            told = result[label]
            key = f"{label}, row by row" if rows == 1 else label
            cpu = told.costs["train_cpu_seconds"] + told.costs["predict_cpu_seconds"]
            found[key] = {"labels": what, "cpu": cpu, **{m: told.scores[m] for m in METRICS}}
            tell(f"insects: {key}: accuracy {told.scores['accuracy']:.3f}, {cpu:.0f} CPU s")
        for line in result.baselines.values():
            key = f"{line.name}, row by row" if rows == 1 else line.name
            found[key] = {"labels": "no skill", "cpu": None, **{m: line.scores[m] for m in METRICS}}
    return found


def _forests(settings: Mapping[str, Any]) -> dict[str, Any]:
    from river import ensemble, forest, tree

    seed, trees = settings["river_seed"], settings["trees"]
    return {
        "ARF": forest.ARFClassifier(n_models=trees, seed=seed),
        "SRP": ensemble.SRPClassifier(model=tree.HoeffdingTreeClassifier(), n_models=trees, seed=seed),
    }
