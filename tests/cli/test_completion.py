import subprocess

import pytest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_asks_orlop(orlop, shell):
    script = orlop("completion", shell).stdout

    assert "_ORLOP_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_script_gets_its_answers_from_the_commands(orlop):
    words = {"_ORLOP_COMPLETE": "bash_complete", "COMP_WORDS": "orlop volume i", "COMP_CWORD": "2"}

    found = orlop(env=words).stdout

    assert found.split() == ["plain,import", "plain,inspect"]
