"""What a benchmark reports: our figure, the peer's, their ratio, and the goal it is held against."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of ``bench/results/NAME.json``.

    ``ratio`` is ours / peer; ``goal`` is what the ratio (or ``ours``, where there is no peer) should be, such as
    ``<= 1.3``. A control has none: it tells how much of the other figures is chance.
    """

    name: str
    unit: str
    ours: float
    peer: float | None
    peer_name: str
    ratio: float | None
    goal: str
    runs: int
    date: str


def compare(name: str, unit: str, ours: Sequence[float], peer: Sequence[float], peer_name: str, goal: str) -> Figure:
    """Medians of runs that were made in turn, and the median of their ratios pair by pair."""
    ratios = [ours_ / peer_ for ours_, peer_ in zip(ours, peer, strict=True)]
    median = statistics.median
    return _figure(name, unit, median(ours), median(peer), peer_name, median(ratios), goal, len(ours))


def alone(name: str, unit: str, ours: Sequence[float], goal: str) -> Figure:
    """A figure that is held against a limit, not a peer."""
    return _figure(name, unit, statistics.median(ours), None, "", None, goal, len(ours))


def write(name: str, figures: Sequence[Figure]) -> Path:
    """Keep ``figures`` as the newest result of benchmark ``name``."""
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    return path


def verdict(figure: Figure) -> str:
    """``met`` or ``missed``; empty for a control."""
    if not figure.goal:
        return ""
    relation, limit = figure.goal.split()
    value = figure.ours if figure.ratio is None else figure.ratio
    is_met = value <= float(limit) if relation == "<=" else value >= float(limit)
    return "met" if is_met else "missed"


def _figure(
    name: str, unit: str, ours: float, peer: float | None, peer_name: str, ratio: float | None, goal: str, runs: int
) -> Figure:
    rounded = [None if value is None else round(value, 4) for value in (ours, peer, ratio)]
    date = datetime.now(UTC).date().isoformat()
    return Figure(name, unit, rounded[0] or 0.0, rounded[1], peer_name, rounded[2], goal, runs, date)
