"""python -m salsa COMMAND: the training stages, and checks of a grid before it runs."""

import sys
from importlib.metadata import entry_points

from salsa.runtime.command import main

COMMANDS = {
    "world": ("salsa.world.make", "generate the mini world: tokenizer, data sets and benchmarks"),
    "base": ("salsa.supervised.base", "pretrain a mini base model, or fetch one from the hub"),
    "fetch": ("salsa.data.fetch", "fetch a data set from the hub at its revision"),
    "data": ("salsa.data.prepare", "make token ids of a model's data sets, and count what cannot be used"),
    "sft": ("salsa.supervised.sft", "fine-tune a base model on demonstrations"),
    "soup": ("salsa.soups.soup", "average checkpoints"),
    "warp": ("salsa.soups.warp", "average the last round of a WARP run, and join its metrics"),
    "merge": ("salsa.lora.merge", "write a LoRA checkpoint as an ordinary one"),
    "reward": ("salsa.supervised.reward", "train and normalise the reward model"),
    "combine": ("salsa.supervised.combine", "make one reward of several reward models"),
    "perturb": ("salsa.soups.perturb", "move a checkpoint at random, as far as another is from it"),
    "align": ("salsa.alignment.align", "train a policy with PPO, RLOO or GRPO against a reference"),
    "dpo": ("salsa.supervised.dpo", "train a policy with DPO against a fixed reference"),
    "schema": ("salsa.config.schema", "print the config's JSON schema"),
}
# Commands that other packages add: plan and doctor look at the whole grid, so their code is in eval.
for point in entry_points(group="salsa.commands"):
    COMMANDS |= point.load()

if __name__ == "__main__":
    sys.exit(main("salsa", COMMANDS))
