"""Stage `world`: write the mini world's tokenizer, data sets and benchmarks into one folder."""

import argparse
import random
from pathlib import Path

from salsa.config.sections import World
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_folder
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed
from salsa.runtime.settings import load_settings
from salsa.world import samples
from salsa.world.tokenizer import train_tokenizer


def write_world(folder: Path, settings: World, seed: int) -> None:
    """Write all files. Each has its own random generator, so changing one size changes no other file."""

    def rng(name: str) -> random.Random:
        return random.Random(derive_seed(seed, "world", name))

    two = settings.two_turn_share
    temperature = settings.preference_temperature
    documents = list(samples.pretraining_documents(rng("pretrain"), settings.pretrain_documents))
    demonstrations = list(samples.demonstrations(rng("sft_train"), settings.sft_train, two, test=False))
    (folder / "benchmarks").mkdir()
    files = {
        "pretrain": documents,
        "sft_train": demonstrations,
        "sft_test": samples.demonstrations(rng("sft_test"), settings.sft_test, two, test=True),
        "prefs_train": samples.preferences(
            rng("prefs_train"), settings.preferences_train, two, temperature, test=False, name="train"
        ),
        "prefs_test": samples.preferences(
            rng("prefs_test"), settings.preferences_test, two, temperature, test=True, name="test"
        ),
        "rl_prompts": samples.rl_prompts(rng("rl_prompts"), settings.rl_prompts, two),
        "benchmarks/ultrafeedback": samples.preferences(
            rng("ultrafeedback"), settings.ultrafeedback_questions, 0.0, temperature, test=True, name="question"
        ),
        "benchmarks/mt_bench": samples.mt_bench_questions(rng("mt_bench"), settings.mt_bench_per_category),
        "benchmarks/arena_hard": samples.arena_hard_questions(rng("arena_hard"), settings.arena_hard_questions),
    }
    for name, rows in files.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    texts = [text for row in documents for turn in row["turns"] for text in turn.values()]
    texts += [message["content"] for row in demonstrations for message in row["messages"]]
    train_tokenizer(texts, settings.vocabulary).save_pretrained(folder / "tokenizer")


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, World)
    record = Run("world", settings.model_dump(), {}, {"seed": arguments.seed})
    with output_folder(arguments.out, record) as folder:
        write_world(folder, settings, arguments.seed)
    log.info("world: %s demonstrations, %s preference pairs", settings.sft_train, settings.preferences_train)
