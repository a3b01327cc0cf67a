"""Named seeds: each random draw has its own seed, derived from the config's seed and the draw's name."""

import hashlib


def derive_seed(root: int, *names: str | int) -> int:
    """Derive a 31-bit seed from the config's `seed` and the names of the draw.

    The separator occurs in no name, so ("a", "bc") and ("ab", "c") give different seeds.
    """
    text = "\x1f".join([str(root), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
