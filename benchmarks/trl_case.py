"""A small case that salsa/ppo and TRL 1.11's PPOTrainer both compute: models, prompts, responses, settings.

Weights come from a formula instead of a random generator, so that they are the same on every machine and torch version.
trl_record.py uses it in TRL's environment, and so does the test that compares.
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

PAD, EOS, VOCABULARY = 0, 1, 31
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
    "eos_token_id": EOS,
    "bos_token_id": 2,
}
PROMPTS = [[5, 9, 4], [7, 3, 8, 12, 20], [11], [2, 2, 6], [30, 21, 14, 9, 3, 8], [10, 4]]
# Three that end with EOS, at different places; three that the limit of new tokens cut.
RESPONSES = [
    [3, 17, 22, EOS],
    [4, 4, 29, 8, 11, 6, 13],
    [EOS],
    [25, 9, 12, 7, 5, 28, EOS],
    [16, 30, 2, 19, 8, 3, 3],
    [6, 27, 10, 15, 14, 24, 9],
]
NEW_TOKENS = 7
# Rates are large and the clips narrow, so that both clips are active from the second epoch on.
SETTINGS = {
    "beta": 0.3,
    "gamma": 0.97,
    "lam": 0.9,
    "temperature": 0.7,
    "missing_eos_penalty": 0.5,
    "clip": 0.05,
    "value_clip": 0.05,
    "learning_rate": 3e-3,
    "epochs": 4,
    "adam_eps": 1e-5,
    "adam_betas": (0.9, 0.95),
}


def fill(model: torch.nn.Module, phase: float) -> torch.nn.Module:
    """Set entry i of every matrix to 0.4 sin(phase + 7 i + i^2 / 5); norms stay 1."""
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            if parameter.dim() > 1:
                i = torch.arange(parameter.numel(), dtype=torch.float64) + number
                parameter.copy_((0.4 * torch.sin(phase + 7 * i + i**2 / 5)).view_as(parameter))
    return model.eval()


def language_model(phase: float) -> LlamaForCausalLM:
    return fill(LlamaForCausalLM(LlamaConfig(**SIZES)).float(), phase)


def scalar_model(phase: float) -> LlamaForSequenceClassification:
    return fill(LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=1)).float(), phase)


def models() -> dict[str, torch.nn.Module]:
    return {
        "policy": language_model(0.1),
        "reference": language_model(0.13),
        "value": scalar_model(0.5),
        "reward": scalar_model(0.9),
    }
