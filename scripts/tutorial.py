"""The tutorial: a real Docker Engine keeps its volumes with orlop, told as a story that checks itself.

    tutorial.py          play it; again reuses the engine and the images that are there
    tutorial.py --stop   end the processes that it started

Its folder is .cache/run, or $ORLOP_DEMO. Exit status 1: an output was not what the story says.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cloudstor
import timeline
from demo import PLUGIN, YOURS, Demo, Trouble

_FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "run"
_COLOURS = {"title": "1;36", "command": "1", "why": "2"}
_LOOP = "i=0; while :; do i=$((i+1)); echo line $i >>/data/log; sleep 0.01; done"


class Story:
    """Commands as a person types them: shown, run, and their outputs held against what was said."""

    def __init__(self, demo: Demo) -> None:
        """The commands talk to the engine of ``demo``."""
        self._demo = demo

    def chapter(self, title: str) -> None:
        """A heading."""
        print(f"\n{_paint('title', title)}\n", flush=True)

    def why(self, sentence: str) -> None:
        """One sentence between two commands."""
        print(_paint("why", f"  # {sentence}"), flush=True)

    def run(self, command: str, says: str = "", status: int = 0, quiet: bool = False) -> str:
        """Show and run ``command``; its output has to match the expression ``says`` and it has to end with ``status``.

        Raises `Trouble` if it does not: then the story would not be true.
        """
        print(_paint("command", f"$ {command}"), flush=True)
        done = subprocess.run(
            ["bash", "-c", command], env=self._demo.environment(), capture_output=True, text=True, timeout=200
        )
        output = (done.stdout + done.stderr).strip()
        if output and not quiet:
            print("\n".join(f"  {line}" for line in output.splitlines()), flush=True)
        if done.returncode != status or not re.search(says, output):
            raise Trouble(f"expected exit status {status} and {says!r}, saw {done.returncode} and {output!r}")
        return output

    def until(self, command: str, seconds: float = 60) -> None:
        """Run ``command`` until it succeeds, and show it once."""
        print(_paint("command", f"$ until {command}; do sleep 1; done"), flush=True)
        end = time.monotonic() + seconds
        while subprocess.run(["bash", "-c", command], env=self._demo.environment(), capture_output=True).returncode:
            if time.monotonic() > end:
                raise Trouble(f"still not so after {seconds:.0f} s: {command}")
            time.sleep(0.2)


def a_volume_outlives_its_container(story: Story) -> None:
    """Create, write, remove the container, read from another."""
    story.chapter("1. A volume outlives its container")
    story.run("docker volume create -d orlop tutorial-notes", "^tutorial-notes$")
    story.why("The driver is the only word that differs from what you typed before.")
    story.run("docker run --name tutorial-writer -v tutorial-notes:/data busybox "
              "sh -c 'echo \"written by the first container\" >/data/note'")  # fmt: skip
    story.run("docker rm tutorial-writer", "^tutorial-writer$")
    story.why("The container is gone; its data is not.")
    story.run("docker run --rm -v tutorial-notes:/data busybox cat /data/note", "^written by the first container$")
    story.run("docker volume ls --filter name=tutorial", r"orlop\s+tutorial-notes")


def cp_into_a_running_container(story: Story) -> None:
    """Docker mounts and unmounts with the container's own number here: counting naively would take the volume away."""
    story.chapter("2. docker cp into a running container")
    story.run(
        "docker run -d --name tutorial-app -v tutorial-notes:/data busybox sleep 600", "^[0-9a-f]{64}$", quiet=True
    )
    story.run("docker cp /etc/hostname tutorial-app:/data/copied")
    story.run("docker exec tutorial-app cat /data/copied", f"^{re.escape(Path('/etc/hostname').read_text().strip())}$")
    story.why("While a container uses a volume, nobody can remove it.")
    story.run("docker volume rm tutorial-notes", "volume is in use", status=1)
    story.run("docker rm -f tutorial-app", "^tutorial-app$")


def a_limit_holds(story: Story) -> None:
    """``size=``."""
    story.chapter("3. A volume with a size")
    story.run("docker volume create -d orlop -o size=16m tutorial-small", "^tutorial-small$")
    story.why("It is a filesystem of its own, so the limit holds and df tells the truth.")
    story.run("docker run --rm -v tutorial-small:/data busybox df -h /data", r"1[0-9]\.\dM")
    story.run("docker run --rm -v tutorial-small:/data busybox dd if=/dev/zero of=/data/big bs=1M count=32",
              "No space left on device", status=1)  # fmt: skip


def a_database_moves_house(story: Story) -> None:
    """PostgreSQL."""
    run = "-v tutorial-pgdata:/var/lib/postgresql/data -e POSTGRES_PASSWORD=secret postgres"
    psql = "psql -U postgres -c"
    story.chapter("4. A real database: PostgreSQL")
    story.run("docker volume create -d orlop tutorial-pgdata", "^tutorial-pgdata$")
    story.run(f"docker run -d --name tutorial-db1 {run}", "^[0-9a-f]{64}$", quiet=True)
    story.until("docker exec tutorial-db1 pg_isready -h 127.0.0.1")
    story.run(f'docker exec tutorial-db1 {psql} "CREATE TABLE dummy (id int PRIMARY KEY, name text)"', "CREATE TABLE")
    story.run(f"docker exec tutorial-db1 {psql} \"INSERT INTO dummy VALUES (1, 'still here')\"", "INSERT 0 1")
    story.run("docker rm -f tutorial-db1", "^tutorial-db1$")
    story.why("It was killed, not stopped: the next one recovers from the journal that it finds on the volume.")
    story.run(f"docker run -d --name tutorial-db2 {run}", "^[0-9a-f]{64}$", quiet=True)
    story.until("docker exec tutorial-db2 pg_isready -h 127.0.0.1")
    story.run(f'docker exec tutorial-db2 {psql} "SELECT * FROM dummy"', r"1 \| still here")
    story.run("docker rm -f tutorial-db2", "^tutorial-db2$")


def the_plugin_is_killed(story: Story, demo: Demo) -> None:
    """An orlop that is killed, and started again, while a container writes."""
    lines = "docker exec tutorial-busy wc -l /data/log"
    story.chapter("5. kill -9 of orlop while a container writes")
    story.run("docker volume create -d orlop tutorial-journal", "^tutorial-journal$")
    story.run(f"docker run -d --name tutorial-busy -v tutorial-journal:/data busybox sh -c '{_LOOP}'",
              "^[0-9a-f]{64}$", quiet=True)  # fmt: skip
    before = _count(story.run(lines, "log"))
    print(_paint("command", f"$ kill -9 {demo.kill_plugin()}"), flush=True)
    story.why("orlop is dead. The kernel keeps the mount, so the container does not notice.")
    time.sleep(0.5)
    during = _count(story.run(lines, "log"))
    if during <= before:
        raise Trouble(f"the container stopped writing: {before} lines, then {during}")
    demo.start_plugin()
    story.why(f"orlop runs again (process {demo.running('orlop')}), and knows what it knew.")
    story.run("docker volume inspect --format '{{.Status.Attached}}' tutorial-journal", "^true$")
    story.run("docker rm -f tutorial-busy", "^tutorial-busy$")
    story.why("Every line is there, in its order: nothing was lost.")
    last = story.run("docker run --rm -v tutorial-journal:/data busybox "
                     "sh -c 'awk \"\\$2 != NR {exit 1}\" /data/log && tail -n 1 /data/log'", r"^line \d+$")  # fmt: skip
    if int(last.split()[1]) < during:
        raise Trouble(f"{during} lines were written, and the last is {last!r}")


def clean_up(demo: Demo) -> None:
    """What an earlier run has left goes first: only names that begin with tutorial-."""
    for kind, remove in (("ps", ("rm", "-f", "-v")), ("volume", ("volume", "rm"))):
        listing = ("ps", "-a", "--format", "{{.Names}}") if kind == "ps" else ("volume", "ls", "--format", "{{.Name}}")
        names = [name for name in demo.docker(*listing, check=True).stdout.split() if name.startswith("tutorial-")]
        if names:
            demo.docker(*remove, *names, check=True)


def closing(demo: Demo) -> str:
    """What runs where, how to use it and how to stop it."""
    docker = "docker" if not demo.own else f"docker -H unix://{demo.engine}"
    engine = f"Docker Engine    your own, at {YOURS}"
    if demo.own:
        engine = f"Docker Engine    process {demo.running('dockerd')}, at {demo.engine}, log {demo.folder}/dockerd.log"
    compose = Path(__file__).resolve().parent.parent / "examples" / "compose.yaml"
    return f"""
{_paint("title", "Everything above was true. It goes on running:")}

  {engine}
  orlop            process {demo.running("orlop")}, at {PLUGIN}, log {demo.folder}/orlop.log
  your data        {demo.root}/volumes

Use it:

  {docker} volume create -d orlop data
  {docker} volume create -d orlop -o size=1g limited
  {docker} volume create -d orlop -o driver=tmpfs scratch
  {docker} run --rm -it -v data:/data busybox

or with Compose ({compose}):

{_indented(compose.read_text())}

Stop it (volumes stay): make run ARGS=--stop
Remove its folder too:  rm -r {demo.folder}
"""


def play(demo: Demo) -> None:
    """The whole story."""
    print(_paint("title", "orlop keeps the volumes of a real Docker Engine"))
    demo.start()
    demo.load("busybox", "postgres")
    clean_up(demo)
    where = f"one of its own, at {demo.engine}" if demo.own else f"yours, at {demo.engine}"
    print(f"\n  The engine is {where}.\n  orlop is its volume plugin, at {PLUGIN}.")
    story = Story(demo)
    a_volume_outlives_its_container(story)
    cp_into_a_running_container(story)
    a_limit_holds(story)
    a_database_moves_house(story)
    the_plugin_is_killed(story, demo)
    timeline.snapshots(story, demo)
    timeline.moving(story, demo)
    why_not = cloudstor.missing(demo)
    if why_not:
        story.why(f"The chapter on Cloudstor is left out: {why_not}. docs/cloudstor.md tells it.")
    else:
        cloudstor.chapter(story, demo)
    print(closing(demo))


def main() -> int:
    """Play, or stop; as root."""
    if os.geteuid() != 0:
        if not shutil.which("sudo"):
            print("tutorial: mounts need root, and there is no 'sudo'; run it as root", file=sys.stderr)
            return 1
        os.execvp("sudo", ["sudo", "--preserve-env=ORLOP_DEMO", sys.executable, *sys.argv])
    try:
        demo = Demo(Path(os.environ.get("ORLOP_DEMO") or _FOLDER))
        if sys.argv[1:] == ["--stop"]:
            print(f"stopped: {', '.join(demo.stop()) or 'nothing was running'}")
        elif sys.argv[1:]:
            print(__doc__)
            return 2
        else:
            play(demo)
    except Trouble as trouble:
        print(f"\ntutorial: {trouble}", file=sys.stderr)
        return 1
    return 0


def _count(output: str) -> int:
    return int(output.split()[0])


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _paint(what: str, text: str) -> str:
    return f"\033[{_COLOURS[what]}m{text}\033[0m" if sys.stdout.isatty() else text


if __name__ == "__main__":
    sys.exit(main())
