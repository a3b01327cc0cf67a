"""PPO with rollouts from a vLLM engine."""

import json

from tests.salsa.ppo.ppo_case import settings

TRAIN = """
import json, sys
from pathlib import Path
from salsa.ppo.models import load_models
from salsa.ppo.samplers import TransformersSampler, load_sampler
from salsa.ppo.align import load_prompts
from salsa.ppo.trainer import Training
from salsa.config.references import Fixed
from salsa.models.sampling import sample
from salsa.config.sections import Ppo

init, reference, reward, cache, text = sys.argv[1:]
settings = Ppo.model_validate_json(text)
models = load_models(Path(init), [Path(reference)], Fixed(), Path(init), Path(reward), settings)
prompts, _ = load_prompts(settings, Path(init), 1, Path(cache))
sampler = load_sampler(Path(init), models.tokenizer, settings)
training = Training(models, sampler, prompts, settings, seed=1, rl_seed=1, gold=False)
asked = [(12 * prompt.ids)[:48] for prompt in prompts]  # more than a block of the cache, which remembers them
assert all(len(ids) == 48 > settings.vllm["block_size"] for ids in asked)
none, seeds = [0.0] * len(asked), [0] * len(asked)
end, pad, most = [models.tokenizer.eos_token_id], models.tokenizer.pad_token_id, settings.max_new_tokens


def greedy():
    theirs = sampler.engine.generate(asked, none, most, seeds)
    return theirs, sample(models.policy.model, asked, none, most, seeds, end, pad)


own = TransformersSampler(models.tokenizer, settings)
for step in range(settings.steps):
    drawn = [each(models.policy, [prompt.ids for prompt in prompts], range(len(prompts))) for each in (sampler, own)]
    assert drawn[0] == drawn[1], step
    metrics = training.step(step)
    assert 0 < metrics["sampler_gap"] < 1e-4, metrics
    theirs, ours = greedy()
    assert theirs != ours, "the engine has the weights of before the update: else nothing was learnt here"
    sampler.engine.load_weights(models.policy.weights())
    theirs, ours = greedy()
    assert theirs == ours, step
"""


def test_engine_has_the_weights_of_the_last_update(checkpoints, reward_model, prompts_file, prepared, python):
    """Its responses equal those of transformers' sampler, and its log-probabilities the trainer's within rounding."""
    keys = {"learning_rate": 1e-2, "steps": 3, "rollout": "vllm", "temperature": 0.7}
    keys["vllm"] = {"block_size": 32}
    text = json.dumps(settings(prompts_file, **keys))
    python("-c", TRAIN, checkpoints[0], checkpoints[1], reward_model, prepared, text)
