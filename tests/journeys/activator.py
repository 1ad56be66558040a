"""What systemd does with a .socket and a Restart=always .service: the socket stays, a call starts the daemon.

python activator.py SOCKET PROGRAM [ARGUMENT ...]
"""

import os
import select
import socket
import sys
import time


def main(path: str, argv: list[str]) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(512)
    while True:
        select.select([listener], [], [])
        child = os.fork()
        if child == 0:
            os.dup2(listener.fileno(), 3)
            os.set_inheritable(3, True)
            os.execve(argv[0], argv, {**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})
        os.waitpid(child, 0)
        time.sleep(0.2)


main(sys.argv[1], sys.argv[2:])
