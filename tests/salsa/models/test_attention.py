"""Passes without padding give the results of transformers' padded passes, forward and backward."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Gemma2Config, Gemma2Model

from salsa.checkpoints.loading import load_causal
from salsa.models.attention import NAME, Packed, hidden_states, window_mask
from salsa.runtime.errors import UserError

# Sequences of one length share a call, also where others stand between them.
LENGTHS = [3, 21, 9, 1, 14, 21, 9, 9]


@pytest.fixture(params=["llama", "mistral", "gemma"])
def pair(request, make_checkpoint, tmp_path):
    """A model, and a copy with transformers' own attention. Mistral has a window of 8 and 2 groups."""
    keys = {"heads": 4, "key_value_heads": 2, "head_size": 8}
    keys |= {"sliding_window": 8} if request.param == "mistral" else {}
    folder = make_checkpoint(tmp_path / "m", request.param, seed=5, scale=4, **keys)
    return load_causal(folder), load_causal(folder)


def sequences() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 200, (length,), generator=generator).tolist() for length in LENGTHS]


def packed(*rows: list[int]) -> Packed:
    return Packed.of(rows, torch.device("cpu"))


def test_states_and_gradients_equal_those_of_a_padded_pass(pair):
    ours, theirs = pair
    rows = sequences()
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    mask = pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True)
    index = mask.flatten().nonzero()[:, 0]
    found = hidden_states(ours, packed(*rows))
    expected = theirs.base_model(input_ids=ids, attention_mask=mask).last_hidden_state.flatten(0, 1)[index]
    assert torch.allclose(found, expected, atol=1e-4)
    (found**3).sum().backward()
    (expected**3).sum().backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        if b.grad is not None:
            assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-3 * b.grad.abs().max()), name


def test_sequences_do_not_attend_to_each_other(pair):
    model, _ = pair
    rows = sequences()
    together = hidden_states(model, packed(*rows)).split(LENGTHS)
    for row, found in zip(rows, together, strict=True):
        alone = hidden_states(model, packed(row))
        assert torch.allclose(found, alone, atol=1e-5)


def test_gradient_checkpointing_recomputes_the_same(pair):
    """The second forward pass runs inside the backward pass, where nobody passes the row's division again."""
    ours, theirs = pair
    ours.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ours.train()
    for model in (ours, theirs):
        (hidden_states(model, packed(*sequences())) ** 3).sum().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        if b.grad is not None:
            assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-5 * b.grad.abs().max())


class Started(TorchDispatchMode):
    """Counts the operations that a GPU's host would start; a view starts none."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def test_each_further_length_adds_a_call_of_attention_alone(pair):
    """In bfloat16, too: nothing is converted sequence by sequence."""
    model, counts = pair[0], []
    for lengths in ([7] * 6, [2, 3, 4, 5, 6, 7]):
        given = packed(*([5] * length for length in lengths))
        with torch.autocast("cpu", torch.bfloat16), Started() as started:
            hidden_states(model, given)
        counts.append(started.count)
    assert counts[1] - counts[0] == 5 * model.config.num_hidden_layers


def test_generation_after_scoring_uses_transformers_attention(pair):
    ours, theirs = pair
    hidden_states(ours, packed(*sequences()))
    assert ours.config._attn_implementation == NAME != theirs.config._attn_implementation
    prompt = torch.tensor([sequences()[1]])
    a, b = (model.generate(prompt, do_sample=False, max_new_tokens=12) for model in pair)
    assert torch.equal(a, b)


def test_saved_config_does_not_name_this_attention(pair, tmp_path):
    ours, _ = pair
    hidden_states(ours, packed([5]))
    ours.save_pretrained(tmp_path / "saved")
    assert NAME not in (tmp_path / "saved/config.json").read_text()


def test_window_of_3():
    seen = window_mask(5, 3, torch.device("cpu")).int().tolist()
    assert seen == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]


def test_softcapped_attention_is_refused_in_one_line():
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    model = Gemma2Model(Gemma2Config(**sizes, **heads))
    with pytest.raises(UserError, match="logit softcapping .Gemma 2."):
        hidden_states(model, packed([1, 2]))
