"""Folders of a grid's checkpoints and mini world, for rules and for stages run by hand with --config.

checkpoints/GRID/base/MODEL      sft/MODEL/SEED              soup/MODEL/WEIGHTS
                 reward/MODEL    policy/MODEL/METHOD-sSEED   perturbed/MODEL/SEED_DRAW_WEIGHTS
"""

from salsa.config.config import Config
from salsa.config.naming import Checkpoint, checkpoint_name


def world_folder(config: Config) -> str:
    """Folder of the generated mini world."""
    return f"{config.paths.data}/{config.grid}/world"


def root(config: Config) -> str:
    """Folder of all checkpoints of the grid."""
    return f"{config.paths.checkpoints}/{config.grid}"


def checkpoint_folder(config: Config, model: str, checkpoint: Checkpoint) -> str:
    """Folder of a checkpoint that the config names (sft-1, a soup, a perturbed model)."""
    return f"{root(config)}/{checkpoint_name(checkpoint).format(model=model)}"


def first_sft_folder(config: Config, model: str) -> str:
    """Folder of SFT 1: KL is measured to it, and the reward model starts from it."""
    return checkpoint_folder(config, model, f"sft-{config.sft.seeds[0]}")


def reward_folder(config: Config, model: str) -> str:
    return f"{root(config)}/reward/{model}"
