"""What this host remembers: one SQLite file, changed only in a transaction.

Six tables: the volumes (with the phase each is in), which of them are attached, who holds them, their last snapshots,
settings, and what happened lately. Phases are the recorded intent: ``creating`` and ``removing`` mean that a driver may
have done half its work.

    creating ──► ready ──► trashed ──► removing ──► (no row)
                   ▲──────────┘ restore

A volume that moves to another driver is ``filling`` there; the old one is ``kept`` until that is committed. A clone is
``filling`` until it is ready: a crash undoes it.

What must survive a power cut is synced before the call returns. Holds and events are not: after a power cut nobody
holds anything, and a killed process loses nothing, since the write-ahead log is in the kernel's hands by then.
"""

from orlop.state.change import Change
from orlop.state.file import State
from orlop.state.records import Event, Hold, Holder, Phase, Row

__all__ = ["Change", "Event", "Hold", "Holder", "Phase", "Row", "State"]
