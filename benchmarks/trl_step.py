"""Time the parts of TRL 1.11's PPO updates; prints a line of JSON. ppo_step.py runs it in TRL's environment."""

import contextlib
import itertools
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.update(TRL_EXPERIMENTAL_SILENCE="1", HF_HUB_OFFLINE="1")

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerFast
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

sys.path.insert(0, str(Path(__file__).parent))
from ppo_shapes import EOS, PAD, SHAPES, build, force, work


class Ends(LogitsProcessor):
    """Makes every response end where ppo_shapes says."""

    def __init__(self, context: int, lengths: list[int]):
        self.context, self.lengths = context, torch.tensor(lengths)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self.context
        return force(scores, (self.lengths.to(scores.device) == step + 1))


def main() -> None:
    name, count, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    shape, cuda = SHAPES[name], torch.cuda.is_available()
    updates = work(shape, count)
    marks: list[tuple[str, float]] = []

    def mark(name: str) -> None:
        if cuda:
            torch.cuda.synchronize()
        marks.append((name, time.perf_counter()))

    generate, forward = ppo_trainer.batch_generation, ppo_trainer.forward
    waiting = iter(lengths for _, lengths in updates)

    def timed_generation(model: torch.nn.Module, queries: torch.Tensor, *rest: Any) -> Any:
        mark("generation")
        plain, lengths = model.generate, next(waiting)
        begin = 0

        def with_ends(*args: Any, **options: Any) -> Any:
            nonlocal begin
            rows = lengths[begin : begin + len(options["input_ids"])]
            begin += len(rows)
            ends = LogitsProcessorList([Ends(queries.shape[1], rows)])
            return plain(*args, logits_processor=ends, **options)

        model.generate = with_ends
        result = generate(model, queries, *rest)
        model.generate = plain
        mark("scoring")
        return result

    def timed_forward(*args: Any, **options: Any) -> Any:
        if torch.is_grad_enabled() and marks[-1][0] == "scoring":
            mark("training")
        return forward(*args, **options)

    ppo_trainer.batch_generation, ppo_trainer.forward = timed_generation, timed_forward
    words = {"<pad>": PAD, "</s>": EOS, **{f"t{i}": i for i in range(2, shape.sizes["vocab_size"])}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="t2")),
        pad_token="<pad>",
        eos_token="</s>",
        padding_side="left",
    )
    data = Dataset.from_list([{"input_ids": prompt} for prompts, _ in updates for prompt in prompts])
    half = torch.bfloat16 if shape.dtype == "bfloat16" else torch.float32
    device = "cuda" if cuda else "cpu"
    models = {
        "model": build(shape, False, 1),
        "ref_model": build(shape, False, 2, half),
        "value_model": build(shape, True, 3),
        "reward_model": build(shape, True, 4, half),
    }
    with tempfile.TemporaryDirectory() as folder:
        arguments = PPOConfig(
            output_dir=folder,
            use_cpu=not cuda,
            bf16=shape.dtype == "bfloat16",
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            num_sample_generations=0,
            per_device_train_batch_size=shape.micro,
            gradient_accumulation_steps=shape.batch // shape.micro,
            local_rollout_forward_batch_size=shape.micro,
            total_episodes=shape.batch * count,
            num_mini_batches=1,
            num_ppo_epochs=shape.epochs,
            response_length=shape.new_tokens,
            stop_token="eos",
            learning_rate=1e-6,
            dataloader_pin_memory=False,
        )
        trainer = PPOTrainer(
            args=arguments,
            processing_class=tokenizer,
            train_dataset=data,
            eval_dataset=data.select(range(shape.micro)),
            **{name: model.to(device) for name, model in models.items()},
        )
        collate = trainer.data_collator
        trainer.dataloader = torch.utils.data.DataLoader(data, batch_size=shape.batch, collate_fn=collate)
        with contextlib.redirect_stdout(sys.stderr):
            trainer.train()
        mark("end")
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    parts = [dict.fromkeys(("generation", "scoring", "training"), 0.0) for _ in updates]
    number = -1
    for (part, begin), (_, end) in itertools.pairwise(marks):
        number += part == "generation"
        parts[number][part] += end - begin
    print(json.dumps({"updates": parts, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
