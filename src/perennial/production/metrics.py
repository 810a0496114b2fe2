"""What a run counts, for Prometheus."""

from __future__ import annotations

from datetime import datetime
from typing import Any, final

from perennial.core.errors import ConfigError


@final
class Metrics:
    """Counters and gauges of one run, fed by its events.

    Parameters
    ----------
    deployment : str
        The label of all of them.
    """

    def __init__(self, deployment: str) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge

        self.registry = CollectorRegistry()
        labels = ("deployment",)

        def counter(name: str, what: str, *more: str) -> Counter:
            return Counter(f"perennial_{name}", what, (*labels, *more), registry=self.registry)

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"perennial_{name}", what, labels, registry=self.registry)

        self._deployment = deployment
        self._turns = counter("turns", "Turns committed.", "kind")
        self._rows = counter("rows", "Rows taken.")
        self._joined = counter("labels", "Labels joined.")
        self._late = counter("late_rows", "Rows that came late.")
        self._passed_over = counter("labels_passed_over", "Labels of the log that came too late, or of no row.")
        self._cpu = counter("cpu_seconds", "CPU seconds of training and prediction.")
        self._trainings = counter("trainings", "Versions trained.")
        self._verdicts = counter("verdicts", "Verdicts of the gate.", "outcome")
        self._promotions = counter("promotions", "Times that the champion changed.")
        self._quarantined = counter("quarantined", "Batches whose rows are never learned.")
        self._loss = gauge("loss", "Mean loss of the labels that the last turn joined.")
        self._at = gauge("turn_timestamp_seconds", "Event time of the last turn.")
        self._done = gauge("last_commit_timestamp_seconds", "When the last turn was committed.")

    def see(self, event: str, facts: dict[str, Any]) -> None:
        """Count an event."""
        name = self._deployment
        if event == "turn":
            self._turns.labels(name, facts["kind"]).inc()
            self._rows.labels(name).inc(facts["rows"])
            self._joined.labels(name).inc(facts["joined"])
            self._late.labels(name).inc(facts["late"])
            self._passed_over.labels(name).inc(facts["labels_passed_over"])
            self._cpu.labels(name).inc(facts["cpu_seconds"])
            self._done.labels(name).set_to_current_time()
            if facts["loss"] is not None:
                self._loss.labels(name).set(facts["loss"])
            self._at.labels(name).set(datetime.fromisoformat(facts["at"]).timestamp())
        elif event == "trained":
            self._trainings.labels(name).inc()
        elif event == "verdict":
            self._verdicts.labels(name, facts["outcome"]).inc()
        elif event == "promoted":
            self._promotions.labels(name).inc()
        elif event == "quarantined":
            self._quarantined.labels(name).inc()

    def serve(self, port: int) -> None:
        """Answer at ``http://127.0.0.1:port/metrics`` for as long as the process lives.

        Raises
        ------
        ConfigError
            If the port is taken, or is none.
        """
        from prometheus_client import start_http_server

        try:
            start_http_server(port, addr="127.0.0.1", registry=self.registry)
        except (OSError, OverflowError) as error:
            need = f"cannot serve metrics there: {getattr(error, 'strerror', None) or error}; name another port"
            raise ConfigError("metrics_port", port, need) from error
