import shutil
from pathlib import Path

import pytest

from orlop.testing.waiting import eventually

pytestmark = pytest.mark.timeout(120)

EXAMPLE = Path(__file__).parents[2] / "examples" / "compose.yaml"


@pytest.fixture
def compose(lab):
    """The example's folder, and the Compose that this distribution has: a plugin of Docker's client, or a program."""
    shutil.copy(EXAMPLE, lab.home / "docker-compose.yml")
    plugin = lab.sh("docker compose version", check=False).returncode == 0
    program = "docker compose" if plugin else "docker-compose"
    yield f"{program} -p demo"
    lab.sh(f"{program} -p demo down -t 0 -v")


@pytest.mark.part("V3", "V6", "V15", "E1")
def test_compose_keeps_volumes_over_down_and_removes_them_with_v(lab, compose):
    lab.sh(f"{compose} up -d")
    container = lab.out(f"{compose} ps -q")
    mounts = lab.mounts(container)
    limit = lab.out(f"docker exec {container} df -k /limited").split()[-5]
    eventually(lambda: lab.out(f"docker exec {container} sh -c 'cat /data/starts /scratch/starts | wc -l'") == "2")

    lab.sh(f"{compose} down -t 0")
    between = lab.volumes()
    lab.sh(f"{compose} up -d")
    container = lab.out(f"{compose} ps -q")
    eventually(lambda: lab.out(f"docker exec {container} sh -c 'cat /data/starts | wc -l'") == "2")
    scratch = lab.out(f"docker exec {container} sh -c 'cat /scratch/starts | wc -l; df -k /scratch'").split()
    lab.sh(f"{compose} down -t 0 -v")

    assert {mount["Driver"] for mount in mounts.values()} == {"orlop"}
    assert 50_000 < int(limit) <= 65_536
    assert between == {"demo_data", "demo_limited", "demo_scratch"}
    # What is in memory goes with its last user, what is on disk stays.
    assert (scratch[0], scratch[-6], scratch[-5]) == ("1", "tmpfs", "16384")
    assert lab.volumes() == set()
