"""Folders of a grid's checkpoints and mini world, for rules and for stages run by hand with --config.

checkpoints/GRID/base/MODEL            sft/MODEL/SEED                        reward/MODEL
                 soup/MODEL/WEIGHTS    slerp/MODEL/WEIGHTS                   perturbed/MODEL/SEED_DRAW_WEIGHTS
                 greedy/MODEL/MODELS   policy/MODEL/METHOD-sSEED

With replicates: policy/MODEL/METHOD-REPLICATE-sSEED, and reward/MODEL-REPLICATE for a reward model of its own.
reward/MODEL-held-out is the reward model that no policy is trained against (`reward.held_out`). For methods that
combine several reward models: reward/MODEL.2 and further ones, and reward/MODEL.weights-3 for what they combine.
"""

from salsa.config.algorithms import CombinedReward
from salsa.config.config import FIRST_ROLE, Config, all_replicates
from salsa.config.naming import Checkpoint, checkpoint_name
from salsa.config.replicates import HELD_OUT, UNNAMED, bind, suffix


def world_folder(config: Config) -> str:
    """Folder of the generated mini world."""
    return f"{config.paths.data}/{config.grid}/world"


def root(config: Config) -> str:
    """Folder of all checkpoints of the grid."""
    return f"{config.paths.checkpoints}/{config.grid}"


def checkpoint_folder(config: Config, model: str, checkpoint: Checkpoint) -> str:
    """Folder of a checkpoint, named by the seeds of SFT runs: sft-1, a soup, a perturbed model."""
    return f"{root(config)}/{checkpoint_name(checkpoint).format(model=model)}"


def replicate_folder(config: Config, model: str, replicate: str, checkpoint: Checkpoint) -> str:
    """Folder of a checkpoint that a method names by roles, in a replicate."""
    return checkpoint_folder(config, model, bind(checkpoint, all_replicates(config)[replicate].sft))


def first_sft_folder(config: Config, model: str, replicate: str) -> str:
    """Folder of SFT 1 in a replicate: the KL to it is measured."""
    return replicate_folder(config, model, replicate, FIRST_ROLE)


def reward_owner(config: Config, replicate: str) -> str:
    """Owner of a replicate's reward model: itself, or "" for the shared one."""
    return replicate if all_replicates(config)[replicate].reward_seed is not None else UNNAMED


def reward_name(model: str, owner: str, version: str = "") -> str:
    """Name of a reward model, or of another version of it (`methods.reward_versions`)."""
    return f"{model}{suffix(owner)}" + (f".{version}" if version else "")


def owned_reward_folder(config: Config, model: str, owner: str, version: str = "") -> str:
    """Folder of an owner's reward model, or of another version of it."""
    return f"{root(config)}/reward/{reward_name(model, owner, version)}"


def held_out_folder(config: Config, model: str) -> str | None:
    """Folder of the reward model that no policy is trained against, if the grid has one."""
    return None if config.reward.held_out is None else owned_reward_folder(config, model, HELD_OUT)


def reward_folder(config: Config, model: str, replicate: str) -> str:
    """Folder of a replicate's reward model."""
    return owned_reward_folder(config, model, reward_owner(config, replicate))


def method_reward_folder(config: Config, model: str, replicate: str, method: str) -> str:
    """Folder of the reward that a method's policies are trained against."""
    combined = config.methods[method].reward
    return owned_reward_folder(config, model, reward_owner(config, replicate), combined.name if combined else "")


def combined_folders(config: Config, model: str, owner: str, combined: CombinedReward) -> list[str]:
    """Folders of the reward models that are combined."""
    return [owned_reward_folder(config, model, owner, version) for version in combined.versions]
