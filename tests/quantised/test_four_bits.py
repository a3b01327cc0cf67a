"""LoRA over a base in 4 bits, which needs bitsandbytes: make test-quantised."""

import json

import pytest
import torch
from peft.utils.integrations import dequantize_module_weight
from transformers import AutoModelForCausalLM

from salsa.checkpoints.adapters import read_adapter
from salsa.checkpoints.loading import load_causal
from salsa.config.sections import Lora
from salsa.lora.checkpoint import TRAINED, load_for_training
from salsa.lora.layers import lora_layers, parameters_of
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from tests.salsa.alignment.small_run import settings

IDS = torch.arange(3, 43).reshape(2, 20)
LORA = {"rank": 2, "alpha": 8, "bits": 4}


@pytest.fixture
def base(make_checkpoint, tmp_path):
    return make_checkpoint(tmp_path / "wide", hidden_size=64, scale=6)


def test_base_is_near_the_stored_one_and_small(base):
    """The base's weights are near the stored ones and take half a byte each; NF4 loses 9 % of normal numbers' norm."""
    model = load_for_training(AutoModelForCausalLM, base, Lora(rank=2, bits=4), "float32", 1)
    stored = load_causal(base).state_dict()
    for name, layer in lora_layers(model).items():
        weight = layer.get_base_layer().weight
        assert weight.nbytes == stored[f"{name}.weight"].numel() / 2
        near = dequantize_module_weight(layer.get_base_layer())
        error = (near.float() - stored[f"{name}.weight"]).norm()
        assert 0.08 < error / stored[f"{name}.weight"].norm() < 0.11
    model(IDS, labels=IDS).loss.backward()
    assert {parameter.dtype for parameter in parameters_of(model, TRAINED)} == {torch.float32}
    assert all(parameter.grad is not None for parameter in parameters_of(model, TRAINED))


def test_stages_train_over_4_bits(base, command, prompts_file, make_checkpoint, tmp_path):
    """SFT, then PPO from it: the adapters are float32 and learn; the reference begins where the policy does."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Name {i}"},
                {"role": "assistant", "content": "The grass is green."},
            ]
        }
        for i in range(16)
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    source = {"path": str(tmp_path / "rows.jsonl")}
    given = {"train": source, "test": source, "learning_rate": 1e-2, "batch_size": 4, "max_length": 64, "epochs": 4}
    given |= {"lora": LORA, "schedule": "constant"}
    out = ["--seed", 1, "--out", tmp_path / "sft"]
    assert command("salsa", "sft", "--base", base, "--settings", json.dumps(given), "--sft-seed", 1, *out)[0] == 0
    adapter = read_adapter(tmp_path / "sft")
    assert all(b.abs().max() > 0 for _, b in adapter.pairs.values())
    assert not any(torch.equal(b, b.bfloat16().float()) for _, b in adapter.pairs.values()), "trained in bfloat16"
    reward = make_checkpoint(tmp_path / "reward", hidden_size=64, reward=True)
    models = [
        "--init",
        tmp_path / "sft",
        "--reference",
        tmp_path / "sft",
        "--sft",
        tmp_path / "sft",
        "--reward",
        reward,
    ]
    text = json.dumps(settings(prompts_file, lora=LORA))
    arguments = [*models, "--settings", text, "--seed", 1, "--out", tmp_path / "policy"]
    assert command("salsa", "align", *arguments)[0] == 0
    rows = read_jsonl(tmp_path / "policy.jsonl")
    assert rows[0]["kl_ref_k1"] == 0 and rows[1]["kl_ref_k3"] > 0
    load_causal(tmp_path / "policy")
