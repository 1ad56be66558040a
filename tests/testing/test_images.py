import json
import os
import tarfile
import time

import pytest

from orlop.errors import NotFound
from orlop.testing import images
from orlop.testing.engine import Engine, Podman
from orlop.testing.machine import Machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

TABLE = "CREATE TABLE dummy (id int NOT NULL, name varchar(255) DEFAULT NULL, PRIMARY KEY (id));"
ROW = "insert into dummy (id, name) values (1,'Docker Volumes');"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with Machine(tmp_path_factory.mktemp("machine") / "images", "images") as machine:
        engine = Engine(machine)
        engine.start()
        yield engine


@pytest.fixture
def docker(engine):
    yield engine.docker
    containers = engine.docker("ps", "-aq").stdout.split()
    if containers:
        engine.docker("rm", "-fv", *containers)


def eventually(ask, seconds=60):
    """The answer, as soon as it is one; databases take a moment to start."""
    until = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer.returncode == 0 or time.monotonic() > until:
            return answer
        time.sleep(0.1)


def test_busybox_runs_and_is_alpine_too_and_says_that_it_stands_in(engine, docker):
    engine.load(images.build("busybox"))

    assert docker("run", "--rm", "alpine", "sh", "-c", "echo hello | tr a-z A-Z").stdout == "HELLO\n"
    assert docker("run", "--rm", "busybox", "ls", "-ld", "/tmp").stdout.startswith("drwxrwxrwt")
    label = json.loads(docker("image", "inspect", "alpine").stdout)[0]["Config"]["Labels"]
    assert "stand-in" in label["org.opencontainers.image.description"]


def test_ubuntu_tars_with_gnu_tar_and_bash(engine, docker):
    engine.load(images.build("ubuntu"))

    docker("run", "--rm", "-v", "backup:/backup", "ubuntu", "tar", "cvf", "/backup/backup.tar", "/etc/passwd")
    unpack = "cd /var && tar xvf /backup/backup.tar --strip 1 && cat /var/passwd"
    unpacked = docker("run", "--rm", "-v", "backup:/backup", "ubuntu", "bash", "-c", unpack)

    assert "root:x:0:0" in unpacked.stdout
    assert "GNU tar" in docker("run", "--rm", "ubuntu", "tar", "--version").stdout


def test_nginx_answers_and_its_pages_fill_an_empty_volume(engine, docker):
    engine.load(images.build("nginx"))

    docker("run", "-d", "--name=nginxtest", "-v", "nginx-vol:/usr/share/nginx/html", "nginx:latest")
    page = eventually(lambda: docker("exec", "nginxtest", "wget", "-qO-", "http://localhost/", check=False), 10)

    assert "Welcome to nginx!" in page.stdout
    pages = engine.machine.root / "var/lib/docker/volumes/nginx-vol/_data"
    assert (pages / "index.html").read_text() == page.stdout
    docker("stop", "nginxtest", timeout=8)


def test_httpd_serves_what_another_container_has_and_has_a_bash(engine, docker):
    engine.load(images.build("busybox"), images.build("httpd"))
    docker("create", "-v", "/var/www/html", "--name", "datacontainer", "alpine")
    engine.machine.run(["tee", "/run/index.html"], input="Data Container!\n")

    docker("cp", "/run/index.html", "datacontainer:/var/www/html")
    docker("run", "--name", "http", "-d", "--volumes-from", "datacontainer", "httpd")
    page = eventually(lambda: docker("exec", "http", "wget", "-qO-", "http://localhost/", check=False), 10)
    shell = docker("exec", "-it", "http", "bash", tty=True, input="cat /var/www/html/index.html\nexit\n")

    assert page.stdout == "Data Container!\n"
    assert "\nData Container!\n" in shell.stdout


def test_mysql_makes_the_accounts_it_is_told_and_keeps_a_table_when_its_container_is_replaced(engine, docker):
    engine.load(images.build("mysql"))
    settings = (
        "MYSQL_USER=user1",
        "MYSQL_PASSWORD=password",
        "MYSQL_DATABASE=datavoldb",
        "MYSQL_ROOT_PASSWORD=it's",
    )
    environment = [word for setting in settings for word in ("-e", setting)]

    def start(name):
        docker("run", "--name", name, "-d", "-v", "datavol:/var/lib/mysql", *environment, "mysql")

    def query(name, *statements, user="user1", password="password", check=False):
        words = [word for statement in statements for word in ("-e", statement)]
        client = ("/usr/bin/mysql", "-u", user, "datavoldb", f"-p{password}")
        return docker("exec", "-it", name, *client, *words, tty=True, check=check)

    start("db3")
    eventually(lambda: query("db3", "select 1"))
    query("db3", TABLE, ROW, check=True)
    docker("stop", "db3")
    docker("rm", "db3")
    start("db4")

    shown = eventually(lambda: query("db4", "select * from dummy"))
    assert "|  1 | Docker Volumes |" in shown.stdout
    assert "Docker Volumes" in query("db4", "select * from dummy", user="root", password="it's").stdout
    assert "Access denied" in query("db4", "select 1", password="wrong").stdout


def test_postgres_keeps_a_table_when_its_container_is_replaced(engine, docker):
    engine.load(images.build("postgres"))

    def start(name):
        volume = "pg:/var/lib/postgresql/data"
        docker("run", "--name", name, "-d", "-v", volume, "-e", "POSTGRES_PASSWORD=it's", "postgres")

    def query(name, statement, password="it's", check=False):
        client = ("psql", "-h", "localhost", "-U", "postgres", "-Atc", statement)
        return docker("exec", "-e", f"PGPASSWORD={password}", name, *client, check=check)

    start("pg1")
    eventually(lambda: query("pg1", "select 1"))
    query("pg1", TABLE + ROW, check=True)
    docker("stop", "pg1")
    docker("rm", "pg1")
    start("pg2")

    shown = eventually(lambda: query("pg2", "select * from dummy"))
    assert shown.stdout == "1|Docker Volumes\n"
    assert query("pg2", "select 1", password="wrong").returncode != 0


def test_podman_takes_the_same_files(engine):
    podman = Podman(engine.machine)

    podman.podman("load", "--quiet", "--input", str(images.build("busybox")))

    assert podman.podman("run", "--rm", "alpine", "echo", "hello").stdout == "hello\n"


def test_an_image_is_built_once_and_its_bytes_depend_on_nothing_but_the_packages(tmp_path):
    first = images.build("busybox", tmp_path / "one")
    built = first.stat()

    again = images.build("busybox", tmp_path / "one")
    elsewhere = images.build("busybox", tmp_path / "two")

    assert again == first
    assert again.stat().st_mtime_ns == built.st_mtime_ns
    assert elsewhere.name == first.name
    assert elsewhere.read_bytes() == first.read_bytes()


def test_the_file_is_a_docker_archive(tmp_path):
    with tarfile.open(images.build("busybox")) as image:
        manifest = json.load(image.extractfile("manifest.json"))
        config = json.load(image.extractfile(manifest[0]["Config"]))

    assert manifest[0]["RepoTags"] == ["busybox:latest", "alpine:latest"]
    assert config["os"] == "linux"


def test_an_unknown_image_is_refused_with_the_names_there_are():
    with pytest.raises(NotFound, match=r"'mysqll'.*busybox, .*mysql"):
        images.build("mysqll")
