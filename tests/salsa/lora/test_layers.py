"""LoRA's layers: known answers, gradients, several adapters side by side."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from salsa.checkpoints.loading import load_causal
from salsa.config.sections import Lora
from salsa.lora.checkpoint import START, TRAINED, load_for_training
from salsa.lora.layers import activate, active_pairs, insert_new, lora_layers, parameters_of
from salsa.lora.shared import SharedBase
from salsa.runtime.errors import UserError

IDS = torch.arange(3, 43).reshape(2, 20)
WIDTH, ROWS = 6, 64


class OneLayer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.base_model = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH, bias=False))

    def forward(self, x):
        return self.base_model(x)


def least_loss(model: torch.nn.Module, parameters, x: torch.Tensor, y: torch.Tensor) -> float:
    """The mean squared error after training to the end."""
    optimiser = torch.optim.LBFGS(list(parameters), max_iter=3000, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    return closure().item()


def test_at_full_rank_lora_reaches_what_full_training_reaches():
    """Linear regression with noise has one least loss, which neither can go below."""
    torch.manual_seed(1)
    x = torch.randn(ROWS, WIDTH)
    y = x @ torch.randn(WIDTH, WIDTH) + 0.5 * torch.randn(ROWS, WIDTH)
    full = OneLayer()
    best = least_loss(full, full.parameters(), x, y)
    reached = {}
    for rank in (1, WIDTH):
        model = OneLayer().requires_grad_(False)
        insert_new(model, TRAINED, Lora(rank=rank, alpha=rank), 1)
        activate(model, [TRAINED], TRAINED)
        reached[rank] = least_loss(model, parameters_of(model, TRAINED), x, y)
    assert reached[WIDTH] == pytest.approx(best, rel=1e-3)
    assert reached[1] > 1.5 * best  # a change of rank 1 is not enough
    a, b = active_pairs(model)["base_model.0"]
    weight = lora_layers(model)["base_model.0"].get_base_layer().weight + b @ a
    torch.testing.assert_close(weight, full.base_model[0].weight, atol=1e-2, rtol=1e-2)


def test_new_adapter_changes_nothing_and_depends_on_its_seed_alone(base):
    settings = Lora(rank=4)
    one, again, other = (load_for_training(AutoModelForCausalLM, base, settings, "float32", s) for s in (1, 1, 2))
    assert torch.equal(one(IDS).logits, load_causal(base)(IDS).logits)
    pairs = [{name: a for name, (a, _) in active_pairs(model).items()} for model in (one, again, other)]
    assert all(torch.equal(a, pairs[1][name]) and not torch.equal(a, pairs[2][name]) for name, a in pairs[0].items())
    assert len(pairs[0]) == 14 and not any("lm_head" in name for name in pairs[0])
    largest = max(a.abs().max().item() * a.shape[1] ** 0.5 for a in pairs[0].values())
    assert 0.95 < largest <= 1


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_new_adapter_alone(make_adapter, checkpointing):
    """The gradient of B is scale G A^T, where G is the gradient of the layer's weight in full training."""
    start = make_adapter("start", 1)
    model = load_for_training(AutoModelForCausalLM, start, Lora(rank=2, alpha=6), "float32", 1)
    full = load_causal(start).requires_grad_(True)
    for part in (model, full):
        if checkpointing:
            part.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        part.train()
        part(IDS, labels=IDS).loss.backward()
    name = "model.layers.0.self_attn.v_proj"
    layer = lora_layers(model)[name]
    expected = 3 * full.get_parameter(f"{name}.weight").grad @ layer.lora_A[TRAINED].weight.T
    torch.testing.assert_close(layer.lora_B[TRAINED].weight.grad, expected, atol=1e-5, rtol=1e-4)
    got = [key for key, parameter in model.named_parameters() if parameter.grad is not None]
    assert got and all(f".{TRAINED}." in key for key in got)


def test_head_of_a_reward_model_trains_with_its_adapter(base):
    model = load_for_training(AutoModelForSequenceClassification, base, Lora(rank=2), "bfloat16", 1)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained.keys() - {"score.weight"} == {
        f"{n}.lora_{part}.{TRAINED}.weight" for n in lora_layers(model) for part in "AB"
    }
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32} and "score.weight" in trained


def test_checkpoints_share_a_base(base, make_adapter):
    """A frozen adapter beside a trained one computes what it computes alone, and leaves the trained one as it was."""
    one, two = make_adapter("one", 1), make_adapter("two", 2)
    model = load_for_training(AutoModelForCausalLM, one, Lora(rank=2), "float32", 1)
    shared = SharedBase(model, "float32")
    assert shared.has(two) and shared.has(base)
    frozen = {folder: shared.frozen(folder) for folder in (two, base)}
    with torch.no_grad():
        for folder in (one, two, base):
            found = frozen[folder].forward(lambda part: part(IDS).logits) if folder in frozen else model(IDS).logits
            torch.testing.assert_close(found, load_causal(folder)(IDS).logits, atol=1e-4, rtol=1e-4)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        f"{name}.lora_{part}.{TRAINED}.weight" for name in lora_layers(model) for part in "AB"
    }
    assert next(iter(lora_layers(model).values())).active_adapters == [START, TRAINED]


def test_unknown_target_is_named_in_one_line(base):
    with pytest.raises(UserError, match=r"no linear layers query: name some of down_proj, gate_proj, k_proj"):
        load_for_training(AutoModelForCausalLM, base, Lora(targets=["query"]), "float32", 1)
