"""A piece of program for tests of kills: the process ends at the ``{number}``-th durable step."""

STEP = """
import os, signal
seen = 0
def step(at):
    global seen
    seen += 1
    if seen == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
"""
