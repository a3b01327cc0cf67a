"""PPO in a notebook: your policy, your prompts, your reward function, any reference.

    from salsa.alignment.library import train_ppo

    def reward(prompts, responses):
        return [float("please" in response) for response in responses]

    run = train_ppo("checkpoints/mini/sft/llama-mini/1", ["Ask Ada for tea."], reward, steps=20, beta=0.1)
    run.metrics[-1]["reward"], run.respond(["Ask Ada for tea."])
    run.save("polite")

This is the code that the stage `align` runs, with a Python function in place of the trained reward model.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from salsa.alignment.training import Training, make_algorithm, train
from salsa.checkpoints.loading import check_vocabularies, load_tokenizer, render_all
from salsa.config.algorithms import PpoSettings
from salsa.config.references import Fixed, Strategy
from salsa.devices import processes
from salsa.lora.checkpoint import save_trained
from salsa.models.sampling import Answer, sample
from salsa.models.scoring import new_head
from salsa.rollouts.metrics import Metrics
from salsa.rollouts.models import assemble, loader_for
from salsa.rollouts.rewards import Messages, Prompt
from salsa.rollouts.samplers import load_sampler
from salsa.runtime.errors import UserError
from salsa.runtime.log import log
from salsa.runtime.outputs import output_folder
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed
from salsa.runtime.settings import describe

Given = str | Messages
RewardFunction = Callable[[list[Any], list[str]], Sequence[float]]
# Settings for small models; every keyword of `train_ppo` overrides one of them.
DEFAULTS: dict[str, Any] = {
    "steps": 10,
    "rollout_batch_size": 16,
    "train_batch_size": 16,
    "learning_rate": 1e-5,
    "value_learning_rate": 1e-4,
    "beta": 0.05,
    "max_prompt_length": 512,
    "max_new_tokens": 64,
}


@dataclass(frozen=True)
class GivenPrompt(Prompt):
    """A prompt, and how the user wrote it."""

    given: Given


@dataclass(frozen=True)
class FunctionReward:
    """A Python function as the reward of PPO."""

    function: RewardFunction
    tokenizer: PreTrainedTokenizerBase

    def __call__(
        self, prompts: Sequence[Prompt], answers: Sequence[Answer], batches: Sequence[Sequence[int]]
    ) -> list[float]:
        """Call the function once for all responses. A UserError unless it returns a finite number for each."""
        given = [prompt.given if isinstance(prompt, GivenPrompt) else prompt.messages for prompt in prompts]
        scores = [float(score) for score in self.function(given, texts(self.tokenizer, answers))]
        if len(scores) != len(answers):
            raise UserError(f"the reward function returned {len(scores)} scores for {len(answers)} responses")
        if not all(map(math.isfinite, scores)):
            raise UserError("the reward function returned NaN or infinity: return a finite number for each response")
        return scores


@dataclass
class PpoRun:
    """A trained policy. `metrics` has one dictionary per step (docs/metrics.md); `pandas.DataFrame(metrics)` works."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    metrics: list[Metrics]
    settings: PpoSettings
    inputs: dict[str, Path]
    seeds: dict[str, int]

    def respond(
        self, prompts: Sequence[Given], max_new_tokens: int | None = None, temperature: float = 0.0, seed: int = 1
    ) -> list[str]:
        """Answer prompts with the trained policy; greedily by default."""
        ids = [prompt.ids for prompt in to_prompts(self.tokenizer, prompts)]
        seeds = [derive_seed(seed, "respond", number) for number in range(len(ids))]
        limit = max_new_tokens or self.settings.max_new_tokens
        eos, pad = [self.tokenizer.eos_token_id], self.tokenizer.pad_token_id
        answers = sample(self.model, ids, [temperature] * len(ids), limit, seeds, eos, pad)
        return texts(self.tokenizer, answers)

    def save(self, folder: str | Path) -> Path:
        """Save the policy as a checkpoint, with a run.json. An existing folder is replaced."""
        record = Run("ppo", self.settings.model_dump(), self.inputs, self.seeds)
        record.extra = {"last_step": self.metrics[-1]}
        with output_folder(Path(folder), record) as out:
            save_trained(self.model, self.tokenizer, out, self.settings.dtype)
        return Path(folder)


def texts(tokenizer: PreTrainedTokenizerBase, answers: Sequence[Answer]) -> list[str]:
    """Responses as texts, without special tokens."""
    return [tokenizer.decode(answer.token_ids, skip_special_tokens=True).strip() for answer in answers]


def to_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Given]) -> list[GivenPrompt]:
    """Render prompts with the chat template. A prompt is a user's text, or messages that end with a user turn."""
    dialogues = [[{"role": "user", "content": p}] if isinstance(p, str) else p for p in prompts]
    ids = render_all(tokenizer, dialogues, add_generation_prompt=True)
    return [GivenPrompt(*parts) for parts in zip(dialogues, ids, prompts, strict=True)]


def train_ppo(
    policy: str | Path,
    prompts: Sequence[Given],
    reward: RewardFunction,
    *,
    reference: str | Path | Sequence[str | Path] | None = None,
    strategy: Strategy | None = None,
    seed: int = 1,
    rl_seed: int = 1,
    report: Callable[[Metrics], None] = lambda metrics: None,
    **settings: Any,
) -> PpoRun:
    """Train a policy with PPO against any reward function and any reference.

    Args:
        policy: Checkpoint folder (safetensors, a tokenizer with a chat template and a pad token) to start from.
        prompts: Texts of users, or lists of messages that end with a user turn. They are reused in random order.
        reward: `reward(prompts, responses) -> list[float]`, called once per rollout with the prompts as you gave them
            and the response texts. PPO maximises its mean minus `beta` times the KL to the reference, in nats per
            response. Scores are not normalised: scale them to a standard deviation of about 1, because `value_clip` and
            `missing_eos_penalty` are in their unit.
        reference: Checkpoint, or several, that the KL penalty refers to; default: `policy`. Pass a soup
            (salsa.soups.library) for SALSA.
        strategy: How the reference uses its checkpoints (salsa.config.references): `Fixed()` by default, `MeanKl()`,
            `Ema(rate=0.01)`, or a subclass of `Strategy` of your own.
        seed: Seed of everything but what `rl_seed` decides: the new head of the value model.
        rl_seed: Seed of the prompts' order and of sampling.
        report: Called with the metrics of each step.
        settings: Settings of the config's `ppo` section, such as `steps`, `beta`, `learning_rate` or
            `missing_eos_penalty` (config/schema.yaml describes them); `DEFAULTS` has those without a default there.

    Returns:
        The trained policy with its metrics. The value model starts from `policy` with a new head.

    Raises:
        UserError: A checkpoint, a setting or the reward function is unusable; the text says what to do.
    """
    init = Path(policy)
    given = [reference or policy] if isinstance(reference, str | Path) or reference is None else reference
    references, strategy = [Path(path) for path in given], strategy or Fixed()
    try:
        checked = PpoSettings.model_validate({**DEFAULTS, **settings})
        strategy.check(len(references))
    except ValidationError as error:
        raise UserError(describe(error, "train_ppo")) from None
    except ValueError as error:
        raise UserError(f"train_ppo: {error}") from None
    tokenizer = load_tokenizer(init)
    check_vocabularies(tokenizer, [("reference", path) for path in references])
    usable = [p for p in to_prompts(tokenizer, prompts) if len(p.ids) <= checked.max_prompt_length]
    if len(usable) < len(prompts):
        log.warning("ppo: left out %d of %d prompts as too long", len(prompts) - len(usable), len(prompts))
    if not usable:
        raise UserError("train_ppo: no prompts of at most max_prompt_length tokens: give some, or raise it")
    with processes.process_group() as cleanup:
        scorer, unit = FunctionReward(reward, tokenizer), (0.0, 1.0)
        loader = loader_for(checked, seed)
        start, value = loader.policy(init), loader.value(init)
        new_head(value.model, torch.Generator().manual_seed(derive_seed(seed, "ppo", "value head")))
        models = assemble(tokenizer, loader, start, references, strategy, init, scorer, unit)
        algorithm = make_algorithm(models, checked, lambda: value)
        sampler = load_sampler(init, tokenizer, checked)
        cleanup.callback(sampler.close)
        training = Training(algorithm, models, sampler, usable, checked, seed, rl_seed, gold=False)
        history = train(training, report=report)
        with models.policy.complete(checked.dtype) as trained:
            inputs = {"init": init, **{f"reference_{number}": path for number, path in enumerate(references, 1)}}
            seeds = {"seed": seed, "rl_seed": rl_seed}
            return PpoRun(trained.eval(), tokenizer, history, checked, inputs, seeds)
