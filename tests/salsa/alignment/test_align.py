"""PPO as a whole, through the real command, on tiny checkpoints."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from salsa.algorithms.learner import Learner
from salsa.alignment.training import Training, make_algorithm, train
from salsa.checkpoints.ensembles import Ensemble
from salsa.checkpoints.loading import load_causal, load_reward, load_tokenizer, render
from salsa.config import references
from salsa.config.algorithms import Ppo
from salsa.config.fields import Count
from salsa.models.frozen import FrozenOnDevice
from salsa.models.responses import Sequences, log_probs
from salsa.models.sampling import sample
from salsa.models.scoring import normalisation, rewards
from salsa.models.trained import Trained
from salsa.rollouts import samplers
from salsa.rollouts.experience import collect, prompt_batches
from salsa.rollouts.models import Models
from salsa.rollouts.rewards import Prompt, RewardModel
from salsa.rollouts.samplers import TransformersSampler
from salsa.runtime.command import main
from salsa.runtime.errors import UserError
from salsa.soups.soup import soup
from tests.salsa.alignment.small_run import COMMANDS, load_run, settings, weights


def test_soup_of_sft_1_alone_is_ppo_bit_for_bit(align, llamas, tmp_path):
    """Equal seeds give equal bytes; another reference does not, nor does another run's name (model and replicate)."""
    (tmp_path / "one").mkdir()
    soup({llamas[0]: 1.0, llamas[1]: 0.0}, tmp_path / "one")
    (tmp_path / "half").mkdir()
    soup(dict.fromkeys(llamas, 0.5), tmp_path / "half")
    align("ppo", llamas[0])
    align("again", llamas[0])
    align("soup_of_one", tmp_path / "one")
    align("salsa", tmp_path / "half")
    metrics = {name: (tmp_path / f"{name}.jsonl").read_bytes() for name in ("ppo", "again", "soup_of_one", "salsa")}
    assert metrics["ppo"] == metrics["again"] == metrics["soup_of_one"] != metrics["salsa"]
    assert weights(tmp_path / "ppo") == weights(tmp_path / "again") == weights(tmp_path / "soup_of_one")
    assert weights(tmp_path / "ppo") != weights(tmp_path / "salsa")
    assert weights(tmp_path / "ppo") != weights(llamas[0])
    align("other", llamas[0], options=("--run", "llama-mini-r2"))
    assert (tmp_path / "other.jsonl").read_bytes() != metrics["ppo"]


def test_order_of_a_soups_ingredients_does_not_matter(align, llamas, tmp_path):
    """alpha on SFT 1 and 1 - alpha on SFT 2, or swapped: the same reference."""
    for name, weights_of in (("there", [0.3, 0.7]), ("back", [0.7, 0.3])):
        (tmp_path / f"soup_{name}").mkdir()
        models = llamas if name == "there" else llamas[::-1]
        soup(dict(zip(models, weights_of, strict=True)), tmp_path / f"soup_{name}")
        align(name, tmp_path / f"soup_{name}")
    assert weights(tmp_path / "soup_there") == weights(tmp_path / "soup_back")
    assert weights(tmp_path / "there") == weights(tmp_path / "back")


def test_place_of_frozen_models_changes_nothing(align, llamas, capsys, tmp_path):
    kept = align("kept", llamas[1])
    for place in ("host", "disk"):
        assert align(place, llamas[1], frozen_models=place) == kept
        assert weights(tmp_path / place) == weights(tmp_path / "kept")
    align("shards", llamas[1], frozen_models="shards", status=1)
    assert "ppo.frozen_models: shards: these processes do not shard models: launch" in capsys.readouterr().err


@pytest.mark.parametrize("combine", ["mean", "min"])
def test_ensemble_of_copies_is_one_reward_model_bit_for_bit(align, llamas, reward_model, tmp_path, combine):
    """Scores, and the value model, which starts from the first copy."""
    copies = [shutil.copytree(reward_model, tmp_path / f"rm.{number}") for number in (1, 2)]
    ensemble = tmp_path / "ensemble"
    ensemble.mkdir()
    Ensemble(copies, combine, 0.0, 1.0).write(ensemble, ensemble)
    rows = align("one", llamas[1])
    assert align("copies", llamas[1], options=("--reward", ensemble)) == rows
    assert weights(tmp_path / "copies") == weights(tmp_path / "one")
    Ensemble(copies, combine, 0.5, 2.0).write(ensemble, ensemble)
    [first, *_] = align("scaled", llamas[1], options=("--reward", ensemble))
    assert first["reward"] == pytest.approx((rows[0]["reward"] - 0.5) / 2, abs=1e-5)


def test_minimum_of_two_reward_models_is_at_most_either(align, llamas, reward_model, make_checkpoint, tmp_path):
    models = [reward_model, make_checkpoint(tmp_path / "other", seed=4, reward=True, scale=6)]
    ensemble = tmp_path / "ensemble"
    ensemble.mkdir()
    found = {}
    for combine in ("mean", "min"):
        Ensemble(models, combine, 0.0, 1.0).write(ensemble, ensemble)
        found[combine] = align(combine, llamas[1], options=("--reward", ensemble))[0]["reward"]
    alone = [align(str(n), llamas[1], options=("--reward", model))[0]["reward"] for n, model in enumerate(models)]
    assert found["mean"] == pytest.approx(sum(alone) / 2, abs=1e-5)
    assert found["min"] < min(alone)


def test_length_costs_what_the_setting_says(align, llamas):
    free, penalised = (align(str(rate), llamas[1], length_penalty=rate)[0] for rate in (0.0, 0.25))
    assert penalised["reward"] == free["reward"], "the score itself is logged"
    assert penalised["objective"] == pytest.approx(free["objective"] - 0.25 * free["length"], abs=1e-4)


def test_strategy_without_effect_is_ppo_bit_for_bit(align, llamas, tmp_path):
    align("ppo", llamas[0])
    align("mean", llamas[0], llamas[0], strategy={"mean_kl": {}})
    align("ema", llamas[0], strategy={"ema": {"rate": 0}})
    align("two", *llamas, strategy={"mean_kl": {}})
    assert weights(tmp_path / "ppo") == weights(tmp_path / "mean") == weights(tmp_path / "ema")
    assert weights(tmp_path / "ppo") != weights(tmp_path / "two")


def test_moving_average_of_rate_1_is_the_policy(align, llamas):
    kl = [row["kl_ref_k3"] for row in align("ema", llamas[1], strategy={"ema": {"rate": 1}}, steps=3)]
    assert kl[0] > 0.01, "the initial model differs from the reference"
    assert kl[1:] == [0, 0]


def test_strategy_of_the_docs_works(align, llamas):
    """Every 8 optimiser steps, that is two rollouts, the reference becomes the policy."""
    page = (Path(__file__).parents[3] / "docs/howto-method.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, vars(references) | {"Count": Count})
    kl = [
        row["kl_ref_k3"] for row in align("docs", llamas[1], strategy={"periodic": {"every": 8, "share": 1}}, steps=3)
    ]
    assert kl[0] > 0.01 and kl[1] > 0.01 and kl[2] == 0


def test_kl_at_step_0_is_between_initial_model_and_reference(align, llamas, tmp_path):
    (tmp_path / "half").mkdir()
    soup(dict.fromkeys(llamas, 0.5), tmp_path / "half")
    ppo, salsa = align("ppo", llamas[0])[0], align("salsa", tmp_path / "half")[0]
    assert ppo["kl_ref_k1"] == ppo["kl_ref_k3"] == ppo["kl_sft_k1"] == 0
    assert salsa["kl_ref_k3"] > 0.01
    assert salsa["kl_sft_k3"] == 0
    assert salsa["reward"] == ppo["reward"], "the first responses do not depend on the reference"


def test_output_is_an_ordinary_checkpoint(align, llamas, tmp_path):
    rows = align("ppo", llamas[0])
    assert load_causal(tmp_path / "ppo").config.vocab_size == load_causal(llamas[0]).config.vocab_size
    assert load_tokenizer(tmp_path / "ppo").get_vocab() == load_tokenizer(llamas[0]).get_vocab()
    assert [row["step"] for row in rows] == [0, 1]
    assert all(isinstance(value, int | float) for row in rows for value in row.values()), "every metric is a number"
    assert rows[1]["learning_rate"] == pytest.approx(5e-4)
    assert json.loads((tmp_path / "ppo/run.json").read_text())["seeds"] == {"seed": 1, "rl_seed": 1, "run": ""}


def test_micro_batches_change_only_rounding(align, llamas, tmp_path):
    whole, parts = align("whole", llamas[0]), align("parts", llamas[0], micro_batch_size=3)
    by_tokens = align("tokens", llamas[0], micro_batch_tokens=50)
    for a, *others in zip(whole, parts, by_tokens, strict=True):
        for b in others:
            assert a.keys() == b.keys()
            assert all(a[key] == pytest.approx(b[key], rel=1e-3, abs=1e-4) for key in a), "mean over the batch's tokens"
    assert parts != whole != by_tokens, "the sums are rounded otherwise"


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma"])
def test_sampler_and_trainer_agree(architecture, make_checkpoint, tmp_path):
    """Greedy answers, sampled left-padded with a cache, are the most probable tokens of right-padded passes."""
    keys = {"sliding_window": 8} if architecture == "mistral" else {}
    folder = make_checkpoint(tmp_path / "m", architecture, seed=5, scale=4, **keys)
    model, tokenizer = load_causal(folder), load_tokenizer(folder)
    texts = ["hi", "What is three plus four? " * 3, "Name the colour of grass."]
    prompts = [render(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True) for text in texts]
    answers = sample(model, prompts, [0.0] * 3, 16, [1, 2, 3], [tokenizer.eos_token_id], tokenizer.pad_token_id)
    responses = [answer.token_ids for answer in answers]
    with torch.no_grad():
        sequences = Sequences.build(prompts, responses)
        together = log_probs(model, sequences, 1.0).split([len(response) for response in responses])
        for prompt, response, found in zip(prompts, responses, together, strict=True):
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
            assert logits.argmax(-1).tolist() == response
            alone = logits.log_softmax(-1)[range(len(response)), response]
            assert torch.allclose(found, alone, atol=1e-4)


def likes_even(model, sequences, batches, mean, std) -> list[float]:
    """Replaces the reward model: up to 4, by the share of even numbers among the last eight tokens."""
    return [4.0 * sum(token % 2 == 0 for token in row[-8:]) / 8 for row in sequences]


def learn(llamas, reward_model, prompts_file, monkeypatch, beta: float) -> list[dict]:
    keys = {
        "steps": 30,
        "value_learning_rate": 1e-2,
        "rollout_batch_size": 64,
        "train_batch_size": 32,
        "epochs": 2,
        "beta": beta,
        "max_new_tokens": 8,
    }
    config = Ppo.model_validate(settings(prompts_file, learning_rate=3e-3, missing_eos_penalty=0.0, **keys))
    tokenizer = load_tokenizer(llamas[0])
    monkeypatch.setattr("salsa.rollouts.rewards.rewards", likes_even)
    models = Models(
        tokenizer=tokenizer,
        policy=Trained(load_causal(llamas[0])),
        references=[sft := FrozenOnDevice(load_causal(llamas[0]))],
        sft=sft,
        reward=RewardModel(FrozenOnDevice(load_reward(reward_model)), *normalisation(reward_model)),
        normalisation=normalisation(reward_model),
    )
    messages = [{"role": "user", "content": "hi"}]
    prompts = [Prompt(messages, render(tokenizer, messages, add_generation_prompt=True))] * 4
    algorithm = make_algorithm(models, config, lambda: Trained(load_reward(reward_model)))
    sampler = TransformersSampler(tokenizer, config)
    return train(Training(algorithm, models, sampler, prompts, config, seed=1, rl_seed=1, gold=False))


def test_policy_learns_the_reward_and_beta_holds_it_back(llamas, reward_model, prompts_file, monkeypatch):
    free = learn(llamas, reward_model, prompts_file, monkeypatch, beta=0.0)
    held = learn(llamas, reward_model, prompts_file, monkeypatch, beta=1.0)
    assert free[-1]["reward"] > free[0]["reward"] + 1.2
    assert held[-1]["kl_ref_k3"] < 0.5 * free[-1]["kl_ref_k3"]
    assert free[-1]["explained_variance"] > free[0]["explained_variance"]


def test_missing_eos_is_penalised_only_in_the_objective(llamas, reward_model, prompts_file):
    config = Ppo.model_validate(settings(prompts_file, missing_eos_penalty=3.0, max_new_tokens=2))
    models, _ = load_run(llamas[0], llamas[0], reward_model, config)
    messages = [{"role": "user", "content": "hi"}]
    prompt = Prompt(messages, render(models.tokenizer, messages, add_generation_prompt=True))
    found = collect(models, TransformersSampler(models.tokenizer, config), [prompt] * 8, config, list(range(8)))
    ended = torch.tensor([answer.ended for answer in found.answers])
    assert not ended.all()
    assert torch.equal(found.penalised, found.scores - 3.0 * ~ended)


@pytest.fixture
def models(llamas, reward_model, prompts_file):
    config = Ppo.model_validate(settings(prompts_file, micro_batch_size=3, temperature=0.7))
    return *load_run(llamas[0], llamas[0], reward_model, config), config


def rollout_of(models: Models, config: Ppo):
    messages = [[{"role": "user", "content": text}] for text in ("hi", "Name the colour of grass.") * 4]
    prompts = [Prompt(m, render(models.tokenizer, m, add_generation_prompt=True)) for m in messages]
    return collect(models, TransformersSampler(models.tokenizer, config), prompts, config, list(range(8)))


def test_one_temperature_divides_all_logits(models):
    """The sampler's, the policy's and the reference's: otherwise the KL of equal models would not be 0."""
    loaded, _, config = models
    found = rollout_of(loaded, config)
    assert torch.equal(found.log_probs, found.reference)
    assert torch.allclose(found.sampled, found.log_probs, atol=1e-4)
    hot = rollout_of(loaded, config.model_copy(update={"temperature": 1.5}))
    assert not torch.allclose(hot.log_probs[:, 0], found.log_probs[:, 0], atol=1e-2)


def test_sampling_in_parts_changes_nothing(models):
    loaded, _, config = models
    parts = rollout_of(loaded, config.model_copy(update={"sampling_batch_size": 3}))
    whole = rollout_of(loaded, config)
    assert parts.answers == whole.answers
    assert torch.allclose(parts.sampled, whole.sampled, atol=1e-5)


@torch.no_grad()
def test_advantages_are_whitened_over_the_whole_rollout(models):
    loaded, algorithm, config = models
    found = rollout_of(loaded, config)
    advantages = algorithm.targets(found)[0].advantages
    assert advantages[found.mask].mean().item() == pytest.approx(0, abs=1e-5)
    assert advantages[found.mask].std().item() == pytest.approx(1, abs=1e-4)
    assert not advantages[~found.mask].any()


@torch.no_grad()
def test_value_model_starts_as_a_copy_of_the_reward_model(models):
    """The value before the last token is the normalised reward of the text so far."""
    loaded, algorithm, config = models
    found = rollout_of(loaded, config)
    values = algorithm.targets(found)[0].values
    for row, (prompt, answer) in enumerate(zip(found.prompts, found.answers, strict=True)):
        so_far = [prompt.ids + answer.token_ids[:-1]]
        [expected] = rewards(loaded.reward.model.model, so_far, [[0]], *loaded.normalisation)
        assert values[row, len(answer.token_ids) - 1].item() == pytest.approx(expected, abs=1e-4)
    everything = [
        parameter.data_ptr()
        for model in (loaded.policy.model, algorithm.value.model, loaded.reward.model.model)
        for parameter in model.parameters()
    ]
    assert len(everything) == len(set(everything))


def test_dropout_is_off(models, make_checkpoint, reward_model, llamas, prompts_file, tmp_path):
    loaded, algorithm, _ = models
    used = (loaded.policy.model, algorithm.value.model, loaded.sft.model, loaded.reward.model.model)
    assert not any(model.training for model in used)
    folder = shutil.copytree(llamas[0], tmp_path / "dropping")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.1}))
    checkpointing = Ppo.model_validate(settings(prompts_file, gradient_checkpointing=True))
    with pytest.raises(UserError, match="attention_dropout is not 0"):
        load_run(folder, llamas[0], reward_model, checkpointing)


def test_gradient_checkpointing_changes_nothing(align, llamas):
    """Including samples: in training mode transformers would drop the cache and sample each token from the last one."""
    plain, checkpointed = (
        align(str(given), llamas[1], gradient_checkpointing=given, micro_batch_size=2) for given in (False, True)
    )
    for row, expected in zip(checkpointed, plain, strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_sampling_uses_evaluation_mode_and_restores_the_mode(llamas):
    model = load_causal(llamas[0]).train()
    with Trained(model).complete("float32") as whole:
        assert whole is model and not model.training
    assert model.training


def test_responses_of_another_model_end_the_run(align, llamas, monkeypatch, capsys):
    other = load_causal(llamas[1])
    right = samplers.sample
    monkeypatch.setattr(samplers, "sample", lambda model, *rest: right(other, *rest))
    align("other", llamas[1], status=1)
    assert "error: ppo: step 0: the sampler's log-probabilities differ " in capsys.readouterr().err


def test_step_is_adam_on_the_clipped_gradient_at_the_scheduled_rate(prompts_file):
    # Two rollouts of one update.
    config = Ppo.model_validate(settings(prompts_file, max_grad_norm=0.5, epochs=1, train_batch_size=8))
    ours, theirs = torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(2, 1, bias=False)
    theirs.load_state_dict(ours.state_dict())
    learner = Learner(Trained(ours), 0.1, config)
    adam = torch.optim.Adam(theirs.parameters(), lr=0.1, betas=(0.9, 0.95), eps=1e-5)
    for rate in (0.1, 0.05):
        assert learner.rate() == pytest.approx(rate)
        adam.param_groups[0]["lr"] = rate
        ours.weight.grad = torch.tensor([[3.0, 4.0]])
        theirs.weight.grad = torch.tensor([[0.3, 0.4]])
        assert learner.clip() == pytest.approx(5)
        learner.step()
        adam.step()
        assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)
    assert learner.rate() == 0


def test_every_prompt_comes_once_per_pass():
    prompts = [Prompt([], [i]) for i in range(10)]
    batches = prompt_batches(prompts, 4, torch.Generator().manual_seed(1))
    seen = [prompt.ids[0] for _ in range(5) for prompt in next(batches)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_bad_input_is_one_line(align, llamas, reward_model, prompts_file, tmp_path, capsys):
    other = shutil.copytree(llamas[1], tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {f"{key}x": value for key, value in tokenizer["model"]["vocab"].items()}
    tokenizer["model"]["merges"] = []
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = Ppo.model_validate(settings(prompts_file))
    with pytest.raises(UserError, match="--reference .*other: its vocabulary differs"):
        load_run(llamas[0], other, reward_model, config)
    with pytest.raises(AssertionError):
        align("short", llamas[0], max_prompt_length=1)
    assert "(too_long 24; limit 1 tokens): use other data or raise the limit" in capsys.readouterr().err
    with pytest.raises(AssertionError):
        align("odd", llamas[0], train_batch_size=3)
    assert "rollout_batch_size 8 is not a multiple of train_batch_size 3" in capsys.readouterr().err
    assert not (tmp_path / "short").exists()


def test_arguments_from_a_config(command, tmp_path):
    """Missing or unknown names are one line. tests/workflow runs it as the workflow does."""
    config = str(Path(__file__).parents[3] / "config/mini.yaml")
    out = ["--out", tmp_path / "x"]
    assert command("salsa", "align", *out) == (
        1,
        "error: --init, --reference, --sft, --reward, --settings, --seed missing: give them, or --config\n",
    )
    assert command("salsa", "align", "--config", config, "--method", "sft", *out) == (
        1,
        "error: --method sft: the config has ppo, salsa: name one of these\n",
    )
    status, said = command("salsa", "align", "--config", tmp_path / "none.yaml", *out)
    assert status == 1 and said.startswith(f"error: {tmp_path / 'none.yaml'}: cannot read it")


def test_help_explains_every_setting(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["salsa", "align", "--help"])
    with pytest.raises(SystemExit):
        main("salsa", COMMANDS)
    said = capsys.readouterr().out
    for name, field in Ppo.model_fields.items():
        assert f"  {name} (" in said
        assert field.description, name
