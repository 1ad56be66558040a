"""What can go wrong, sorted by what the caller can do about it.

Every error that orlop raises on purpose is one of these; a front end turns the kind into its protocol's answer with one
table. Messages are lower case, name the thing, and say what to do next where that is not obvious.

    OrlopError
    ├── Invalid        the request is wrong: change it
    ├── NotFound       there is no such thing
    ├── Conflict       it exists, but differs from what was asked
    ├── InUse          somebody still uses it: stop them first
    ├── Busy           another operation holds it: try again
    ├── Unavailable    a backend, program or kernel feature is not there (yet)
    ├── NoSpace        a disk or a limit is full
    └── Corrupt        what is stored contradicts itself: repair it
"""

from collections.abc import Collection


class OrlopError(Exception):
    """Anything that orlop reports; raised as one of the kinds below."""


class Invalid(OrlopError):
    """The request itself is wrong; the same request will never succeed."""


class NotFound(OrlopError):
    """There is no such volume, driver or option."""


class Conflict(OrlopError):
    """Something of that name exists and differs from what was asked for."""


class InUse(OrlopError):
    """A container, process or mount namespace still uses it."""


class Busy(OrlopError):
    """Another operation on the same thing has not ended; asking again later is right."""


class Unavailable(OrlopError):
    """A backend, a program or a kernel feature does not answer; nothing was changed."""


class NoSpace(OrlopError):
    """A filesystem or a limit is full; nothing was changed."""


class Corrupt(OrlopError):
    """Stored state contradicts itself; orlop stops rather than guess."""


def meant(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown ``name``: the nearest that is known, or all of them."""
    # Not at the beginning: every process pays for it, and few have anything to be found.
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it knows {', '.join(sorted(known)) or 'none'}"
