"""What mounting a remote volume costs beyond the program that mounts it: sshfs, started by a verb and by hand, in turn.

Both happen in one process on the server's machine; the difference is taken pair by pair. By hand means until sshfs has
gone into the background; ours ends when the mount has answered, its owner is on record and the verb's answer is here.
"""

import json
import sys
from pathlib import Path

from figures import Figure, alone
from plugin_verbs import Plugin, memory_disk, start_orlop, until

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.journeys.sshd import Sshd

PAIRS = 40
_WORK = """
import json, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from plugin_verbs import Plugin, timed
plugin, key, pairs = Plugin(Path(sys.argv[2])), sys.argv[3], int(sys.argv[4])
words = f"nosuid,nodev,allow_other,reconnect,ServerAliveInterval=15,IdentityFile={key},IdentitiesOnly=yes,BatchMode=yes"
by_hand = ["sshfs", "test@node2:/home/test", "/run/hand", "-o", words + ",UserKnownHostsFile=/run/known"]
subprocess.run(["mkdir", "-p", "/run/hand"], check=True)
def ours():
    took = timed(lambda: plugin.call("Mount", Name="ssh", ID="1" * 64))
    plugin.call("Unmount", Name="ssh", ID="1" * 64)
    return took
def hand():
    took = timed(lambda: subprocess.run(by_hand, check=True))
    subprocess.run(["umount", "/run/hand"], check=True)
    while subprocess.run(["pgrep", "-x", "sshfs"], stdout=subprocess.DEVNULL).returncode == 0: time.sleep(0.005)
    return took
found = []
for number in range(pairs):
    first, second = (ours, hand) if number % 2 else (hand, ours)
    pair = {first: first(), second: second()}
    found.append((pair[ours] * 1000, pair[hand] * 1000))
print(json.dumps(found))
"""


def measure() -> list[Figure]:
    with memory_disk() as (machine, disk):
        socket = start_orlop(machine, disk / "orlop")
        plugin = Plugin(socket)
        until(lambda: plugin.connect() is None)
        server = Sshd(machine, "node2")
        server.start()
        options = {"driver": "sshfs", "sshcmd": "test@node2:/home/test", "key": f"file:{server.key}"}
        plugin.call("Create", Name="ssh", Opts=options)
        machine.run(["sh", "-c", "ssh-keyscan node2 >/run/known 2>/dev/null"])
        argv = [sys.executable, "-c", _WORK, str(Path(__file__).parent), str(socket), server.key, str(PAIRS)]
        found = json.loads(machine.run(argv, timeout=300).stdout)
        server.stop()
    more = [ours - hand for ours, hand in found]
    return [alone("sshfs: mounting, beyond sshfs itself", "ms", more, "<= 5")]
