"""Seeds by name: every random draw's seed is a function of the config's seed and the draw's name."""

import hashlib


def derive_seed(root: int, *names: str | int) -> int:
    """A 31-bit seed from the config's `seed` and the name of what is drawn.

    The names are joined with a separator that no name holds, so ("a", "bc") and ("ab", "c") differ.
    """
    text = "\x1f".join([str(root), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
