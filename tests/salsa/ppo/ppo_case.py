"""A small PPO run for the tests here."""

from pathlib import Path

COMMANDS = {"align": ("salsa.ppo.align", "")}


def settings(prompts_file, **keys) -> dict:
    return {
        "prompts": {"path": str(prompts_file)},
        "steps": 2,
        "rollout_batch_size": 8,
        "train_batch_size": 4,
        "epochs": 2,
        "learning_rate": 1e-3,
        "value_learning_rate": 1e-3,
        "beta": 0.1,
        "max_prompt_length": 64,
        "max_new_tokens": 12,
        **keys,
    }


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()
