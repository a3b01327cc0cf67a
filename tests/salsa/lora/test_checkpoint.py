"""LoRA checkpoints: read by peft itself, averaged, merged, moved, and refused."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from salsa.checkpoints.adapters import WEIGHTS, copy_checkpoint, merged_tensors, read_adapter
from salsa.checkpoints.loading import load_causal, load_reward
from salsa.runtime.errors import UserError
from salsa.soups.library import average_checkpoints
from salsa.soups.soup import soup

IDS = torch.arange(3, 43).reshape(2, 20)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def merge(command, checkpoint, out, *options):
    assert command("salsa", "merge", "--checkpoint", checkpoint, "--out", out, *options)[0] == 0
    return out


@pytest.mark.parametrize("reward", [False, True])
def test_peft_computes_the_same(base, make_adapter, reward):
    """peft's own loader, which adds B A x in each layer, against our merged weights."""
    first = make_adapter("first", 1, targets=["q_proj", "down_proj"])
    folder = make_adapter("second", 2, first, reward)  # its layers differ in rank
    assert {len(a) for a, _ in read_adapter(folder).pairs.values()} == {3, 6}
    auto, load = (AutoModelForSequenceClassification, load_reward) if reward else (AutoModelForCausalLM, load_causal)
    model = auto.from_pretrained(base, **({"num_labels": 1} if reward else {}))
    theirs = logits(PeftModel.from_pretrained(model, folder).eval())
    torch.testing.assert_close(logits(load(folder)), theirs, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(theirs, logits(load(base) if not reward else load(first)), atol=1e-2)


def test_soup_of_adapters_is_the_average_of_the_weights(base, make_adapter, command, tmp_path):
    parts = {make_adapter("one", 1): 0.5, make_adapter("two", 2, rank=2): 0.7, base: -0.2}
    ordinary = [merge(command, folder, tmp_path / f"merged-{folder.name}") for folder in list(parts)[:2]] + [base]
    expected = average_checkpoints(dict(zip(ordinary, parts.values(), strict=True)), tmp_path / "expected")
    found = average_checkpoints(parts, tmp_path / "found")
    assert read_adapter(found).base == base.resolve()
    assert json.loads((found / "run.json").read_text())["rank"] == 5
    tensors = load_file(expected / "model.safetensors")
    assert dict(merged_tensors(found)).keys() == tensors.keys()
    for name, tensor in merged_tensors(found):
        torch.testing.assert_close(tensor, tensors[name], atol=1e-5, rtol=1e-5)


def test_merged_checkpoint_is_an_ordinary_one(base, make_adapter, command, tmp_path):
    folder = make_adapter("one", 1)
    merged = merge(command, folder, tmp_path / "merged")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(merged)), logits(load_causal(folder)))
    half = merge(command, folder, tmp_path / "half", "--dtype", "bfloat16")
    for name, tensor in load_file(half / "model.safetensors").items():
        assert torch.equal(tensor, load_file(merged / "model.safetensors")[name].bfloat16())  # rounded once
    assert json.loads((half / "config.json").read_text())["dtype"] == "bfloat16"
    status, said = command("salsa", "merge", "--checkpoint", base, "--out", tmp_path / "no")
    assert status == 1 and "not a LoRA checkpoint" in said


def test_sharded_base_is_merged_shard_by_shard(base, make_adapter, command, tmp_path):
    folder = make_adapter("one", 1)
    expected = load_file(merge(command, folder, tmp_path / "merged") / "model.safetensors")
    load_causal(base).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    (base / "model.safetensors").unlink()
    for file in (tmp_path / "shards").glob("model*"):
        shutil.copy(file, base)
    again = merge(command, folder, tmp_path / "again")
    assert len(list(again.glob("*.safetensors"))) > 1
    found = AutoModelForCausalLM.from_pretrained(again).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_base_and_adapter_can_be_moved_together(make_adapter, tmp_path):
    folder = make_adapter("one", 1)
    expected = logits(load_causal(folder))
    (tmp_path / "policies").mkdir()
    copy_checkpoint(folder, tmp_path / "policies/kept")
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    for found in (moved / "one", moved / "policies/kept"):
        assert torch.equal(logits(load_causal(found)), expected)
    shutil.rmtree(moved / "base")
    with pytest.raises(UserError, match="its base .* is not there"):
        load_causal(moved / "one")


def test_random_direction_from_an_adapter_has_the_length_of_the_change(make_adapter, command, tmp_path):
    of, like = make_adapter("one", 1), make_adapter("two", 2)
    arguments = ("--of", of, "--like", like, "--seed", 1, "--out", tmp_path / "out")
    assert command("salsa", "perturb", *arguments)[0] == 0
    start, end, found = (load_causal(folder).state_dict() for folder in (of, like, tmp_path / "out"))
    name = "model.layers.0.mlp.up_proj.weight"
    assert (found[name] - start[name]).norm().item() == pytest.approx((end[name] - start[name]).norm().item(), rel=1e-4)


def test_adapters_that_do_not_fit_are_one_clear_line(base, make_checkpoint, make_adapter, tmp_path):
    one, reward = make_adapter("one", 1), make_adapter("reward", 2, reward=True)
    other_base = make_checkpoint(tmp_path / "other", seed=5)
    other = make_adapter("on-other", 3, other_base)
    (tmp_path / "out").mkdir()
    for pair, said in (((one, other), "its base is"), ((one, reward), "its head differs")):
        with pytest.raises(UserError, match=said):
            soup(dict.fromkeys(pair, 0.5), tmp_path / "out")
    with pytest.raises(UserError, match="sum to"):
        soup({one: 0.5, base: 0.6}, tmp_path / "out", allow_any_sum=True)
    config = json.loads((one / "adapter_config.json").read_text())
    for change, said in (({"peft_type": "IA3"}, "of type IA3"), ({"use_dora": True}, "use_dora is set")):
        (one / "adapter_config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UserError, match=said):
            load_causal(one)
    (one / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(one / WEIGHTS)
    name = next(iter(tensors))
    for changed, said in ((tensors[name] * float("nan"), "NaN"), (tensors[name][:, :5], "in this shape")):
        save_file({**tensors, name: changed.contiguous()}, one / WEIGHTS)
        with pytest.raises(UserError, match=said):
            load_causal(one)
