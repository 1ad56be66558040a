"""The chunker polynomial of restic's config: an irreducible one of degree 53 over GF(2), as its chunker demands.

orlop cuts by another function and only writes the number, so that restic can save into the same repository.
"""

import secrets
from typing import Final

DEGREE: Final = 53


def random_polynomial() -> int:
    """An irreducible polynomial, each bit a coefficient; about one number in thirteen is one."""
    while True:
        candidate = secrets.randbits(DEGREE) | (1 << DEGREE) | 1
        if is_irreducible(candidate):
            return candidate


def is_irreducible(polynomial: int) -> bool:
    """Whether a polynomial of degree 53 has no divisors (Rabin's test; 53 is prime, so two conditions are enough)."""
    power, first = 0b10, 0
    for step in range(DEGREE):
        power = _remainder(_square(power), polynomial)
        if step == 0:
            first = power
    return power == 0b10 and _common(polynomial, first ^ 0b10) == 1


def _square(a: int) -> int:
    # Over GF(2) the square of a sum is the sum of the squares: every bit moves to twice its place.
    return int("0".join(f"{a:b}"), 2)


def _remainder(a: int, b: int) -> int:
    while (shift := a.bit_length() - b.bit_length()) >= 0:
        a ^= b << shift
    return a


def _common(a: int, b: int) -> int:
    while b:
        a, b = b, _remainder(a, b)
    return a
