"""What is in each image: packages, links, scripts, and how it starts.

The names are those of the images that Docker's own documentation uses; what they are made of is the
distribution's. Where an image is a stand-in for another program, its label
``org.opencontainers.image.description`` says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Recipe:
    """An image: ``files`` and ``links`` by path, without a leading slash; one that ends in ``/`` is a folder.

    ``without`` are patterns of paths to leave out, ``owners`` are numbers of users. The package
    busybox-static adds its applets where no other brings a program of that name. ``config`` is OCI's.
    """

    tags: tuple[str, ...]
    about: str
    packages: tuple[str, ...]
    config: Mapping[str, object]
    without: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    owners: Mapping[str, int] = field(default_factory=dict)


_NGINX = """\
daemon off;
user www-data;
error_log /dev/stderr;
pid /run/nginx.pid;
events {}
http {
  include /etc/nginx/mime.types;
  access_log /dev/stdout;
  server { listen 80; root /usr/share/nginx/html; }
}
"""

_MYSQL = r"""#!/bin/sh
# Starts MariaDB as the official image does: makes an empty /var/lib/mysql into a database.
set -e
[ "$1" = mariadbd ] || exec "$@"
data=/var/lib/mysql
mkdir -p /run/mysqld
chown mysql:mysql /run/mysqld $data
if [ ! -d $data/mysql ]; then
  echo "entrypoint: initialising $data"
  mariadb-install-db --user=mysql --datadir=$data --skip-test-db \
    --auth-root-authentication-method=normal >/dev/null
fi
quoted() { printf "'%s'" "$(printf %s "$1" | sed "s/[\\\\']/\\\\&/g")"; }
# Every statement may be repeated, so a container that was killed in between is completed by the next one.
{
  if [ -n "$MYSQL_ROOT_PASSWORD" ]; then
    echo "CREATE USER IF NOT EXISTS 'root'@'%';"
    for host in % localhost; do
      echo "ALTER USER 'root'@'$host' IDENTIFIED BY $(quoted "$MYSQL_ROOT_PASSWORD");"
      echo "GRANT ALL ON *.* TO 'root'@'$host' WITH GRANT OPTION;"
    done
  fi
  if [ -n "$MYSQL_DATABASE" ]; then
    echo "CREATE DATABASE IF NOT EXISTS \`$MYSQL_DATABASE\`;"
  fi
  if [ -n "$MYSQL_USER" ]; then
    user="$(quoted "$MYSQL_USER")@'%'"
    echo "CREATE USER IF NOT EXISTS $user IDENTIFIED BY $(quoted "$MYSQL_PASSWORD");"
    [ -z "$MYSQL_DATABASE" ] || echo "GRANT ALL ON \`$MYSQL_DATABASE\`.* TO $user;"
  fi
} >/run/mysqld/accounts.sql
exec "$@" --user=mysql --datadir=$data --init-file=/run/mysqld/accounts.sql
"""

_POSTGRES = r"""#!/bin/sh
# Starts PostgreSQL as the official image does: makes an empty PGDATA into a database.
set -e
[ "$1" = postgres ] || exec "$@"
mkdir -p "$PGDATA" /run/postgresql
chown postgres:postgres "$PGDATA" /run/postgresql
chmod 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  if [ -z "$POSTGRES_PASSWORD" ]; then echo "entrypoint: POSTGRES_PASSWORD is missing" >&2; exit 1; fi
  printf '%s\n' "$POSTGRES_PASSWORD" >/run/postgresql/password
  chown postgres /run/postgresql/password
  su -s /bin/sh postgres -c 'initdb --pgdata="$PGDATA" --username=postgres \
    --pwfile=/run/postgresql/password --encoding=UTF8 --locale=C --auth-local=trust --auth-host=scram-sha-256'
  rm /run/postgresql/password
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
fi
exec su -s /bin/sh postgres -c 'exec "$0" "$@"' -- "$@"
"""

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELL = ("busybox-static", "bash")

RECIPES = {
    "busybox": Recipe(
        tags=("busybox:latest", "alpine:latest"),
        about="busybox; a stand-in for Alpine Linux, without its package manager",
        packages=("busybox-static",),
        config={"Env": [_PATH], "Cmd": ["sh"]},
    ),
    "ubuntu": Recipe(
        tags=("ubuntu:latest",),
        about="bash and the GNU tools of the distribution that built it; a stand-in for Ubuntu",
        packages=("bash", "dash", "coreutils", "tar", "gzip", "grep", "sed", "findutils", "base-files"),
        links={"usr/bin/sh": "dash"},
        config={"Env": [_PATH], "Cmd": ["/bin/bash"]},
    ),
    "nginx": Recipe(
        tags=("nginx:latest",),
        about="nginx of the distribution",
        packages=("nginx", "nginx-common", *_SHELL),
        files={"etc/nginx/nginx.conf": _NGINX},
        config={
            "Env": [_PATH],
            "Cmd": ["nginx"],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
        },
    ),
    "httpd": Recipe(
        tags=("httpd:latest",),
        about="busybox httpd, serving /var/www/html; a stand-in for Apache",
        packages=_SHELL,
        files={"var/www/html/": ""},
        config={
            "Env": [_PATH],
            "Cmd": ["httpd", "-f", "-v", "-p", "80", "-h", "/var/www/html"],
            "ExposedPorts": {"80/tcp": {}},
            # As process 1 it has no answer to a polite signal.
            "StopSignal": "SIGKILL",
        },
    ),
    "mysql": Recipe(
        tags=("mysql:latest", "mariadb:latest"),
        about="MariaDB of the distribution; a stand-in for MySQL",
        packages=("mariadb-server-core", "mariadb-client-core", *_SHELL),
        without=("usr/bin/innochecksum", "usr/bin/mariadb-upgrade", "usr/bin/mariadb-check"),
        files={"entrypoint": _MYSQL, "var/lib/mysql/": ""},
        links={"usr/bin/mysql": "mariadb", "usr/sbin/mysqld": "mariadbd"},
        owners={"var/lib/mysql/": 999},
        config={
            "Env": [_PATH],
            "Entrypoint": ["/entrypoint"],
            "Cmd": ["mariadbd"],
            "ExposedPorts": {"3306/tcp": {}},
            "Volumes": {"/var/lib/mysql": {}},
        },
    ),
    "postgres": Recipe(
        tags=("postgres:latest",),
        about="PostgreSQL of the distribution",
        packages=("postgresql", "postgresql-client", "tzdata", *_SHELL),
        without=("*/bitcode/*", "*/llvmjit*", "*/pgxs/*", "usr/share/zoneinfo/right/*"),
        files={"entrypoint": _POSTGRES, "var/lib/postgresql/data/": ""},
        links={
            f"usr/bin/{name}": "/usr/lib/postgresql/current/bin/" + name
            for name in (
                "postgres",
                "initdb",
                "psql",
                "pg_isready",
                "pg_dump",
                "pg_restore",
                "pg_ctl",
                "pgbench",
            )
        },
        owners={"var/lib/postgresql/data/": 998},
        config={
            "Env": [_PATH, "PGDATA=/var/lib/postgresql/data", "PGUSER=postgres"],
            "Entrypoint": ["/entrypoint"],
            "Cmd": ["postgres"],
            "ExposedPorts": {"5432/tcp": {}},
            "Volumes": {"/var/lib/postgresql/data": {}},
            "StopSignal": "SIGINT",
        },
    ),
}
