"""The mini world: a small language of instruction tasks whose true reward is known."""
