"""PPO from a notebook: any reward function, any prompts, any reference."""

import json
from typing import Any, ClassVar

import pytest
import torch

from salsa.alignment.library import train_ppo
from salsa.checkpoints.loading import load_causal
from salsa.config.references import Ema, MeanKl, Strategy
from salsa.runtime.errors import UserError

PROMPTS = ["hi", [{"role": "user", "content": "Name the colour of grass."}]]
SMALL = {"steps": 2, "rollout_batch_size": 8, "train_batch_size": 4, "max_new_tokens": 6}


def brevity(prompts: list[Any], responses: list[str]) -> list[float]:
    return [-len(response) / 20 for response in responses]


def test_policy_learns_what_the_function_rewards(llamas, tmp_path):
    rates = {"learning_rate": 3e-3, "value_learning_rate": 1e-2, "beta": 0.0, "missing_eos_penalty": 0.0, "epochs": 2}
    run = train_ppo(llamas[0], PROMPTS, brevity, steps=16, rollout_batch_size=32, train_batch_size=16, **rates)
    assert run.metrics[-1]["reward"] > 0.7 * run.metrics[0]["reward"], "shorter by 30 %"
    assert [metrics["step"] for metrics in run.metrics] == list(range(16))
    saved = load_causal(run.save(tmp_path / "policy"))
    weights = zip(run.model.parameters(), saved.parameters(), strict=True)
    assert all(torch.equal(trained, loaded) for trained, loaded in weights)
    assert run.respond(PROMPTS) == run.respond(PROMPTS)
    record = json.loads((tmp_path / "policy/run.json").read_text())
    assert record["settings"]["beta"] == 0.0 and record["inputs"].keys() == {"init", "reference_1"}


def test_function_gets_prompts_as_given_and_equal_seeds_repeat(llamas):
    calls = []

    def reward(prompts: list[Any], responses: list[str]) -> list[float]:
        calls.append((prompts, responses))
        return [0.0] * len(responses)

    first, again = (train_ppo(llamas[0], PROMPTS, reward, **SMALL) for _ in range(2))
    assert first.metrics == again.metrics and calls[:2] == calls[2:]
    assert all(prompt in PROMPTS for prompts, _ in calls for prompt in prompts)
    assert {type(prompt) for prompt in calls[0][0]} == {str, list}


class SecondOnly(Strategy):
    """A strategy that a user might write."""

    kind: ClassVar[str] = "second_only"

    def check(self, count: int) -> None:
        assert count == 2

    def combine(self, parts: Any) -> Any:
        return parts[1]


def test_any_reference_strategy(llamas):
    """The first rollout is the policy's own, so its KL to the first reference (the policy) is 0."""
    kl = {}
    for name, reference, strategy in (
        ("own", None, None),
        ("other", llamas[1], None),
        ("mean", llamas, MeanKl()),
        ("second", llamas, SecondOnly()),
        ("moving", llamas[0], Ema(rate=0.5)),
    ):
        run = train_ppo(llamas[0], PROMPTS, brevity, reference=reference, strategy=strategy, **SMALL)
        kl[name] = run.metrics[0]["kl_ref_k1"]
    assert kl["own"] == kl["moving"] == pytest.approx(0, abs=1e-5)
    assert kl["second"] == kl["other"] != pytest.approx(0, abs=1e-3)
    assert kl["mean"] == pytest.approx(kl["other"] / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": lambda prompts, responses: [1.0]}, "returned 1 scores for 8 responses"),
        ({"reward": lambda prompts, responses: [float("nan")] * 8}, "returned NaN or infinity"),
        ({"betta": 1}, "train_ppo: betta: unknown key"),
        ({"max_prompt_length": 1}, "no prompts of at most max_prompt_length"),
        ({"prompts": []}, "no prompts of at most max_prompt_length"),
        ({"strategy": MeanKl()}, "takes two checkpoints or more"),
        ({"policy": "nowhere"}, "nowhere: no tokenizer_config.json"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_mistakes_are_named(change, message, llamas):
    arguments = {"policy": llamas[0], "prompts": PROMPTS, "reward": brevity, **SMALL, **change}
    with pytest.raises(UserError, match=message):
        train_ppo(**arguments)
