"""PPO with LoRA, through its command: SFT models, soup and reward model are adapters of one base."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from eval.costs import memory
from eval.costs.sizes import shape_of_checkpoint
from salsa.algorithms import ppo
from salsa.algorithms.learner import MOMENTS
from salsa.alignment import training
from salsa.alignment.align import load_prompts
from salsa.checkpoints.adapters import base_of, read_adapter
from salsa.checkpoints.ensembles import Ensemble
from salsa.checkpoints.loading import load_causal, load_reward, load_tokenizer
from salsa.checkpoints.saving import kept_checkpoints
from salsa.config.algorithms import Ppo
from salsa.config.sections import Lora
from salsa.lora.checkpoint import TRAINED, load_for_training, save_trained
from salsa.lora.layers import parameters_of
from salsa.rollouts import models as models_module
from salsa.rollouts.samplers import TransformersSampler
from salsa.soups.library import average_checkpoints
from salsa.soups.soup import soup
from tests.salsa.alignment.small_run import load_run, settings
from tests.salsa.alignment.test_resume import EMA, EVERY_STEP, STEPS, fault

LORA = {"rank": 2, "alpha": 4}
NAME = "model.layers.0.self_attn.q_proj.weight"
BITS = [None, 4] if find_spec("bitsandbytes") else [None]  # make test-quantised


@pytest.fixture(scope="module")
def adapters(llamas, tmp_path_factory) -> dict[str, Path]:
    """SFT models, their soup and a reward model, as random adapters of the first Llama."""
    folder = tmp_path_factory.mktemp("adapters")

    def make(name: str, start: Path, seed: int, reward: bool = False) -> None:
        auto = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
        torch.manual_seed(seed)
        model = load_for_training(auto, start, Lora(rank=2), "float32", seed)
        with torch.no_grad():
            for parameter in parameters_of(model, TRAINED):
                parameter.copy_(0.1 * torch.randn(parameter.shape))
        if reward:
            model.config.reward_mean, model.config.reward_std = 0.1, 1.5
        (folder / name).mkdir()
        save_trained(model, load_tokenizer(start), folder / name, "float32")

    make("sft-1", llamas[0], 1)
    make("sft-2", llamas[0], 2)
    make("reward", folder / "sft-1", 3, reward=True)
    make("reward-2", folder / "sft-1", 4, reward=True)
    average_checkpoints([folder / "sft-1", folder / "sft-2"], folder / "soup")
    return {name: folder / name for name in ("sft-1", "sft-2", "reward", "reward-2", "soup")}


@pytest.fixture
def align_adapters(align, adapters) -> Callable[..., list[dict]]:
    """align_adapters(name, *references, **settings): `align` with LoRA from SFT 1."""

    def run(name: str, *references: Path, options=(), **keys) -> list[dict]:
        given = ["--sft", adapters["sft-1"], "--reward", adapters["reward"], *options]
        return align(name, *references, init=adapters["sft-1"], options=given, **{"lora": LORA, **keys})

    return run


def test_adapters_on_one_base_are_the_whole_models(align, align_adapters, adapters):
    """Without LoRA each checkpoint is loaded whole. Before the first update all figures are the same."""
    given = ["--sft", adapters["sft-1"], "--reward", adapters["reward"]]
    whole = align("whole", adapters["soup"], init=adapters["sft-1"], options=given, steps=1)
    [row] = align_adapters("lora", adapters["soup"], steps=1)
    same = [key for key in row if not key.startswith(("loss", "grad", "clip", "approx"))]
    assert {"reward", "gold", "kl_ref_k3", "kl_sft_k1", "length", "entropy", "explained_variance"} <= set(same)
    assert {key: row[key] for key in same} == pytest.approx({key: whole[0][key] for key in same}, rel=1e-3, abs=1e-4)
    assert row["kl_ref_k3"] > 0.01 and row["kl_sft_k3"] == 0


def test_adapters_as_combined_rewards_are_the_whole_models(align, adapters, tmp_path):
    """An ensemble scores responses as it does without LoRA. WARM's weights are the mean of the merged models'."""
    models = [adapters["reward"], adapters["reward-2"]]
    ensemble = tmp_path / "ensemble"
    ensemble.mkdir()
    Ensemble(models, "mean", 0.0, 1.0).write(ensemble, ensemble)
    given = ["--sft", adapters["sft-1"], "--reward", ensemble]
    rows = [
        align(name, adapters["soup"], init=adapters["sft-1"], options=given, steps=1, lora=lora)[0]
        for name, lora in (("whole", None), ("lora", LORA))
    ]
    assert rows[0]["reward"] == pytest.approx(rows[1]["reward"], abs=1e-3)
    (tmp_path / "warm").mkdir()
    soup(dict.fromkeys(models, 0.5), tmp_path / "warm", may_differ=("reward_mean", "reward_std"))
    one, two, mean = (load_reward(folder).state_dict() for folder in (*models, tmp_path / "warm"))
    assert all(torch.allclose(mean[name], (one[name] + two[name]) / 2, atol=1e-5) for name in one)
    assert not torch.equal(one["score.weight"], two["score.weight"])


def test_base_and_frozen_adapters_stay_and_the_policy_adds_its_own(align_adapters, adapters, llamas, tmp_path):
    before = {path: path.read_bytes() for folder in [llamas[0], *adapters.values()] for path in folder.glob("*.saf*")}
    align_adapters("policy", adapters["soup"], steps=3)
    assert {path: path.read_bytes() for path in before} == before
    policy, start = read_adapter(tmp_path / "policy"), read_adapter(adapters["sft-1"])
    assert policy.base == base_of(adapters["sft-1"]) == llamas[0].resolve()
    for name, (a, b) in policy.pairs.items():
        assert torch.equal(a[:2], start.pairs[name][0]) and torch.equal(b[:, :2], start.pairs[name][1])
        assert a.shape[0] == 4 and b[:, 2:].abs().max() > 0
    assert json.loads((tmp_path / "policy/run.json").read_text())["settings"]["lora"]["rank"] == 2


def test_saved_policy_is_the_one_that_was_trained(align_adapters, adapters, prompts_file, prepared, tmp_path):
    """The policy of the training alone, in memory, with the weights that vLLM would receive."""
    rows = align_adapters("saved", adapters["soup"])
    config = Ppo.model_validate(settings(prompts_file, lora=LORA))
    models, algorithm = load_run(adapters["sft-1"], adapters["soup"], adapters["reward"], config)
    prompts, _ = load_prompts(config, adapters["sft-1"], 1, prepared)
    sampler = TransformersSampler(models.tokenizer, config)
    alone = training.Training(algorithm, models, sampler, prompts, config, seed=1, rl_seed=1, gold=True)
    assert training.train(alone) == rows
    saved, start = (load_causal(folder).state_dict() for folder in (tmp_path / "saved", adapters["sft-1"]))
    for name, weight in models.policy.weights():
        torch.testing.assert_close(saved[name], weight, atol=1e-5, rtol=1e-5)
    assert (saved[NAME] - start[NAME]).abs().max() > 1e-3


def test_every_reference_strategy_and_models_with_bases_of_their_own(align_adapters, adapters, llamas, tmp_path, align):
    """Mean and moving average of references; then a reference and a reward model that are no adapters of the base."""
    mean = align_adapters("mean", adapters["soup"], adapters["sft-2"], strategy={"mean_kl": {}})
    moving = align_adapters("moving", adapters["soup"], strategy={"ema": {"rate": 1}}, steps=3)
    assert mean[0]["kl_ref_k3"] > 0.01 and moving[0]["kl_ref_k3"] > 0.01
    assert moving[1]["kl_ref_k3"] == pytest.approx(0, abs=1e-6)  # it has become the policy
    rows = align("others", llamas[1], lora=LORA)
    whole = align("whole", llamas[1])
    assert rows[0]["reward"] == pytest.approx(whole[0]["reward"], abs=1e-4)
    assert rows[0]["kl_ref_k3"] == pytest.approx(whole[0]["kl_ref_k3"], rel=1e-3)
    assert base_of(tmp_path / "others") == llamas[0].resolve()


def test_fault_at_any_point_changes_nothing(align_adapters, adapters, tmp_path, monkeypatch):
    """With a moving reference, which has the most state."""

    def files(name: str) -> list[bytes]:
        return [(tmp_path / name / "adapter_model.safetensors").read_bytes(), (tmp_path / f"{name}.jsonl").read_bytes()]

    run = {"strategy": EMA, "steps": STEPS, "checkpoints_at": [1]}
    align_adapters("whole", adapters["soup"], **run)
    faults = ((training, "collect", 2), (ppo.Ppo, "update", 7), (ppo.Ppo, "update", 4 * STEPS))
    for number, (where, name, call) in enumerate(faults):
        with fault(monkeypatch, where, name, call, True):
            align_adapters(str(number), adapters["soup"], options=EVERY_STEP, **run)
        align_adapters(str(number), adapters["soup"], options=EVERY_STEP, **run)
        assert files(str(number)) == files("whole")
    kept = kept_checkpoints(tmp_path / "whole")[1]
    assert base_of(kept) == base_of(tmp_path / "whole")
    assert not torch.equal(load_causal(kept).get_parameter(NAME), load_causal(tmp_path / "whole").get_parameter(NAME))


def test_one_base_is_in_memory_and_its_size_is_the_plans(adapters, llamas, prompts_file):
    """Policy, value model, reference, SFT 1 and reward model: one decoder, and what the plan's formula counts."""
    config = Ppo.model_validate(settings(prompts_file, lora=LORA))
    models, algorithm = load_run(adapters["sft-1"], adapters["soup"], adapters["reward"], config)
    owners = [models.policy.model, algorithm.value.model, models.reward.model.model]
    owners += [models.references[0].model, models.sft.model]
    assert all(owner.base_model is owners[0].base_model for owner in owners)
    shape, one = shape_of_checkpoint(llamas[0]), Lora(**LORA)
    trained = 2 * memory.adapter_parameters(shape, one) + shape.hidden_size
    # SFT 1 and the reward model's two, of rank 2 each, and the soup, of rank 4.
    frozen = memory.adapter_parameters(shape, Lora(rank=2 + 4 + 4)) + shape.hidden_size
    parameters = {id(part): part for owner in owners for part in owner.parameters()}
    assert sum(part.nbytes for part in parameters.values()) == (
        memory.frozen_base(shape, "float32", one) + 4 * (trained + frozen)
    )
    states = [state for learner in algorithm.learners.values() for state in learner.optimiser.state.values()]
    moments = [state[key] for state in states for key in MOMENTS]
    assert sum(moment.nbytes for moment in moments) == (memory.ADAM - 4) * trained


@pytest.mark.parametrize("bits", BITS)
def test_rollout_weights_are_the_merged_ones_in_the_order_of_a_whole_model(
    make_checkpoint, prompts_file, tmp_path, bits
):
    """What vLLM and a moving reference receive. A base in 4 bits gives what those bits mean."""
    base = make_checkpoint(tmp_path / "base", hidden_size=64, scale=6)
    reward = make_checkpoint(tmp_path / "reward", hidden_size=64, reward=True)
    config = Ppo.model_validate(settings(prompts_file, lora={**LORA, "bits": bits}))
    models, _ = load_run(base, base, reward, config)
    with torch.no_grad():
        for parameter in models.policy.trainable():
            parameter.copy_(0.1 * torch.randn(parameter.shape))
    whole, ids = load_causal(base), torch.arange(3, 23)[None]
    weights = list(models.policy.weights())
    assert [name for name, _ in weights] == [name for name, _ in whole.named_parameters()]
    for (name, weight), parameter in zip(weights, whole.parameters(), strict=True):
        assert weight.shape == parameter.shape, name
    whole.load_state_dict(dict(weights), strict=False)
    with models.policy.complete("float32") as policy, torch.no_grad():
        torch.testing.assert_close(policy(ids).logits, whole(ids).logits, atol=1e-3, rtol=1e-3)
        away = (whole(ids).logits - load_causal(base)(ids).logits).abs().max()
    assert away > 0.1


def test_checkpointing_changes_only_rounding_and_in_bfloat16_the_policy_begins_as_its_reference(
    align_adapters, adapters
):
    plain = align_adapters("plain", adapters["soup"])
    checkpointed = align_adapters("checkpointed", adapters["soup"], gradient_checkpointing=True)
    for row, other in zip(plain, checkpointed, strict=True):
        assert row == pytest.approx(other, rel=1e-3, abs=1e-4)
    narrow = align_adapters("narrow", adapters["sft-1"], dtype="bfloat16")
    assert narrow[0]["kl_ref_k1"] == 0  # the policy begins as its reference, to the bit


def test_sharding_is_refused_in_one_line(align_adapters, adapters, monkeypatch, capsys):
    monkeypatch.setattr(models_module.processes, "use_fsdp2", lambda: True)
    align_adapters("no", adapters["soup"], status=1)
    assert "ppo.lora: FSDP2 and DeepSpeed shard weights that train" in capsys.readouterr().err


def test_adapter_files_of_the_run_are_peft_files(align_adapters, adapters, tmp_path):
    align_adapters("policy", adapters["soup"], steps=1)
    names = load_file(tmp_path / "policy/adapter_model.safetensors").keys()
    assert all(name.startswith("base_model.model.model.layers.") for name in names)
