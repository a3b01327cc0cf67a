"""Count the operations that the host starts in an update of PPO, as it does for a GPU: about 5 to 10 µs each.

    python benchmarks/operations.py

64 responses of 512 tokens to prompts of 48 to 192, in bfloat16 with gradient checkpointing; 18 layers as in Gemma-2B.
The number does not depend on the width, so the model is narrow.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GemmaConfig, GemmaForCausalLM, GemmaForSequenceClassification

from salsa.algorithms.ppo import Ppo, Targets
from salsa.config.algorithms import PpoSettings
from salsa.models.sampling import Answer
from salsa.models.trained import Trained
from salsa.rollouts.experience import Experience
from salsa.rollouts.models import Models
from salsa.rollouts.rewards import Prompt

ROWS, NEW_TOKENS, VOCABULARY = 64, 512, 300
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}


class Started(TorchDispatchMode):
    """Counts operations; a view starts nothing on a GPU."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def responses(generator: torch.Generator) -> Experience:
    def tokens(length: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()

    prompts = [Prompt([], tokens(length)) for length in torch.randint(48, 193, (ROWS,), generator=generator).tolist()]
    answers = [Answer(tokens(NEW_TOKENS), False) for _ in range(ROWS)]
    zeros = torch.zeros(ROWS, NEW_TOKENS)
    return Experience(prompts, answers, zeros[:, 0], zeros[:, 0], zeros == 0, *[zeros] * 5)


def started(**limits: int) -> int:
    """Operations of one update of both models, with these limits of a forward pass."""
    given = {"steps": 1, "rollout_batch_size": ROWS, "train_batch_size": ROWS}
    given |= {"learning_rate": 1e-6, "value_learning_rate": 1e-6, "beta": 0.05, "dtype": "bfloat16"}
    given |= {"max_prompt_length": 192, "max_new_tokens": NEW_TOKENS, **limits}
    settings = PpoSettings.model_validate(given)
    config = GemmaConfig(vocab_size=VOCABULARY, num_hidden_layers=18, num_labels=1, **SHAPE)
    trained = []
    for build in (GemmaForCausalLM, GemmaForSequenceClassification):
        model = build(config).train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        trained.append(Trained(model, settings.dtype))
    none: Any = None
    tokenizer: Any = SimpleNamespace(pad_token_id=0, eos_token_id=1)
    algorithm = Ppo(Models(tokenizer, trained[0], [], none, none, (0.0, 1.0)), trained[1], settings)
    batch = responses(torch.Generator().manual_seed(1))
    targets = Targets(*[batch.log_probs] * 3)
    with Started() as counted:
        algorithm.update(batch, targets, list(range(ROWS)))
    return counted.count


def main() -> None:
    for limits in ({"micro_batch_size": 8}, {"micro_batch_tokens": 8192}, {"micro_batch_tokens": 16384}):
        print(f"{limits}: {started(**limits):,} operations")


if __name__ == "__main__":
    main()
