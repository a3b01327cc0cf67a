"""RLOO and GRPO as runs: the same prompts and random numbers as PPO, several responses to each prompt, resuming."""

import json

import pytest

from salsa.algorithms.grpo import Grpo
from salsa.algorithms.rloo import Rloo
from salsa.alignment import training
from salsa.alignment.align import load_prompts
from salsa.config.algorithms import Ppo
from salsa.config.algorithms import Rloo as RlooRun
from salsa.rollouts.samplers import TransformersSampler
from tests.salsa.alignment.small_run import GROUPED, load_run, settings, weights
from tests.salsa.alignment.test_resume import EMA, EVERY_STEP, STEPS, fault, the_same


@pytest.mark.parametrize(("algorithm", "cls"), [("rloo", Rloo), ("grpo", Grpo)])
def test_fault_at_any_point_changes_nothing(align, llamas, tmp_path, monkeypatch, algorithm, cls):
    """With a moving reference, LoRA for one of them, and metrics without those of a value model."""
    run = {"strategy": EMA, "steps": STEPS, **GROUPED}
    options = ("--algorithm", algorithm)
    rows = align("whole", llamas[1], options=options, **run)
    assert {"advantage_std", "loss_policy"} < rows[0].keys()
    assert not any("value" in name or "variance" in name for name in rows[0])
    for number, (where, name, call) in enumerate(((training, "collect", 2), (cls, "update", 7))):
        with fault(monkeypatch, where, name, call, True):
            align(str(number), llamas[1], options=(*options, *EVERY_STEP), **run)
        align(str(number), llamas[1], options=(*options, *EVERY_STEP), **run)
        assert the_same(tmp_path, str(number), "whole")
    recorded = json.loads((tmp_path / "whole/run.json").read_text())["settings"]
    assert recorded["algorithm"] == algorithm and recorded["responses_per_prompt"] == 4
    assert weights(tmp_path / "whole") != weights(llamas[0])


def test_lora_trains_an_adapter_of_the_policy_alone(align, llamas, tmp_path):
    align("lora", llamas[1], options=("--algorithm", "grpo"), lora={"rank": 2}, **GROUPED)
    assert (tmp_path / "lora/adapter_model.safetensors").exists()


def first_experience(config, llamas, reward_model, cache, monkeypatch):
    """The experience of a run's first step."""
    models, algorithm = load_run(llamas[0], llamas[1], reward_model, config)
    prompts, _ = load_prompts(config, llamas[0], 1, cache)
    sampler = TransformersSampler(models.tokenizer, config)
    run = training.Training(algorithm, models, sampler, prompts, config, seed=1, rl_seed=1, gold=False)
    collected, plain = [], training.collect

    def keep(*arguments):
        collected.append(plain(*arguments))
        return collected[-1]

    with monkeypatch.context() as patched:
        patched.setattr(training, "collect", keep)
        run.step(0)
    return collected[0]


def test_group_has_one_prompt_and_different_responses(llamas, reward_model, prompts_file, prepared, monkeypatch):
    """Prompts come in PPO's order, and each response has random numbers of its own."""
    ppo, rloo = (
        first_experience(config, llamas, reward_model, prepared, monkeypatch)
        for config in (Ppo(**settings(prompts_file)), RlooRun(**settings(prompts_file, **GROUPED)))
    )
    prompts = [prompt.ids for prompt in rloo.prompts]
    assert prompts[::4] == [prompt.ids for prompt in ppo.prompts[:2]]
    assert prompts == [ids for ids in prompts[::4] for _ in range(4)]
    assert len({tuple(answer.token_ids) for answer in rloo.answers}) == 8


def test_impossible_groups_are_one_line(align, llamas, capsys):
    cases = {
        "is not a multiple of responses_per_prompt 3": ("rloo", {"responses_per_prompt": 3}),
        "leaves no others for the baseline: raise it, or set baseline: batch": ("rloo", {"responses_per_prompt": 1}),
        "leaves nothing to compare with": ("grpo", {"responses_per_prompt": 1}),
    }
    for number, (said, (algorithm, keys)) in enumerate(cases.items()):
        align(str(number), llamas[1], options=("--algorithm", algorithm), status=1, **{**GROUPED, **keys})
        assert said in capsys.readouterr().err
