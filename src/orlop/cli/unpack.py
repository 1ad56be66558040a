"""Unpacks a tar stream that nobody vouches for: ``python -m orlop.cli.unpack FOLDER <ARCHIVE``, as root.

The process makes FOLDER its root first (chroot(2)), so that every name, ``..``, symbolic and hard link in the archive
means something inside. Nothing that exists is ever opened: a file is always made anew, so one that the archive made
before (a FIFO that never answers, a link) is replaced. Device nodes, which would lead outside, are refused. Memory is
limited, so an endless header fails like any other error.
"""

import bz2  # noqa: F401 - after chroot there is nothing to import any more
import errno
import gzip  # noqa: F401
import lzma
import os
import resource
import stat
import struct
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import IO, cast

from orlop.errors import Invalid, NoSpace, OrlopError, Unavailable

_MEMORY = 1 << 30
_XATTR, _ACL = "SCHILY.xattr.", "SCHILY.acl."
_ACL_TAGS = {
    ("user", False): 0x01,
    ("user", True): 0x02,
    ("group", False): 0x04,
    ("group", True): 0x08,
    ("mask", False): 0x10,
    ("other", False): 0x20,
}
"""By the word and whether it names somebody (linux/posix_acl.h)."""
_NO_ID = 0xFFFFFFFF


def main() -> None:
    """Unpack; what goes wrong is one line on standard output and exit status 1."""
    try:
        os.chroot(sys.argv[1])
        os.chdir("/")
        # From here on an import would run what the archive holds.
        sys.meta_path.clear()
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        os.umask(0o022)
        unpack(sys.stdin.buffer)
    except OrlopError as error:
        sys.exit(_say(str(error)))
    except MemoryError:
        sys.exit(_say("it needs more memory than any honest one"))
    except (tarfile.TarError, EOFError, lzma.LZMAError, OSError, ValueError, ArithmeticError) as error:
        sys.exit(_say(str(error) or type(error).__name__))


def unpack(stream: IO[bytes]) -> None:
    """Everything in ``stream`` into the root folder. Raises `Invalid` for what is damaged, cut off or not allowed."""
    folders: list[tarfile.TarInfo] = []
    with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Entry) as archive:
        while entry := archive.next():
            archive.members = []  # type: ignore[attr-defined] # it would remember them all
            with _naming(entry):
                _make(archive, entry)
            if entry.isdir():
                folders.append(entry)
    # Last, and the inner ones first: what is made in a folder changes its time.
    for entry in reversed(folders):
        with _naming(entry):
            _dress(entry, _path(entry.name))
    while stream.read(1 << 20):  # padding after the end
        pass


class _Entry(tarfile.TarInfo):
    """As `tarfile.TarInfo`, but an archive that is cut off or damaged is an error, not an end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Entry":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # two blocks of zeros: the right end
            raise
        except tarfile.HeaderError as error:
            raise Invalid(f"it is damaged or cut off: {error}") from error


def _make(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
    path = _path(entry.name)
    if entry.isdir():
        _make_folder(path)
        return
    _make_folder(os.path.dirname(path))  # noqa: PTH120 - text all along: names need not be UTF-8
    if entry.islnk():
        _link(_path(entry.linkname), path)
        return
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    if entry.issym():
        os.symlink(entry.linkname, path)  # noqa: PTH211
    elif entry.isfifo():
        os.mkfifo(path)
    elif entry.isreg():
        _write(archive, entry, path)
    else:
        kind = "a device node" if entry.isdev() else f"of unknown type {entry.type!r}"
        raise Invalid(f"{entry.name!r} is {kind}, which a volume must not get from an archive")
    _dress(entry, path)


def _path(name: str) -> str:
    return "/" + name.strip("/")


def _make_folder(path: str) -> None:
    if not os.path.isdir(path):  # noqa: PTH112
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)  # noqa: PTH108
        os.makedirs(path, mode=0o755, exist_ok=True)  # noqa: PTH103


def _link(target: str, path: str) -> None:
    with suppress(FileNotFoundError):
        if os.path.samestat(os.lstat(target), os.lstat(path)):
            return
        os.unlink(path)  # noqa: PTH108
    os.link(target, path, follow_symlinks=False)


def _write(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> None:
    source = cast("IO[bytes]", archive.fileobj)
    source.seek(entry.offset_data)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:  # noqa: PTH123
        parts = getattr(entry, "sparse", None)
        for offset, size in [(0, entry.size)] if parts is None else parts:
            file.seek(offset)
            _copy(source, file, size)
        file.truncate(entry.size)


def _copy(source: IO[bytes], file: IO[bytes], size: int) -> None:
    while size > 0:
        block = source.read(min(size, 1 << 20))
        if not block:
            raise Invalid("it is cut off")
        file.write(block)
        size -= len(block)


def _dress(entry: tarfile.TarInfo, path: str) -> None:
    """Owner, mode (after the owner, whose change drops set-user-ID), attributes, times."""
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    if not entry.issym():
        os.chmod(path, stat.S_IMODE(entry.mode))  # noqa: PTH101
    for name, content in _attributes(entry).items():
        os.setxattr(path, name, content, follow_symlinks=False)
    modified = int(Decimal(entry.pax_headers.get("mtime", str(entry.mtime))) * 1_000_000_000)
    os.utime(path, ns=(modified, modified), follow_symlinks=False)


def _attributes(entry: tarfile.TarInfo) -> dict[str, bytes]:
    """Extended attributes; access lists are two of them, for which tar's text counts only if there is nothing exact."""
    headers = entry.pax_headers
    found = {
        key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
        for key, value in headers.items()
        if key.startswith(_XATTR)
    }
    for kind in ("access", "default"):
        if _ACL + kind in headers and f"system.posix_acl_{kind}" not in found:
            found[f"system.posix_acl_{kind}"] = _acl(headers[_ACL + kind])
    return found


def _acl(text: str) -> bytes:
    """An access list as the kernel stores it (linux/posix_acl_xattr.h), from lines such as ``user:1000:r--``."""
    found = []
    for line in text.replace(",", "\n").split():
        words = line.partition("#")[0].split(":")
        if len(words) < 3 or (words[0], bool(words[1])) not in _ACL_TAGS:
            raise Invalid(f"access list {text!r} is not understood")
        tag = _ACL_TAGS[words[0], bool(words[1])]
        bits = sum(bit for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if letter in words[2])
        # tar may say the number behind the name.
        who = words[3] if len(words) > 3 and words[3] else words[1]
        if who and not who.isdecimal():
            raise Invalid(f"an access list names {who!r}, which is no number; make the archive with tar's --xattrs too")
        number = int(who) if who else _NO_ID
        found.append((tag, bits, number))
    entries = b"".join(struct.pack("<HHI", *entry) for entry in sorted(found, key=lambda entry: (entry[0], entry[2])))
    return struct.pack("<I", 2) + entries


@contextmanager
def _naming(entry: tarfile.TarInfo) -> Iterator[None]:
    """Errors say at which entry of the archive they came up."""
    name = entry.name if len(entry.name) < 200 else entry.name[:200] + "..."
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"no room for {name!r}; import into a volume with a larger size=") from error
        if entry.islnk() and error.errno == errno.ENOENT:
            target = entry.linkname[:200]
            raise Invalid(f"{name!r} is a hard link to {target!r}, which the archive does not hold") from error
        raise Unavailable(f"{name!r}: {error.strerror}") from error
    except (ValueError, ArithmeticError) as error:
        raise Invalid(f"{name!r} has a number or an attribute that makes no sense: {error}") from error


def _say(text: str) -> int:
    # A name in the archive may hold anything; a terminal must not obey it.
    print(text.encode("ascii", "backslashreplace").decode())
    return 1


if __name__ == "__main__":
    main()
