"""Where a grid's checkpoints and world lie, for a rule's inputs and for a stage that is run by hand with the config.

checkpoints/GRID/base/MODEL      sft/MODEL/SEED              soup/MODEL/WEIGHTS
                 reward/MODEL    policy/MODEL/METHOD-sSEED   perturbed/MODEL/SEED_DRAW_WEIGHTS
"""

from salsa.config.config import Config
from salsa.config.naming import Checkpoint, checkpoint_name


def world_folder(config: Config) -> str:
    """What the mini world generates."""
    return f"{config.paths.data}/{config.grid}/world"


def root(config: Config) -> str:
    return f"{config.paths.checkpoints}/{config.grid}"


def checkpoint_folder(config: Config, model: str, checkpoint: Checkpoint) -> str:
    """The folder of a checkpoint as a method or the alpha line names it."""
    return f"{root(config)}/{checkpoint_name(checkpoint).format(model=model)}"


def first_sft_folder(config: Config, model: str) -> str:
    """SFT 1: the common measure of distance, and the reward model's start."""
    return checkpoint_folder(config, model, f"sft-{config.sft.seeds[0]}")


def reward_folder(config: Config, model: str) -> str:
    return f"{root(config)}/reward/{model}"
