"""What the plan says of training at full size: gradient checkpointing, memory, a step of PPO at 7B."""

import re

import pytest
import yaml

from eval.costs.assumed import assumed
from eval.costs.sizes import Sizes
from eval.costs.stage_costs import Costs
from eval.costs.work import FORWARD, Decoding, Passes, Work
from eval.planning.fitting import checkpointing_lines, misfit_lines
from eval.planning.grid_plan import Plan
from salsa.config.config import Config, algorithm_settings, load_config
from tests.eval.planning.test_plan import ROOT

H100, H200 = (assumed().devices[name] for name in ("h100", "h200"))
NO_ENGINE = {"rollout": "transformers", "vllm": {}, "micro_batch_tokens": None, "frozen_models": "device"}


@pytest.fixture
def paper(tmp_path):
    """paper(changes) -> config/paper.yaml with the changes merged over it."""

    def config(changes: dict) -> Config:
        (tmp_path / "changes.yaml").write_text(yaml.safe_dump(changes))
        return load_config(ROOT / "config/paper.yaml", tmp_path / "changes.yaml")

    return config


def test_memory_without_checkpointing_is_what_a_gpu_took(paper):
    """106 GB on an H200: docs/benchmarks.md, PPO at Gemma-2B's shape, 64 responses, micro-batches of 8."""
    sizes = {"rollout_batch_size": 64, "train_batch_size": 64, "micro_batch_size": 8}
    lengths = {"max_prompt_length": 192, "max_new_tokens": 512}
    ppo = {**NO_ENGINE, **sizes, **lengths, "gradient_checkpointing": False}
    config = paper({"models": {"gemma-2b": {"settings": {"ppo": ppo}}}})
    cost = Costs(Sizes(config), "gemma-2b").rl(algorithm_settings(config, "gemma-2b", "ppo"), "ppo")
    assert cost.memory.on(1, H200.memory * 1e9) == pytest.approx(106e9, rel=0.05)


def test_plan_says_where_checkpointing_is_not_needed(paper):
    """Not in the configs, which have it off where it fits. Where it is needed, a stage that does not fit says so."""
    for name in ("paper", "smollm2"):
        assert checkpointing_lines(Plan.of(load_config(ROOT / f"config/{name}.yaml"), H100, 8)) == []
    switched_on = paper({"sft": {"gradient_checkpointing": True}})
    head, *lines = checkpointing_lines(Plan.of(switched_on, H100, 8))
    assert "without gradient_checkpointing" in head
    assert [line.split(":")[0].strip() for line in lines] == [f"sft of {model}" for model in switched_on.models]
    for line in lines[:2]:
        found = re.search(r"(\d+\.\d) device hours instead of (\d+\.\d)$", line)
        assert float(found[1]) / float(found[2]) == pytest.approx(3 / 4, rel=0.02), "three passes of four"
    a100 = assumed().devices["a100-40"]
    small, smaller = ("\n".join(misfit_lines(Plan.of(config, a100, 32))) for config in (paper({}), switched_on))
    assert re.search("too small  sft of llama2-7b: .* set gradient_checkpointing, ", small)
    assert "too small  sft of " not in smaller, "SFT is sharded over enough devices"
    assert "score of llama2-7b" in small and not re.search("score of .* set gradient_checkpointing", small)


def part(work: Work) -> str:
    match work:
        case Decoding():
            return "sampling"
        case Passes():
            return "scoring" if work.factor == FORWARD else "updating"
    return "waiting"


def test_a_step_at_7b_is_what_the_docs_say(paper, monkeypatch):
    """1,024 prompts with 512 new tokens on eight H100, with a value model: about 1,000 tokens/s and GPU."""
    monkeypatch.setattr(Sizes, "answer", lambda sizes, limit: limit)
    config, page = paper({"ppo": {"max_new_tokens": 512}}), (ROOT / "docs/howto-full-grid.md").read_text()
    rows = dict(re.findall(r"^\| (\S+) \| ([\d |]+) \|$", page, re.MULTILINE))
    for model in ("llama2-7b", "mistral-7b"):
        settings = algorithm_settings(config, model, "salsa")
        seconds = dict.fromkeys(("sampling", "scoring", "updating", "waiting"), 0.0)
        for work in Costs(Sizes(config), model).rl(settings, "salsa").work:
            seconds[part(work)] += work.seconds(H100, 8) / settings.steps
        step = sum(seconds.values())
        assert step < 75
        rate = settings.rollout_batch_size * 512 / step / 8
        assert rows[model] == " | ".join(f"{value:.0f}" for value in (*seconds.values(), step, rate))


def test_what_the_plan_advises_makes_a_stage_fit(paper):
    """A moving reference at 7B is a whole float32 model on each GPU. Each advice is followed until all stages fit."""
    ablations = yaml.safe_load((ROOT / "config/ablations.yaml").read_text())
    ppo = {"gradient_checkpointing": False, "vllm": {"gpu_memory_utilization": 0.5}}
    models = {"gemma-2b": None, "llama2-7b": None}
    methods = {"ema": ablations["methods"]["ema"]}

    def advice() -> str:
        return "\n".join(misfit_lines(Plan.of(paper({"models": models, "methods": methods, "ppo": ppo}), H100, 8)))

    assert "set gradient_checkpointing, " in advice()
    ppo["gradient_checkpointing"] = True
    found = re.search(r"(0\.\d\d) of the memory is left for vLLM on 8 devices: lower ppo.vllm.gpu_mem", advice())
    ppo["vllm"] = {"gpu_memory_utilization": float(found[1]) + 0.02}
    assert advice()
    ppo["vllm"] = {"gpu_memory_utilization": float(found[1])}
    assert not advice()
