"""``make bench [ONLY=name]``: run the benchmarks beside their peers, print a table, write bench/results/NAME.json.

Every file of this folder with a function ``measure() -> list[Figure]`` is a benchmark; its name begins with its area.
"""

import compileall
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import figures
import memory

HERE = Path(__file__).parent
# The servers are those of the tests.
sys.path.insert(0, str(HERE.parent))


def main(only: str | None) -> None:
    paths = [path for path in sorted(HERE.glob("*_*.py")) if only is None or path.stem == only]
    if not paths:
        names = ", ".join(path.stem for path in sorted(HERE.glob("*_*.py")))
        sys.exit(f"bench: no benchmark {only!r}; there are {names}")
    # As it is installed: Python may have been told to keep no bytecode, and would compile in every process.
    compileall.compile_dir(HERE.parent / "src", quiet=1)
    with memory.kept():
        for path in paths:
            found = _load(path).measure()
            print(f"\n{path.stem} -> {figures.write(path.stem, found).relative_to(HERE.parent)}")
            for figure in found:
                print(_line(figure))


def _line(figure: figures.Figure) -> str:
    peer = f"{figure.peer_name} {figure.peer:g}, ratio {figure.ratio:.2f}" if figure.ratio is not None else "alone"
    goal = f"goal {figure.goal:8} {figures.verdict(figure).replace('missed', 'MISSED')}" if figure.goal else "control"
    return f"  {figure.name:44} {figure.ours:10g} {figure.unit:8} {peer:36} {goal}"


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
