"""Work and memory: arithmetic compared with torch and transformers."""

import pytest

from eval.costs.assumed import Device, DeviceSources, Shape, assumed
from eval.costs.memory import Memory, Phase
from eval.costs.sizes import shape_of_checkpoint
from eval.costs.work import FORWARD, TRAINING, Cost, Decoding, Passes, Waiting
from eval.planning.jobs import Job
from eval.planning.schedule import place

SMALL = Shape(
    hidden_size=32, intermediate_size=48, layers=3, heads=4, key_value_heads=2, head_size=8, vocabulary=64, tied=False
)


def transformers_model(shape: Shape, architecture: str):
    """A model of transformers' class, without memory for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    config = AutoConfig.for_model(
        architecture,
        **{
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.key_value_heads,
            "head_dim": shape.head_size,
            "vocab_size": shape.vocabulary,
            "tie_word_embeddings": shape.tied,
            "num_labels": 1,
        },
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config), AutoModelForSequenceClassification.from_config(config), config


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("meta-llama/Llama-2-7b-hf", "llama"),
        ("mistralai/Mistral-7B-v0.1", "mistral"),
        ("google/gemma-2b", "gemma"),
        ("HuggingFaceTB/SmolLM2-135M", "llama"),
    ],
)
def test_parameter_counts_equal_transformers(name, architecture, tmp_path):
    shape = assumed().models[name]
    causal, scalar, config = transformers_model(shape, architecture)
    assert shape.parameters == causal.num_parameters()
    assert shape.scalar_parameters == scalar.num_parameters()
    config.save_pretrained(tmp_path)
    assert shape_of_checkpoint(tmp_path) == shape, "as read from its config.json"


def test_published_model_sizes():
    billions = {name.split("/")[1]: shape.parameters / 1e9 for name, shape in assumed().models.items()}
    assert billions == pytest.approx(
        {"Llama-2-7b-hf": 6.738, "Mistral-7B-v0.1": 7.242, "gemma-2b": 2.506, "SmolLM2-135M": 0.1345}, rel=1e-3
    )


@pytest.mark.parametrize("training", [False, True])
def test_operations_equal_torchs_count(training):
    """For a batch without padding. The eager kernel masks attention and computes all positions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, _, config = transformers_model(SMALL, "llama")
    config._attn_implementation = "eager"
    model = model.to_empty(device="cpu")
    rows, length = 3, 20
    ids = torch.zeros((rows, length), dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        logits = model(ids, use_cache=False).logits
        if training:
            logits.sum().backward()
    passes = Passes(SMALL, "float32", rows * length, length, rows * length, 1, TRAINING if training else FORWARD)
    norms = SMALL.layers * 2 * SMALL.hidden_size * 2 * rows * length * passes.factor
    # The first layer's input needs no gradient but for the embedding's own, which is no product.
    assert passes.operations() - norms == pytest.approx(counter.get_total_flops(), rel=0.02)


GPU = Device(
    title="a device",
    memory=10,
    bytes=1e12,
    peak={"float32": 1e13, "bfloat16": 1e14},
    efficiency=0.5,
    bandwidth_efficiency=0.5,
    layer_seconds={"transformers": 1e-3, "vllm": 1e-4},
    start_seconds={"transformers": 10, "forked": 1, "vllm": 60},
    sources=DeviceSources(peak="assumed", memory="assumed", speed="assumed", decoding="assumed", start="assumed"),
)


def decoding(**changes) -> Decoding:
    large = assumed().models["meta-llama/Llama-2-7b-hf"]
    given = {"rows": 64, "batch": 64, "prompt": 100, "answer": 200, "limit": 1000, "engine": "transformers"}
    return Decoding(large, "bfloat16", **{**given, **changes})


def test_decoding_reads_all_weights_per_token_for_any_batch():
    one, few = (decoding(rows=rows).seconds(GPU, 1) for rows in (1, 8))
    weights = 2 * (assumed().models["meta-llama/Llama-2-7b-hf"].parameters - 32000 * 4096)
    assert one == pytest.approx(1000 * (weights / 5e11 + 32 * 1e-3), rel=0.05)
    assert few < 1.1 * one
    assert decoding(batch=32).seconds(GPU, 1) == pytest.approx(2 * decoding(rows=32).seconds(GPU, 1))


def test_vllm_refills_its_batch_and_two_devices_halve_the_batches():
    kinds = {engine: decoding(rows=1024, engine=engine).seconds(GPU, 1) for engine in ("transformers", "vllm")}
    assert kinds["vllm"] < kinds["transformers"] / 2, "vLLM does not wait for the longest answer of a batch"
    assert decoding(rows=128).seconds(GPU, 2) == pytest.approx(decoding(rows=64).seconds(GPU, 1))


def test_rounds_are_sequential_on_any_number_of_devices():
    """A rollout of 8 on 8 devices takes as many steps as one of 8 on one."""
    alone, spread = (decoding(rows=80, batch=8, rounds=10).seconds(GPU, count) for count in (1, 8))
    assert spread == pytest.approx(alone, rel=0.1)
    assert alone == pytest.approx(10 * decoding(rows=8, batch=8).seconds(GPU, 1))


def test_vllm_takes_a_share_of_the_device_while_it_samples():
    for aside, fits in ((0.0, True), (0.3, True), (0.4, False)):
        memory = Memory.of(0, 5e9).then(Phase(0, 6e9, aside))
        run = place(Job("rule", "a", None, (), Cost(work=(Waiting(1),), memory=memory)), GPU)
        assert (run.fits, run.memory) == (fits, pytest.approx(6e9 + aside * 1e10))
