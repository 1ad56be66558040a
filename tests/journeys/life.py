"""A volume's whole life in one process, which kills itself at the step it is told; run by `test_crash_points.py`.

python life.py ROOT live NUMBER     play the verbs, print each when it is acknowledged, die at the NUMBER-th step
python life.py ROOT recover         reconcile as a new process does, print what there is as JSON, then use it again
"""

import json
import os
import signal
import sys
from pathlib import Path

from orlop import engine
from orlop.kernel.processes import start_time
from orlop.state import Holder
from orlop.volumes.reconcile import decide, look, reconcile


def verbs(service):
    holder = Holder("dockerd/0", "c1", os.getpid(), start_time(os.getpid()))
    yield "create", lambda: service.create("data", {"size": "8m"})
    yield "mount", lambda: service.mount("data", holder)
    yield "write", lambda: (service.path(service.get("data")) / "precious").write_text("kept")
    yield "update", lambda: service.update("data", {"size": "12m"})
    yield "unmount", lambda: service.unmount("data", holder)
    yield "remove", lambda: service.remove("data")
    yield "restore", lambda: service.restore("data")
    yield "remove", lambda: service.remove("data")
    yield "purge", lambda: service.purge(service.state.unfinished()[0])


def live(root: Path, number: int) -> None:
    passed = 0

    def step(name: str) -> None:
        nonlocal passed
        if passed == number:
            print(f"killed at {name}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    for name, verb in verbs(engine.volumes(engine.Config(root, root / "run", step=step))):
        verb()
        print(name, flush=True)


def recover(root: Path) -> None:
    service = engine.volumes(engine.Config(root, root / "run", hold_grace=0))
    reconcile(service)
    left = [action.verb for action in decide(look(service))]
    row = service.state.live("data")
    report = {"left": left, "there": row is not None, "folders": sorted(p.name for p in service.folder.iterdir())}
    if row is None:
        row = service.create("data", {"size": "8m"})
    place = service.mount("data", Holder("dockerd/0", "c2"))
    report["file"] = (place / "precious").exists() and (place / "precious").read_text()
    report["capacity"] = os.statvfs(place).f_blocks * os.statvfs(place).f_frsize
    service.unmount("data", Holder("dockerd/0", "c2"))
    report["mounted"] = sorted(look(service).mounted)
    print(json.dumps(report))


if __name__ == "__main__":
    if sys.argv[2] == "live":
        live(Path(sys.argv[1]), int(sys.argv[3]))
    else:
        recover(Path(sys.argv[1]))
