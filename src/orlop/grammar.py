import re

from orlop.errors import Invalid


def volume_name(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", text) or len(text) > 255:
        raise Invalid(f"{text!r} includes invalid characters for a volume name")
    return text


def size(text: str) -> int:
    m = re.fullmatch(r"(\d+)([kmgtb]?)", text.lower())
    if not m:
        raise Invalid(f"invalid size: {text!r}")
    return int(m[1]) * {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}[m[2]]
