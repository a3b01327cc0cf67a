"""RLOO and GRPO beside the RLOOTrainer and GRPOTrainer of the installed TRL, on the same responses.

Documented differences: TRL has no penalty for a missing EOS (0 here), and normalises nothing else by default.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from benchmarks import trl_case as case
from salsa.alignment.training import make_algorithm
from salsa.config.algorithms import GrpoSettings, RlooSettings, RlSettings
from salsa.models.frozen import FrozenOnDevice
from salsa.models.sampling import Answer
from salsa.models.trained import Trained
from salsa.rollouts.experience import experience
from salsa.rollouts.models import Models
from salsa.rollouts.rewards import Prompt

# Two prompts with three responses each.
PROMPTS = [case.PROMPTS[number] for number in (1, 1, 1, 4, 4, 4)]
SHARED = {"beta": 0.3, "temperature": 0.7, "learning_rate": 3e-4, "epochs": 4}
ROWS = list(range(len(PROMPTS)))


def reward(responses: Sequence[Sequence[int]]) -> list[float]:
    return [sum(response) % 7 / 2 for response in responses]


def tokenizer() -> PreTrainedTokenizerFast:
    words = {str(number): number for number in range(case.VOCABULARY)}
    plain = Tokenizer(WordLevel(words, unk_token="2"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token=str(case.PAD), eos_token=str(case.EOS))


def recorder(trainer: type, config: type, folder: Any, **keys: Any) -> Any:
    """TRL's trainer after training on the case. `seen` has the advantages and the loss of each update."""

    class Recorder(trainer):
        def _tokenize_prompts(self, prompts):
            return PROMPTS, None, {}

        def _generate_single_turn(self, *arguments):
            return case.RESPONSES if trainer is RLOOTrainer else (case.RESPONSES, None)

        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            # TRL shuffles the rows.
            given = zip(inputs["completion_ids"].tolist(), inputs["completion_mask"].sum(1).tolist(), strict=True)
            places = [case.RESPONSES.index(ids[:length]) for ids, length in given]
            self.seen.append((inputs["advantages"][torch.tensor(places).argsort()].tolist(), loss.item()))
            return loss

    arguments = config(
        output_dir=str(folder),
        per_device_train_batch_size=len(PROMPTS),
        num_generations=3,
        steps_per_generation=1,
        num_iterations=SHARED["epochs"],
        max_steps=SHARED["epochs"],
        max_completion_length=case.NEW_TOKENS,
        beta=SHARED["beta"],
        temperature=SHARED["temperature"],
        learning_rate=SHARED["learning_rate"],
        lr_scheduler_type="constant",
        adam_beta1=case.SETTINGS["adam_betas"][0],
        adam_beta2=case.SETTINGS["adam_betas"][1],
        adam_epsilon=case.SETTINGS["adam_eps"],
        max_grad_norm=1e9,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **keys,
    )
    networks = case.models()
    networks["reference"].save_pretrained(folder / "reference")
    # TRL loads the reference from where the policy says that it comes from.
    networks["policy"].config._name_or_path = str(folder / "reference")
    made = Recorder(
        model=networks["policy"],
        reward_funcs=lambda completion_ids, **_: reward(completion_ids),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["5"] * len(PROMPTS)}),
        processing_class=tokenizer(),
    )
    made.seen = []
    made.train()
    return made


def ours(settings: RlSettings) -> tuple[list[list[float]], list[float], torch.nn.Module]:
    """Advantages, losses of each epoch, and the policy after them."""
    networks = case.models()
    reference = FrozenOnDevice(networks["reference"])
    models = Models(
        tokenizer=SimpleNamespace(pad_token_id=case.PAD, eos_token_id=case.EOS),
        policy=Trained(networks["policy"]),
        references=[reference],
        sft=reference,
        reward=lambda prompts, answers, batches: reward([answer.token_ids for answer in answers]),
        normalisation=(0.0, 1.0),
    )
    answers = [Answer(ids, ids[-1] == case.EOS, [0.0] * len(ids)) for ids in case.RESPONSES]
    found = experience(models, [Prompt([], ids) for ids in PROMPTS], answers, settings)
    algorithm = make_algorithm(models, settings, lambda: pytest.fail("no value model"))
    advantages, _ = algorithm.targets(found)
    metrics = [algorithm.update(found, advantages, ROWS) for _ in range(settings.epochs)]
    assert metrics[0]["clip_fraction_policy"] == 0 and 0.1 < metrics[-1]["clip_fraction_policy"] < 1
    return advantages.tolist(), [update["loss_policy"] for update in metrics], networks["policy"]


CASES = {
    # The ratio of a whole response is further from 1 than a token's.
    "rloo": (RlooSettings, {"clip": 1.0}, RLOOTrainer, RLOOConfig, {"epsilon": 1.0}),
    "grpo": (GrpoSettings, {"clip": 0.2}, GRPOTrainer, GRPOConfig, {"epsilon": 0.2, "loss_type": "dapo"}),
    "grpo by responses, neither scaled nor corrected": (
        GrpoSettings,
        {"clip": 0.2, "average": "responses", "scale": "none", "corrected_kl": False},
        GRPOTrainer,
        GRPOConfig,
        {"epsilon": 0.2, "loss_type": "grpo", "scale_rewards": "none", "use_bias_correction_kl": False},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_advantages_losses_and_trained_weights_equal_trls(name, tmp_path):
    """Four epochs of updates: an error in a loss, a gradient or Adam would change the next epoch's losses."""
    schema, keys, trainer, config, theirs = CASES[name]
    sizes = {"steps": 1, "rollout_batch_size": 6, "train_batch_size": 6, "micro_batch_size": 2}
    limits = {"max_prompt_length": 8, "max_new_tokens": case.NEW_TOKENS, "max_grad_norm": 1e9, "schedule": "constant"}
    adam = {key: case.SETTINGS[key] for key in ("adam_eps", "adam_betas")}
    given = {**sizes, **limits, **adam, **SHARED, "responses_per_prompt": 3, "missing_eos_penalty": 0, **keys}
    advantages, losses, policy = ours(schema.model_validate(given))
    trained = recorder(trainer, config, tmp_path, **theirs)
    assert len(trained.seen) == SHARED["epochs"]
    for their_advantages, _ in trained.seen:
        assert advantages == pytest.approx(their_advantages, rel=1e-4, abs=1e-5)
    assert losses == pytest.approx([loss for _, loss in trained.seen], rel=1e-3, abs=1e-4)
    weights = dict(trained.model.named_parameters())
    start = dict(case.models()["policy"].named_parameters())
    for key, weight in policy.named_parameters():
        torch.testing.assert_close(weight, weights[key], atol=2e-4, rtol=1e-3)
    assert (policy.lm_head.weight - start["lm_head.weight"]).abs().max() > 5e-4
