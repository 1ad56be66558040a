"""What mounting a remote volume costs beyond the program that mounts it: sshfs, started by a verb and by hand, in turn.

Both happen in one process on the server's machine, until a mount has said how much room it has; the difference is taken
round by round. Ours ends when its owner is on record, too, and the verb's answer is here. A login takes 130 ms, give or
take five: the control, a second mount by hand in every round, tells how far the medians of alike things are apart.
"""

import json
import sys
from pathlib import Path

from tests.journeys.sshd import Sshd

from figures import Figure, alone
from plugin_verbs import Plugin, memory_disk, start_orlop, until

ROUNDS = 100
# What is agreed on otherwise takes longer, and less evenly.
_QUICK = "KexAlgorithms curve25519-sha256\n"
_WORK = """
import json, os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from plugin_verbs import Plugin, timed
plugin, key, rounds = Plugin(Path(sys.argv[2])), sys.argv[3], int(sys.argv[4])
words = f"nosuid,nodev,allow_other,reconnect,ServerAliveInterval=15,IdentityFile={key},IdentitiesOnly=yes,BatchMode=yes"
by_hand = ["sshfs", "test@node2:/home/test", "/run/hand", "-o", words + ",UserKnownHostsFile=/run/known"]
subprocess.run(["mkdir", "-p", "/run/hand"], check=True)
def gone():
    while subprocess.run(["pgrep", "-x", "sshfs"], stdout=subprocess.DEVNULL).returncode == 0: time.sleep(0.005)
def ours():
    took = timed(lambda: plugin.call("Mount", Name="ssh", ID="1" * 64))
    plugin.call("Unmount", Name="ssh", ID="1" * 64)
    return took
def hand():
    took = timed(lambda: (subprocess.run(by_hand, check=True), os.statvfs("/run/hand")))
    subprocess.run(["umount", "/run/hand"], check=True)
    return took
def again(): return hand()
found, sides = [], [ours, hand, again]
for number in range(rounds):
    took = {}
    # Each is as often before each other.
    for side in sides if number % 2 else reversed(sides):
        took[side.__name__] = side() * 1000
        gone()
    found.append(took)
    sides = [*sides[1:], sides[0]]
print(json.dumps(found))
"""


def measure() -> list[Figure]:
    with memory_disk() as (machine, disk):
        socket = start_orlop(machine, disk / "orlop")
        plugin = Plugin(socket)
        until(lambda: plugin.connect() is None)
        server = Sshd(machine, "node2", more=_QUICK)
        server.start()
        options = {"driver": "sshfs", "sshcmd": "test@node2:/home/test", "key": f"file:{server.key}"}
        plugin.call("Create", Name="ssh", Opts=options)
        machine.run(["sh", "-c", "ssh-keyscan node2 >/run/known 2>/dev/null"])
        argv = [sys.executable, "-c", _WORK, str(Path(__file__).parent), str(socket), server.key, str(ROUNDS)]
        found = json.loads(machine.run(argv, timeout=300).stdout)
        server.stop()
    return [
        alone("sshfs: mounting, beyond sshfs itself", "ms", [one["ours"] - one["hand"] for one in found], "<= 5"),
        alone("sshfs: by hand, beyond by hand", "ms", [one["again"] - one["hand"] for one in found], ""),
    ]
