"""What the documents show, typed as they show it: Docker's own client, a real engine, Docker's driver and orlop.

Where a document leaves the driver open, the story is played with the command as it stands, and again with orlop named
as the driver (``driver=``): nothing else is ever added to a command line.
"""

import re
import tarfile

import pytest
from tests.journeys.lab import every_engine

from orlop.testing.waiting import eventually

pytestmark = [pytest.mark.part("E1"), pytest.mark.timeout(180)]


@pytest.mark.feature("V5")
@every_engine
def test_a_volume_is_created_listed_inspected_and_removed(lab, driver):
    assert lab.out("docker volume create my-vol", driver=driver) == "my-vol"

    assert lab.out("docker volume ls").splitlines()[1].split() == [driver, "my-vol"]
    shown = lab.volume("my-vol")
    assert (shown["Name"], shown["Driver"], shown["Scope"]) == ("my-vol", driver, "local")

    assert lab.out("docker volume rm my-vol") == "my-vol"
    assert lab.volumes() == set()


@pytest.mark.feature("V6")
@pytest.mark.parametrize("flag", ["--mount source=myvol2,target=/app", "-v myvol2:/app"])
@every_engine
def test_a_container_starts_with_a_volume_that_did_not_exist(lab, driver, flag):
    lab.sh(f"docker run -d --name devtest {flag} nginx:latest", driver=driver)

    mount = lab.mounts("devtest")["/app"]
    assert (mount["Type"], mount["Name"], mount["Driver"], mount["RW"]) == ("volume", "myvol2", driver, True)

    # Volume removal is a separate step.
    lab.sh("docker container stop devtest")
    lab.sh("docker container rm devtest")
    assert lab.volumes() == {"myvol2"}
    lab.sh("docker volume rm myvol2")
    assert lab.volumes() == set()


@pytest.mark.part("V7")
@pytest.mark.parametrize(
    "flag", ["--mount source=nginx-vol,destination=/usr/share/nginx/html", "-v nginx-vol:/usr/share/nginx/html"]
)
def test_a_new_volume_is_populated_with_what_the_image_has_there(lab, driver, flag):
    lab.sh(f"docker run -d --name=nginxtest {flag} nginx:latest", driver=driver)

    page = lab.out("docker exec nginxtest cat /usr/share/nginx/html/index.html")
    others = lab.out("docker run --rm -v nginx-vol:/seen busybox cat /seen/index.html")
    assert "Welcome to nginx" in page
    assert others == page

    lab.sh("docker container stop nginxtest")
    lab.sh("docker container rm nginxtest")
    lab.sh("docker volume rm nginx-vol")
    assert lab.volumes() == set()


@pytest.mark.part("V8")
@pytest.mark.parametrize(
    "flag",
    ["--mount source=nginx-vol,destination=/usr/share/nginx/html,readonly", "-v nginx-vol:/usr/share/nginx/html:ro"],
)
def test_a_volume_is_read_only_for_a_container(lab, driver, flag):
    lab.sh(f"docker run -d --name=nginxtest {flag} nginx:latest", driver=driver)

    mount = lab.mounts("nginxtest")["/usr/share/nginx/html"]
    assert (mount["Type"], mount["Name"], mount["RW"]) == ("volume", "nginx-vol", False)
    assert "Welcome" in lab.out("docker exec nginxtest cat /usr/share/nginx/html/index.html")
    assert "Read-only file system" in lab.refused("docker exec nginxtest touch /usr/share/nginx/html/mine")

    lab.sh("docker container stop nginxtest")
    lab.sh("docker container rm nginxtest")
    lab.sh("docker volume rm nginx-vol")


def test_a_driver_is_named_with_its_options_and_a_container_uses_that_volume(lab):
    lab.sh("docker volume create --driver orlop -o size=16m -o uid=33 sshvolume")

    lab.sh(
        "docker run -d --name sshfs-container --volume-driver orlop "
        "--mount src=sshvolume,target=/app,volume-opt=size=16m,volume-opt=uid=33 nginx:latest"
    )

    assert lab.mounts("sshfs-container")["/app"]["Driver"] == "orlop"
    assert lab.out("docker exec sshfs-container stat -c %u /app") == "33"


@every_engine
def test_a_container_start_creates_a_volume_with_a_driver_and_its_options(lab):
    options = "volume-driver=orlop,volume-opt=size=16m,volume-opt=uid=33"

    lab.sh(f"docker run -d --name sshfs-container --mount src=sshvolume,target=/app,{options} nginx:latest")

    assert lab.volume("sshvolume")["Options"] == {"size": "16m", "uid": "33"}
    assert lab.out("docker exec sshfs-container stat -c %u /app") == "33"


@pytest.mark.feature("V14")
@every_engine
def test_a_volume_is_backed_up_with_tar_and_restored_into_a_new_container(lab, driver):
    fill = "head -c 5000000 /dev/urandom >/dbdata/blob; mkdir /dbdata/sub; ln -s ../blob /dbdata/sub/link"
    sums = "sh -c 'cd /dbdata && sha256sum blob sub/link && stat -c \"%n %a %u %s\" blob sub && readlink sub/link'"
    lab.sh(f'docker run -v /dbdata --name dbstore ubuntu bash -c "{fill}; chown 7 /dbdata/sub"', driver=driver)
    before = lab.out(f"docker run --rm --volumes-from dbstore ubuntu {sums}")

    lab.sh("docker run --rm --volumes-from dbstore -v $(pwd):/backup ubuntu tar cvf /backup/backup.tar /dbdata")
    lab.sh("docker run -v /dbdata --name dbstore2 ubuntu /bin/bash", driver=driver)
    lab.sh(
        "docker run --rm --volumes-from dbstore2 -v $(pwd):/backup ubuntu "
        'bash -c "cd /dbdata && tar xvf /backup/backup.tar --strip 1"'
    )

    assert lab.out(f"docker run --rm --volumes-from dbstore2 ubuntu {sums}") == before
    blob = lab.sh("docker cp dbstore2:/dbdata/blob restored").returncode
    with tarfile.open(lab.home / "backup.tar") as backup:
        assert backup.extractfile("dbdata/blob").read() == (lab.home / "restored").read_bytes()
    assert blob == 0
    assert {lab.mounts(name)["/dbdata"]["Driver"] for name in ("dbstore", "dbstore2")} == {driver}


@pytest.mark.feature("V10")
@every_engine
def test_an_anonymous_volume_goes_with_its_container_and_awesome_stays(lab, driver):
    top = lab.start("docker run --rm -v /foo -v awesome:/bar busybox top", driver=driver)
    eventually(lambda: lab.out("docker ps -q"))
    container = lab.out("docker ps -q")
    mounts = lab.mounts(container)
    during = lab.volumes()

    lab.sh(f"docker stop -t 0 {container}")
    top.wait()

    assert during == {"awesome", mounts["/foo"]["Name"]}
    assert {mount["Driver"] for mount in mounts.values()} == {driver}
    eventually(lambda: lab.volumes() == {"awesome"}, 10)


@pytest.mark.part("V10")
@every_engine
def test_rm_v_takes_the_anonymous_volume_and_leaves_the_named_one(lab, driver):
    lab.sh("docker run --name both -v /foo -v awesome:/bar busybox true", driver=driver)

    lab.sh("docker rm -v both")

    assert lab.volumes() == {"awesome"}


@pytest.mark.part("V11")
def test_prune_asks_and_removes_what_no_container_uses(lab):
    # Without a name: since Docker 23 one that has a name stays, unless asked for with --all.
    unused = lab.out("docker volume create")
    lab.sh("docker volume create -d orlop kept-by-orlop")
    lab.sh("docker run -d --name user -v used:/data busybox top")

    no = lab.sh("docker volume prune", typed="n\n", tty=True, check=False).stdout
    after_no = lab.volumes()
    yes = lab.out("docker volume prune", typed="y\n", tty=True)

    assert "Are you sure you want to continue? [y/N]" in no
    assert after_no == {unused, "used", "kept-by-orlop"}
    assert "WARNING! This will remove" in yes
    assert unused in yes.split("Deleted Volumes:")[1]
    assert "Total reclaimed space: 0B" in yes
    # Docker prunes its own driver's volumes only.
    assert lab.volumes() == {"used", "kept-by-orlop"}


@pytest.mark.part("V11")
def test_prune_keeps_what_is_labelled_keep_and_f_does_not_ask(lab):
    kept, dropped = lab.out("docker volume create --label keep=yes"), lab.out("docker volume create")

    asked = lab.out('docker volume prune --filter "label!=keep"', typed="y\n", tty=True)
    after = lab.volumes()
    silent = lab.out("docker volume prune -f")

    assert f"Deleted Volumes:\n{dropped}" in asked
    assert after == {kept}
    assert "Are you sure" not in silent
    assert lab.volumes() == set()


@pytest.mark.part("V11")
def test_system_prune_takes_volumes_only_when_told(lab):
    unused = lab.out("docker volume create")

    without = lab.out("docker system prune", typed="y\n", tty=True)
    after = lab.volumes()
    told = lab.out("docker system prune --volumes", typed="y\n", tty=True)

    assert "volumes not used" not in without
    assert after == {unused}
    assert "volumes not used by at least one container" in told
    assert lab.volumes() == set()


# "What is persistent storage in docker and how to manage it"

_TABLE = (
    "CREATE TABLE dummy (id int(10) NOT NULL, name varchar(255) DEFAULT NULL, code varchar(255) DEFAULT NULL, "
    "PRIMARY KEY (id));"
)
_ACCOUNT = "-e MYSQL_USER=user1 -e MYSQL_PASSWORD=password"


@pytest.mark.part("V13")
def test_mysql_keeps_its_data_in_a_folder_of_the_host(lab):
    run = f"{_ACCOUNT} -e MYSQL_DATABASE=tempdb -e MYSQL_ROOT_PASSWORD=password mysql"
    lab.sh(f"docker run --name db1 -d -v /data:/var/lib/mysql {run}")
    _wait_for_mysql(lab, "db1", "tempdb")
    lab.sh(
        f'docker exec -it db1  /usr/bin/mysql -u user1 tempdb -ppassword -e "{_TABLE}" '
        "-e \"insert into dummy (id, name, code) values (1,'John','XYZ');\"",
        tty=True,
    )
    first = lab.out('docker exec -it db1  /usr/bin/mysql -u user1 tempdb -ppassword -e "select * from dummy"', tty=True)
    lab.sh("docker stop db1; docker rm db1")

    lab.sh(f"docker run --name db2 -d -v /data:/var/lib/mysql {run}")
    _wait_for_mysql(lab, "db2", "tempdb")
    again = lab.out('docker exec -it db2  /usr/bin/mysql -u user1 tempdb -ppassword -e "select * from dummy"', tty=True)

    assert "|  1 | John | XYZ  |" in first
    assert again == first
    assert lab.inside("/data/tempdb/dummy.frm").exists()


@pytest.mark.part("V13")
def test_mysql_keeps_its_data_in_a_named_volume(lab, driver):
    run = f"{_ACCOUNT} -e MYSQL_DATABASE=datavoldb -e MYSQL_ROOT_PASSWORD=password mysql"
    lab.sh("docker volume create datavolume", driver=driver)
    assert "datavolume" in lab.out("docker volume ls")
    assert lab.volume("datavolume")["Mountpoint"].startswith("/var/lib/docker/volumes/" if driver == "local" else "/")

    lab.sh(f"docker run --name db3 -d -v datavol:/var/lib/mysql {run}", driver=driver)
    _wait_for_mysql(lab, "db3", "datavoldb")
    lab.sh(
        "docker exec -it db3  /usr/bin/mysql -u user1 datavoldb -ppassword -e "
        '"CREATE TABLE dummy (id int(10) NOT NULL, name varchar(255) DEFAULT NULL, PRIMARY KEY (id));" '
        "-e \"insert into dummy (id, name) values (1,'Docker Volumes');\"",
        tty=True,
    )
    first = lab.out(
        'docker exec -it db3  /usr/bin/mysql -u user1 datavoldb -ppassword -e "select * from dummy"', tty=True
    )
    lab.sh("docker stop db3; docker rm db3")

    lab.sh(f"docker run --name db4 -d -v datavol:/var/lib/mysql {run}", driver=driver)
    _wait_for_mysql(lab, "db4", "datavoldb")
    again = lab.out(
        'docker exec -it db4  /usr/bin/mysql -u user1 datavoldb -ppassword -e "select * from dummy"', tty=True
    )

    assert "|  1 | Docker Volumes |" in first
    assert again == first
    assert lab.mounts("db4")["/var/lib/mysql"]["Driver"] == driver


@pytest.mark.feature("V9")
@every_engine
def test_a_data_container_is_filled_with_cp_and_used_with_volumes_from(lab, driver):
    lab.sh("docker create -v /var/www/html --name datacontainer alpine", driver=driver)
    lab.sh('echo "Data Container!" > index.html')

    lab.sh("docker cp index.html datacontainer:/var/www/html")
    lab.sh("docker run --name http -d --volumes-from datacontainer httpd")
    seen = lab.out("docker exec -it http bash", typed="cat /var/www/html/index.html\nexit\n", tty=True)

    assert "Data Container!" in seen
    assert lab.mounts("http")["/var/www/html"]["Driver"] == driver
    assert lab.out("docker exec http wget -qO- http://127.0.0.1/") == "Data Container!"
    lab.sh("docker run --name reader -d --volumes-from datacontainer:ro busybox top")
    assert lab.out("docker exec reader cat /var/www/html/index.html") == "Data Container!"
    assert "Read-only" in lab.refused("docker exec reader touch /var/www/html/mine")


# "Storage Integration for Docker"


@pytest.mark.part("V1")
def test_a_bind_mount_shows_the_folder_of_the_host_and_its_data_stays(lab):
    # The machine's /tmp is the host's, and the host's /tmp/foo may be somebody's.
    lab.sh("mkdir -p /tmp/foo && mount -t tmpfs mine /tmp/foo && echo before >/tmp/foo/given")

    lab.sh("docker run --mount type=bind,source=/tmp/foo,target=/data busybox cp /data/given /data/written")

    assert lab.out("cat /tmp/foo/written") == "before"
    lab.sh("umount /tmp/foo && rmdir --ignore-fail-on-non-empty /tmp/foo")


def test_a_volume_is_created_and_mounted_at_run_time(lab, driver):
    lab.sh("docker volume create myvol", driver=driver)
    if driver == "local":
        assert lab.inside("/var/lib/docker/volumes/myvol").is_dir()

    lab.sh("docker run --mount source=myvol,destination=/data busybox touch /data/mark")

    assert lab.out("docker run --rm -v myvol:/data busybox ls /data") == "mark"


def test_mount_and_v_are_not_equivalent_v_has_no_keys(lab):
    lab.sh("docker run --name mycontainer -v source=myvol,destination=/data busybox")

    # It is one long path to an anonymous volume.
    assert list(lab.mounts("mycontainer")) == ["source=myvol,destination=/data"]
    assert "myvol" not in lab.volumes()


# Services: "Use volumes", "Docker for Azure persistent data volumes"


@pytest.mark.part("V6")
def test_a_service_with_four_replicas_mounts_a_volume(lab, swarm, driver):
    lab.sh(
        "docker service create -d --replicas=4 --name devtest-service --mount source=myvol2,target=/app nginx:latest",
        driver=driver,
    )
    eventually(lambda: _running(lab, "devtest-service") == 4)
    containers = lab.out("docker ps -q").split()

    assert len(containers) == 4
    assert {(m["Name"], m["Driver"]) for c in containers for m in [lab.mounts(c)["/app"]]} == {("myvol2", driver)}
    lab.sh(f"docker exec {containers[0]} touch /app/mark")
    assert lab.out(f"docker exec {containers[3]} ls /app") == "mark"

    lab.remove_service("devtest-service")
    # Removing the service does not remove its volume.
    assert lab.volumes() == {"myvol2"}
    lab.sh("docker volume rm myvol2")


@pytest.mark.part("P3")
def test_tasks_of_a_service_share_one_volume_of_a_driver(lab, swarm):
    lab.sh(
        "docker service create --replicas 5 --name ping1 --mount "
        "type=volume,volume-driver=orlop,source=sharedvol1,destination=/shareddata alpine ping docker.com"
    )
    containers = lab.out("docker ps -q").split()
    lab.sh(f"docker exec {containers[0]} sh -c 'echo seen >/shareddata/file'")

    seen = {lab.out(f"docker exec {container} cat /shareddata/file") for container in containers}

    assert (len(containers), seen) == (5, {"seen"})
    assert lab.out("docker volume ls").splitlines()[1:] == ["orlop     sharedvol1"]
    assert "volume is in use" in lab.refused("docker volume rm sharedvol1")
    lab.remove_service("ping1")
    lab.sh("docker volume rm sharedvol1")
    assert lab.volumes() == set()


@pytest.mark.part("P5")
def test_every_task_of_a_service_has_a_volume_of_its_own_by_template(lab, swarm):
    lab.sh(
        "docker service create --replicas 5 --name ping2 --mount "
        "type=volume,volume-driver=orlop,source={{.Service.Name}}-{{.Task.Slot}}-vol,destination=/mydata "
        "alpine ping docker.com"
    )
    names = "docker ps --format '{{.Names}} {{.ID}}'"
    tasks = dict(line.split() for line in lab.out(names).splitlines())
    for task, container in tasks.items():
        lab.sh(f"docker exec {container} sh -c 'echo slot {task.split('.')[1]} >>/mydata/who'")
    slot3 = next(container for task, container in tasks.items() if task.startswith("ping2.3."))

    assert lab.volumes() == {f"ping2-{slot}-vol" for slot in range(1, 6)}
    for task, container in tasks.items():
        assert lab.mounts(container)["/mydata"]["Name"] == f"ping2-{task.split('.')[1]}-vol"

    # A task that comes again finds the volume of its slot.
    lab.sh(f"docker rm -f {slot3}")
    eventually(lambda: "ping2.3." in lab.out(names), 30)
    successor = next(line.split()[1] for line in lab.out(names).splitlines() if line.startswith("ping2.3."))
    assert successor != slot3
    assert lab.out(f"docker exec {successor} cat /mydata/who") == "slot 3"
    lab.remove_service("ping2")


@pytest.mark.part("V3", "V12")
def test_a_list_of_options_is_escaped_from_the_outer_csv(lab, swarm, driver):
    lab.sh(
        "docker service create -d "
        f"--mount 'type=volume,src=scratch,dst=/scratch,volume-driver={driver},volume-opt=type=tmpfs,"
        'volume-opt=device=tmpfs,"volume-opt=o=size=1m,mode=0700,uid=33"\' '
        "--name myservice nginx:latest"
    )
    eventually(lambda: _running(lab, "myservice") == 1)
    container = lab.out("docker ps -q")

    assert lab.volume("scratch")["Options"]["o"] == "size=1m,mode=0700,uid=33"
    assert lab.out(f"docker exec {container} stat -c '%a %u' /scratch") == "700 33"
    assert lab.out(f"docker exec {container} df -k /scratch").split()[-6:-4] == ["tmpfs", "1024"]
    lab.remove_service("myservice")


def _wait_for_mysql(lab, container, database):
    ready = f'docker exec {container} mysql -u user1 {database} -ppassword -e "select 1"'
    eventually(lambda: lab.sh(ready, check=False).returncode == 0)


def _running(lab, service):
    """How many tasks run, as ``docker service ps`` says."""
    return len(re.findall(r"Running\s+Running ", lab.out(f"docker service ps {service}")))
