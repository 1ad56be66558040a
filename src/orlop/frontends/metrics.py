"""What Prometheus reads: verbs by outcome and duration, volumes by driver, what is attached or unfinished."""

import time
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from orlop.volumes.service import VolumeService

_PREFIXES = ("/VolumeDriver.", "/Plugin.")
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
        self._registry.register(self)

    @contextmanager
    def timed(self, path: str) -> Iterator[Outcome]:
        """Count and time what runs inside as the verb at ``path``."""
        began, outcome = time.perf_counter(), Outcome()
        try:
            yield outcome
        finally:
            # Paths are anybody's invention: only verbs may become a label.
            verb = path.rpartition(".")[2] if path.startswith(_PREFIXES) else "unknown"
            self._verbs.labels(verb, "error" if outcome.failed else "ok").inc()
            self._seconds.labels(verb).observe(time.perf_counter() - began)

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
