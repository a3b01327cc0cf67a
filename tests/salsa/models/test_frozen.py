"""What of a frozen model in shards stays on a process's device.

tests/salsa/alignment/test_processes.py compares results.
"""

import torch
from torch import distributed
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from salsa.checkpoints.loading import load_causal
from salsa.devices import processes
from salsa.models.frozen import FrozenSharded


@torch.no_grad()
def test_a_process_keeps_its_shard_alone(llamas, monkeypatch):
    """Before and after a pass, the embedding and the output layer included."""
    model = load_causal(llamas[0]).requires_grad_(False)
    whole = sum(parameter.numel() for parameter in model.parameters())
    kinds: list[bool] = []

    def outputs(model: torch.nn.Module) -> None:
        kinds.extend(isinstance(part.weight, DTensor) for part in (model.lm_head, model.model.layers[1].mlp.up_proj))
        model(torch.arange(5)[None])

    def kept() -> int:
        return sum(parameter.to_local().numel() for parameter in model.parameters())

    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    monkeypatch.setattr(processes, "count", lambda: 4)
    try:
        frozen = FrozenSharded(model)
        before = kept()
        frozen.forward(outputs)
        assert kept() == before < 0.3 * whole
    finally:
        distributed.destroy_process_group()
    assert kinds == [False, True], "a pass gathers what belongs to no layer at once, and a layer when it gets to it"
