"""What Prometheus reads: verbs by outcome and duration, volumes by driver, what is attached or unfinished."""

import time
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from orlop.frontends.plugin import VERBS
from orlop.volumes.service import VolumeService

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120)


@dataclass
class Outcome:
    """How a verb ended; set by whoever runs it."""

    failed: bool = True


class Metrics:
    """One daemon's figures."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, service: VolumeService):
        """Counts start at nothing; what ``service`` knows is read at each scrape."""
        self._service = service
        self._registry = CollectorRegistry()
        self._verbs = Counter("orlop_verbs", "Plugin verbs answered", ("verb", "outcome"), registry=self._registry)
        self._seconds = Histogram(
            "orlop_verb_seconds", "Time to answer a plugin verb", ("verb",), buckets=_BUCKETS, registry=self._registry
        )
        # Paths are anybody's invention: only verbs may become a label. Looking a label up costs more than a verb.
        self._children = {path: self._of(path.rpartition(".")[2] or "unknown") for path in (*VERBS, "")}
        self._registry.register(self)

    def _of(self, verb: str) -> tuple[Counter, Counter, Histogram]:
        return self._verbs.labels(verb, "ok"), self._verbs.labels(verb, "error"), self._seconds.labels(verb)

    @contextmanager
    def timed(self, path: str) -> Iterator[Outcome]:
        """Count and time what runs inside as the verb at ``path``."""
        began, outcome = time.perf_counter(), Outcome()
        try:
            yield outcome
        finally:
            ok, error, seconds = self._children.get(path) or self._children[""]
            (error if outcome.failed else ok).inc()
            seconds.observe(time.perf_counter() - began)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What the service knows now (called by the registry)."""
        state = self._service.state
        volumes = GaugeMetricFamily("orlop_volumes", "Volumes that can be used", labels=("driver",))
        for driver, count in Tally(row.driver for row in state.ready()).items():
            volumes.add_metric([driver], count)
        phases = GaugeMetricFamily("orlop_unfinished_volumes", "Volumes that are not ready", labels=("phase",))
        for phase, count in Tally(row.phase for row in state.unfinished()).items():
            phases.add_metric([phase], count)
        yield volumes
        yield phases
        yield GaugeMetricFamily("orlop_attached_volumes", "Volumes mounted on this host", value=len(state.attached()))
        yield GaugeMetricFamily("orlop_holds", "Uses of volumes by engines", value=len(state.holds()))
