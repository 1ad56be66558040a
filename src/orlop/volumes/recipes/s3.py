"""A bucket of an S3 store as files, by s3fs (s3fs(1)): what was written is in the bucket when the file is closed."""

import re

from orlop.mount import Mount
from orlop.volumes.options import matching
from orlop.volumes.recipes.words import HOST, PATH, PROGRAM, READ_ONLY, numbers, safe, texts
from orlop.volumes.remote import Asked, Recipe

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_URL = re.compile(rf"https?://{HOST}(?::[0-9]+)?(?:/{PATH})?")
_NUMBERS = {
    "stat_cache_expire": "seconds for which it is remembered what is in the bucket (default 60)",
    "retries": "how often a request is repeated (default 5)",
}
_TEXTS = {"umask": "permissions to take from every file, in octal", "storage_class": "such as standard_ia"}
_ALWAYS = (
    # Containers' users are others.
    "allow_other",
    # Most requests of s3fs ask whether something is there: in ways that other programs once had of making folders, and
    # again for what was not there a moment ago. Together these are worth half of the time of small files.
    *("notsup_compat_dir", "enable_noobj_cache", "listobjectsv2", "max_stat_cache_size=100000"),
    *("multireq_max=50", "parallel_count=10"),
    # A store that hangs is an error, not a hang.
    *("connect_timeout=10", "readwrite_timeout=60"),
)
_NOBODYS = ".orlop.is.it.there"
"""A file that no bucket has: before s3fs asks whether its key is right, it makes the mount, and may answer there."""
_FREE = 1024
"""Mebibytes that the copies of files on this host leave free."""


def _mount(asked: Asked) -> Mount:
    volume, options = asked.volume, asked.volume.options
    bucket = matching(volume, "bucket", _BUCKET, "the name of a bucket")[0]
    words = [
        *safe(asked),
        *_ALWAYS,
        *(f"use_cache={asked.folder}", f"ensure_diskfree={_FREE}"),
        *numbers(asked, _NUMBERS),
        *texts(asked, {"region": "endpoint", **{name: name for name in _TEXTS}}),
    ]
    if "stat_cache_expire" not in options:
        words.append("stat_cache_expire=60")
    if "endpoint" in options:
        words += [f"url={matching(volume, 'endpoint', _URL, 'https://HOST')[0]}", "use_path_request_style"]
    if "prefix" in options:
        bucket += ":/" + matching(volume, "prefix", re.compile(rf"/?({PATH})"), "a folder in the bucket")[1].rstrip("/")
    words.append("passwd_file={passwd}" if "secret_key" in options else "public_bucket=1")
    program = ("s3fs", bucket, "{target}", "-f", "-o", ",".join(words))
    # It writes when a file is closed. Of some hundred ends one is a crash: in its last destructors, with nothing to do.
    return Mount("fuse.s3fs", bucket, (), _passwd(asked), program, _NOBODYS, holds_back=False)


def _passwd(asked: Asked) -> tuple[tuple[str, str], ...]:
    """The file that s3fs reads: the two keys on one line."""
    if "secret_key" not in asked.volume.options:
        return ()
    access_key = matching(asked.volume, "access_key", re.compile(r"[^:\s]+"), "the id of a key")[0]
    return (("passwd", f"{access_key}:{asked.secret('secret_key')}\n"),)


S3 = Recipe(
    _mount,
    options={
        "bucket": "the bucket",
        "prefix": "a folder in it (default: all of it)",
        "endpoint": "the address of the store: https://HOST (default: Amazon's)",
        "region": "the store's region",
        "access_key": "the id of the key",
        "secret_key": "the key itself (default: the bucket is public)",
        **_NUMBERS,
        **_TEXTS,
        **READ_ONLY,
    },
    required=("bucket",),
    secrets=("secret_key",),
    health=PROGRAM,
    package="s3fs",
)
