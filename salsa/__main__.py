"""python -m salsa COMMAND: the training stages, and what looks at a whole grid beforehand."""

import sys

from salsa.stage import main

COMMANDS = {
    "world": ("salsa.world.stage", "generate the mini world: tokenizer, data sets and benchmarks"),
    "base": ("salsa.base", "pretrain a mini base model, or fetch one from the hub"),
    "fetch": ("salsa.fetch", "fetch a data set from the hub at its revision"),
    "data": ("salsa.data_card", "make token ids of a model's data sets, and count what cannot be used"),
    "sft": ("salsa.sft", "fine-tune a base model on demonstrations"),
    "soup": ("salsa.soup", "average checkpoints"),
    "reward": ("salsa.reward", "train and normalise the reward model"),
    "perturb": ("salsa.perturb", "move a checkpoint at random, as far as another is from it"),
    "align": ("salsa.ppo.stage", "train a policy with PPO against a reference"),
    "dpo": ("salsa.dpo", "train a policy with DPO against a fixed reference"),
    "schema": ("salsa.schema", "print the config's JSON schema"),
    # These look at the whole grid, judging included: their code is eval's.
    "plan": ("eval.plan", "say what a grid will take: jobs, hours, memory, disk, judge calls"),
    "doctor": ("eval.doctor", "look at all that a grid depends on: access, keys, disks, GPUs, versions"),
}

if __name__ == "__main__":
    sys.exit(main("salsa", COMMANDS))
