"""Stage `alpha`: measure soups along the line between two SFT models (alpha from 0 to 1), and further checkpoints.

Output, one line per checkpoint: {alpha, checkpoint, reward, reward_se, sft_loss, gold, gold_se, kl_sft, tokens,
samples}; alpha is null for checkpoints that are not on the line. All checkpoints answer the same held-out prompts at
temperature 1 with the same random numbers, so neighbouring points differ little by chance. `sft_loss` is the mean loss
per assistant token of held-out demonstrations; `tokens` is the mean length of the answers.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from eval.generation.engines import context_length, eos_ids, generate_all
from eval.generation.transformers_engine import TransformersEngine
from eval.scoring.kl import mean_nll, response_kl
from salsa.checkpoints.loading import load_causal, load_reward, load_tokenizer
from salsa.config.sections import Alpha, TrainingData
from salsa.data.rows import Messages, user_turns
from salsa.data.token_cache import IGNORED, prepare
from salsa.data.training_sets import PREPARED, alpha_sets
from salsa.models.scoring import normalisation, rewards
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import add_run_argument, derive_seed, run_seed
from salsa.runtime.settings import load_settings
from salsa.world.gold import gold_reward


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


class Line:
    """Measures checkpoints on common prompts and demonstrations, with SFT 1 and the reward model."""

    def __init__(
        self,
        sft: Path,
        reward: Path,
        settings: Alpha,
        test: TrainingData,
        gold: bool,
        seed: int,
        cache: Path,
        run: str = "",
    ):
        self.settings, self.gold, self.sft_path, self.seed = settings, gold, sft.resolve(), run_seed(seed, run)
        self.tokenizer = load_tokenizer(sft)
        context = context_length(sft)
        room = context - settings.max_new_tokens
        if room < 1:
            raise UserError(
                f"alpha.max_new_tokens: {settings.max_new_tokens} leaves no room in a context of {context}: lower it"
            )
        sets = {
            name: prepare(name, wanted, self.tokenizer, cache)
            for name, wanted in alpha_sets(settings, test, room, context, seed).items()
        }
        self.counts = {name: prepared.counts for name, prepared in sets.items()}
        prompts, demonstrations = sets["alpha.prompts"].data, sets["alpha.test"].data
        self.messages: list[Messages] = [json.loads(text) for text in prompts["messages"]]
        self.prompts = list(prompts["ids"])
        self.demonstrations = list(demonstrations["input_ids"])
        self.masks = [[int(label != IGNORED) for label in labels] for labels in demonstrations["labels"]]
        self.sft = load_causal(sft, settings.dtype)
        self.reward = load_reward(reward, settings.dtype)
        self.normalisation = normalisation(reward)

    def measure(self, alpha: float | None, path: Path) -> dict[str, Any]:
        """Measure one checkpoint; returns its output row."""
        settings, pad = self.settings, self.tokenizer.pad_token_id
        model: PreTrainedModel = self.sft if path.resolve() == self.sft_path else load_causal(path, settings.dtype)
        engine = TransformersEngine(model, eos_ids(path, self.tokenizer), pad, settings.batch_size)
        prompts = self.prompts
        seeds = [derive_seed(self.seed, "alpha", "sampling", i) for i in range(len(prompts))]
        answers = generate_all(engine, prompts, [1.0] * len(prompts), settings.max_new_tokens, seeds)
        responses = [answer.token_ids for answer in answers]
        sequences = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        reward = mean_and_error(rewards(self.reward, sequences, pad, settings.batch_size, *self.normalisation))
        kl = response_kl(model, [self.sft], prompts, responses, pad, settings.batch_size)[0]
        texts = [
            self.tokenizer.decode(response, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for response in responses
        ]
        gold: tuple[float | None, float | None] = (None, None)
        if self.gold:
            parts = zip(self.messages, texts, answers, strict=True)
            gold = mean_and_error([gold_reward(user_turns(m), text, answer.ended) for m, text, answer in parts])
        return {
            "alpha": alpha,
            "checkpoint": str(path),
            "reward": reward[0],
            "reward_se": reward[1],
            "sft_loss": mean_nll(model, self.demonstrations, self.masks, pad, settings.batch_size),
            "gold": gold[0],
            "gold_se": gold[1],
            "kl_sft": statistics.fmean(kl),
            "tokens": statistics.fmean(map(len, responses)),
            "samples": len(prompts),
        }


def parse_checkpoints(texts: list[str]) -> dict[float, Path]:
    """Parse ALPHA=DIR arguments, sorted by alpha."""
    checkpoints: dict[float, Path] = {}
    for text in texts:
        alpha, _, folder = text.partition("=")
        try:
            checkpoints[float(alpha)] = Path(folder)
        except ValueError:
            folder = ""
        if not folder:
            raise UserError(
                f"--checkpoint {text}: write it as ALPHA=DIR, for example 0.5=checkpoints/soup/llama-mini/NAME"
            )
    return dict(sorted(checkpoints.items()))


def parse_source(text: str) -> TrainingData:
    """Parse a local data file, or the settings of a data source: JSON or FILE.yaml#section."""
    if text.lstrip().startswith("{") or "#" in text:
        return load_settings(text, TrainingData, "--test")
    return TrainingData(path=text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", action="append", required=True, metavar="ALPHA=DIR", help="a point of the line; repeat"
    )
    parser.add_argument(
        "--also",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a further checkpoint, with alpha null; repeat",
    )
    parser.add_argument("--sft", type=Path, required=True, help="SFT 1: KL is measured to it")
    parser.add_argument("--reward", type=Path, required=True, help="reward model")
    parser.add_argument(
        "--test",
        required=True,
        help="held-out demonstrations: a JSONL file, JSON, or FILE.yaml#sft.test",
    )
    parser.add_argument("--gold", action="store_true", help="add the mini world's gold reward")
    parser.add_argument("--seed", type=int, required=True, help="the config's seed")
    add_run_argument(parser)
    parser.add_argument("--settings", required=True, help="the config's alpha section: JSON or FILE.yaml#section")
    parser.add_argument("--prepared", type=Path, default=PREPARED, help=f"cache of token ids (default {PREPARED})")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file")


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Alpha)
    checkpoints = parse_checkpoints(arguments.checkpoint)
    test = parse_source(arguments.test)
    inputs = {f"alpha_{alpha:g}": path for alpha, path in checkpoints.items()}
    inputs |= {f"also_{number}": path for number, path in enumerate(arguments.also, 1)}
    inputs |= {"sft": arguments.sft, "reward": arguments.reward}
    inputs |= {
        name: Path(source.path) for name, source in (("prompts", settings.prompts), ("test", test)) if source.path
    }
    recorded = {**settings.model_dump(), "test": json.loads(test.model_dump_json()), "gold": arguments.gold}
    provenance = Run("alpha", recorded, inputs, {"seed": arguments.seed, "run": arguments.run})
    seed, run = arguments.seed, arguments.run
    line = Line(arguments.sft, arguments.reward, settings, test, arguments.gold, seed, arguments.prepared, run)
    provenance.extra = {"data": line.counts}
    rows = []
    for alpha, path in [*checkpoints.items(), *((None, path) for path in arguments.also)]:
        rows.append(line.measure(alpha, path))
        log.info("%s: reward %.3f, SFT loss %.3f", path, rows[-1]["reward"], rows[-1]["sft_loss"])
    with output_file(arguments.out, provenance) as out:
        write_jsonl(out, rows)
