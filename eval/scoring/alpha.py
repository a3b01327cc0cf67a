"""Stage `alpha`: measure soups along the line between two SFT models (alpha from 0 to 1), and further checkpoints.

Output, one line per checkpoint: {alpha, checkpoint, reward, reward_se, sft_loss, gold, gold_se, kl_sft, tokens,
samples}; alpha is null for checkpoints that are not on the line. All checkpoints answer the same held-out prompts at
temperature 1 with the same random numbers, so neighbouring points differ little by chance. `sft_loss` is the mean loss
per assistant token of held-out demonstrations; `tokens` is the mean length of the answers.
"""

import argparse
import json
from pathlib import Path

from eval.scoring.probe import Probe
from salsa.config.sections import Alpha, TrainingData
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.settings import load_settings


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
    reward = {"reward": arguments.reward}
    probe = Probe(arguments.sft, reward, settings, test, arguments.gold, seed, arguments.prepared, run)
    provenance.extra = {"data": probe.counts}
    rows = []
    for alpha, path in [*checkpoints.items(), *((None, path) for path in arguments.also)]:
        rows.append({"alpha": alpha, "checkpoint": str(path), **probe.measure(path)})
        log.info("%s: reward %.3f, SFT loss %.3f", path, rows[-1]["reward"], rows[-1]["sft_loss"])
    with output_file(arguments.out, provenance) as out:
        write_jsonl(out, rows)
