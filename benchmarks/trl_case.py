"""A small case that our PPO and TRL 1.11's PPOTrainer both compute: models, prompts, responses, settings.

The models are whole ones, or with LoRA adapters of one base.

Weights come from a formula instead of a random generator, so that they are the same on every machine and torch version.
trl_record.py uses it in TRL's environment, and so does the test that compares.
"""

import math

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


def values(shape: torch.Size | tuple[int, ...], phase: float, number: int) -> torch.Tensor:
    """A matrix with the entries 0.4 sin(phase + 7 i + i^2 / 5), where i counts from `number`."""
    i = torch.arange(math.prod(shape), dtype=torch.float64) + number
    return (0.4 * torch.sin(phase + 7 * i + i**2 / 5)).view(shape).float()


def fill(model: torch.nn.Module, phase: float) -> torch.nn.Module:
    """Set every matrix to `values`; norms stay 1."""
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            if parameter.dim() > 1:
                parameter.copy_(values(parameter.shape, phase, number))
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


# With LoRA all models are adapters of the policy's base, and reward and value model have heads of their own.
RANK, ALPHA = 2, 3
PHASES = {"policy": 0.2, "reference": 0.3, "value": 0.5, "reward": 0.9}


def base() -> LlamaForCausalLM:
    return language_model(0.1)


def adapter(phase: float) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A [RANK, in] and B [out, RANK] of each linear layer below the head, by its name."""
    layers = [(name, part) for name, part in base().named_modules() if isinstance(part, torch.nn.Linear)]
    return {
        name: (values((RANK, part.in_features), phase, number), values((part.out_features, RANK), phase, 50 + number))
        for number, (name, part) in enumerate(layers)
        if name != "lm_head"
    }


def head(phase: float) -> torch.Tensor:
    return values((1, SIZES["hidden_size"]), phase, 0)
