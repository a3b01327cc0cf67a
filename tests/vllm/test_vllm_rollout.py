"""PPO with rollouts from a vLLM engine, which sleeps while the trainer works."""

import json
import signal

import pytest

from tests.salsa.alignment.small_run import settings

# On a CPU vLLM cannot sleep. This makes it forget like a GPU at level 2 (vllm/v1/worker/gpu_worker.py).
FORGETFUL = """
import os
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_worker import CPUWorker

slept = []


def forget(worker, level=1):
    model = worker.model_runner.model
    worker.buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for tensor in (*model.parameters(), *model.buffers(), *worker.model_runner.kv_caches):
        tensor.data.fill_(float("nan") if tensor.is_floating_point() else 77)
    slept.append(level)


def remember(worker, tags=None):
    if "weights" in tags:
        for name, buffer in worker.model_runner.model.named_buffers():
            buffer.copy_(worker.buffers[name])
    slept.append(tags)


type(current_platform).is_sleep_mode_available = lambda platform: True
CPUWorker.sleep, CPUWorker.wake_up = forget, remember
"""

TRAIN = """
import json, sys
from pathlib import Path
import pytest
import torch
from salsa.rollouts.models import load_models, loader_for
from salsa.rollouts.samplers import TransformersSampler, load_sampler
from salsa.alignment.align import load_prompts
from salsa.alignment.training import Training, make_algorithm
from salsa.config.references import Fixed
from salsa.models.sampling import sample
from salsa.config.algorithms import Ppo
from salsa.models import vllm_engine
from salsa.runtime.errors import UserError

init, reference, reward, cache, text = sys.argv[1:]
settings = Ppo.model_validate_json(text)
loader = loader_for(settings, 1)
models = load_models(loader, Path(init), [Path(reference)], Fixed(), Path(init), Path(reward))
prompts, _ = load_prompts(settings, Path(init), 1, Path(cache))
sampler = load_sampler(Path(init), models.tokenizer, settings)
assert slept == [2], slept
algorithm = make_algorithm(models, settings, lambda: loader.value(Path(reward)))
training = Training(algorithm, models, sampler, prompts, settings, seed=1, rl_seed=1, gold=False)
asked = [(12 * prompt.ids)[:48] for prompt in prompts]  # more than a block of the cache, which remembers them
assert all(len(ids) == 48 > settings.vllm["block_size"] for ids in asked)
none, seeds = [0.0] * len(asked), [0] * len(asked)
end, pad, most = [models.tokenizer.eos_token_id], models.tokenizer.pad_token_id, settings.max_new_tokens


def weights():
    return sampler.engine.llm.llm_engine.model_executor.driver_worker.worker.model_runner.model.parameters()


def by_transformers():
    with models.policy.complete("float32") as policy:
        return sample(policy, asked, none, most, seeds, end, pad)


def greedy():
    return sampler.engine.generate(asked, none, most, seeds), by_transformers()


own = TransformersSampler(models.tokenizer, settings)
answers = [by_transformers()]
for step in range(settings.steps):
    drawn = [each(models.policy, [prompt.ids for prompt in prompts], range(len(prompts))) for each in (sampler, own)]
    # The trainer adds B A x to W x, the engine has W + B A: rounding may change an answer.
    differing = [pair for pair in zip(*drawn, strict=True) if pair[0] != pair[1]]
    assert len(differing) <= (1 if settings.lora else 0), differing
    assert all(weight.isnan().all() for weight in weights()), "training, the engine sleeps"
    metrics = training.step(step)
    assert 0 < metrics["sampler_gap"] < 1e-4, metrics
    assert slept[-3:] == [["weights"], ["kv_cache"], 2], slept
    sampler.engine.load_weights(models.policy.weights())
    answers.append(greedy()[0])
    assert answers[-1] == greedy()[1] != answers[-2], step
    sampler.engine.sleep()

sampler.engine.given_back, vllm_engine.free_memory = 5_000_000_000, lambda: 4_900_000_000
with pytest.raises(UserError, match="the engine needs 5.0 GB for a rollout, and training leaves 4.9 GB: lower"):
    sampler.engine.load_weights(models.policy.weights())
"""


ALIGN = """
import signal, sys
from salsa.rollouts.samplers import VllmSampler
from salsa.runtime.command import run_command

killed_in, words = int(sys.argv[1]), sys.argv[2:]
generate, rollouts = VllmSampler.__call__, []


def sample(sampler, policy, prompts, seeds):
    rollouts.append(0)
    if len(rollouts) == killed_in:
        sampler.engine.load_weights(policy.weights())
        os.kill(os.getpid(), signal.SIGKILL)
    return generate(sampler, policy, prompts, seeds)


VllmSampler.__call__ = sample
sys.exit(run_command("salsa align", "salsa.alignment.align", "", words))
"""


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_engine_has_the_weights_of_the_last_update(
    checkpoints, adapter, reward_model, prompts_file, prepared, python, lora
):
    """Its responses equal those of transformers' sampler, and its log-probabilities the trainer's within rounding."""
    keys = {"learning_rate": 1e-2, "steps": 3, "rollout": "vllm", "temperature": 0.7, "lora": lora}
    keys["vllm"] = {"block_size": 32}
    text = json.dumps(settings(prompts_file, **keys))
    init = checkpoints[0] if lora is None else adapter
    python("-c", FORGETFUL + TRAIN, init, checkpoints[1], reward_model, prepared, text)


def test_run_killed_in_a_rollout_resumes(llamas, reward_model, prompts_file, python, tmp_path):
    """With the metrics and the checkpoint of a run that was never killed."""
    models = ["--init", llamas[0], "--reference", llamas[1], "--sft", llamas[0], "--reward", reward_model]
    given = json.dumps(settings(prompts_file, steps=4, rollout="vllm"))
    options = ["--settings", given, "--seed", 1, "--checkpoint-minutes", 0]

    def run(name: str, killed_in: int = 0, status: int = 0) -> str:
        words = [*models, "--out", tmp_path / name, *options]
        return python("-c", FORGETFUL + ALIGN, killed_in, *words, status=status)

    run("whole")
    run("killed", killed_in=3, status=-signal.SIGKILL)
    assert not (tmp_path / "killed").exists()
    assert "resuming after 2 steps" in run("killed")
    for path in ("{}/model.safetensors", "{}.jsonl"):
        whole, killed = ((tmp_path / path.format(name)).read_bytes() for name in ("whole", "killed"))
        assert whole == killed, path
