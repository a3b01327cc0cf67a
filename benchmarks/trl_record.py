"""Record what TRL 1.11's PPOTrainer computes for the case of trl_case.py, as JSON.

    make trl        an environment with TRL 1.11, the last release with PPO, then this, then the comparison

TRL's `train` runs unchanged except for two things: responses are given instead of sampled, and its variables are
recorded. It runs unchanged, and with the two lines replaced in which it is documented to differ (docs/protocol.md): the
position of the score, and the value that it keeps one position after the response. With these it also runs over
adapters by peft.
"""

import argparse
import inspect
import json
import os
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

os.environ.update(TRL_EXPERIMENTAL_SILENCE="1", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")

import peft
import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

sys.path.insert(0, str(Path(__file__).parent))
import trl_case as case

DIFFERENCES = {
    "actual_end = torch.where(sequence_lengths_p1 < rewards.size(1), sequence_lengths_p1, sequence_lengths)": (
        "actual_end = sequence_lengths"
    ),
    "padding_mask_p1 = response_idxs > (sequence_lengths_p1.unsqueeze(1))": "padding_mask_p1 = padding_mask",
}
BEFORE_UPDATES = "# Do multiple epochs of PPO training, with a fresh random shuffle in each epoch"
AFTER_LOSS = "loss = pg_loss + args.vf_coef * vf_loss"
EXPERIENCE = ("logprobs", "ref_logprobs", "values", "scores", "kl", "rewards", "advantages", "returns")


def instrumented(changes: dict[str, str]) -> tuple[Any, dict[str, Any]]:
    """TRL's `train` with these changes, made from the installed source."""
    source = textwrap.dedent(inspect.getsource(PPOTrainer.train))
    seen: dict[str, Any] = {"losses": []}

    def experience(variables: dict[str, Any]) -> None:
        kept = {name: torch.where(variables["padding_mask"], 0.0, variables[name]) for name in EXPERIENCE[:3]}
        kept |= {name: variables[name].clone() for name in EXPERIENCE[3:]}
        seen.update({name: value.tolist() for name, value in kept.items()})

    def losses(variables: dict[str, Any]) -> None:
        seen["losses"].append([variables["pg_loss"].item(), variables["vf_loss"].item()])

    insert = {
        BEFORE_UPDATES: f"__experience(locals())\n            {BEFORE_UPDATES}",
        AFTER_LOSS: f"{AFTER_LOSS}; __losses(locals())",
    }
    for old, new in {**changes, **insert}.items():
        if source.count(old) != 1:
            raise SystemExit(f"trl {trl.__version__}: its train has no single line {old!r}: this needs trl 1.11")
        source = source.replace(old, new)
    namespace = {**vars(ppo_trainer), "__experience": experience, "__losses": losses}
    exec(compile(source, "trl's train", "exec"), namespace)
    return namespace["train"], seen


def given(policy: torch.nn.Module, queries: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Replaces sampling: returns the case's responses, and the logits of TRL's own forward pass for them."""
    rows = [row + [case.PAD] * (case.NEW_TOKENS - len(row)) for row in case.RESPONSES]
    order = [case.PROMPTS.index([t for t in row if t != case.PAD]) for row in queries.tolist()]
    assert order == list(range(len(rows))), "the data loader is not to shuffle"
    whole = torch.cat([queries, torch.tensor(rows)], 1)
    logits = ppo_trainer.forward(policy, whole, case.PAD).logits[:, queries.shape[1] - 1 : -1]
    return whole, logits / (case.SETTINGS["temperature"] + 1e-7)


def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": case.PAD, "</s>": case.EOS, **{f"t{i}": i for i in range(2, case.VOCABULARY)}}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="t2")),
        pad_token="<pad>",
        eos_token="</s>",
        padding_side="left",
    )


def adapted_models() -> dict[str, torch.nn.Module]:
    """The case's models with LoRA, each with a base of its own, as peft makes them."""
    models: dict[str, torch.nn.Module] = {}
    for name, phase in case.PHASES.items():
        model = case.base()
        if name in ("value", "reward"):
            scorer = case.scalar_model(phase)
            scorer.model.load_state_dict(model.model.state_dict())
            scorer.score.weight.data.copy_(case.head(phase))
            model = scorer
        pairs = case.adapter(phase)
        config = peft.LoraConfig(r=case.RANK, lora_alpha=case.ALPHA, target_modules=list(pairs))
        models[name] = peft.inject_adapter_in_model(config, model, "default")
        for layer, (a, b) in pairs.items():
            module = model.get_submodule(layer)
            module.lora_A["default"].weight.data.copy_(a)
            module.lora_B["default"].weight.data.copy_(b)
    models["value"].score.requires_grad_(True)
    return {name: model.eval() for name, model in models.items()}


def run(changes: dict[str, str], models: dict[str, torch.nn.Module]) -> dict[str, Any]:
    count, settings = len(case.PROMPTS), case.SETTINGS
    data = Dataset.from_list([{"input_ids": prompt} for prompt in case.PROMPTS])
    policy = torch.optim.AdamW(
        [part for name in ("policy", "value") for part in models[name].parameters() if part.requires_grad],
        lr=settings["learning_rate"],
        betas=settings["adam_betas"],
        eps=settings["adam_eps"],
        weight_decay=0.0,
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = PPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            num_sample_generations=0,
            per_device_train_batch_size=count,
            gradient_accumulation_steps=1,
            local_rollout_forward_batch_size=count,
            total_episodes=count,
            num_mini_batches=1,
            num_ppo_epochs=settings["epochs"],
            response_length=case.NEW_TOKENS,
            stop_token="eos",
            temperature=settings["temperature"],
            kl_coef=settings["beta"],
            gamma=settings["gamma"],
            lam=settings["lam"],
            cliprange=settings["clip"],
            cliprange_value=settings["value_clip"],
            missing_eos_penalty=settings["missing_eos_penalty"],
            vf_coef=1.0,
            dataloader_pin_memory=False,
        )
        trainer = PPOTrainer(
            args=arguments,
            processing_class=tokenizer(),
            model=models["policy"],
            ref_model=models["reference"],
            reward_model=models["reward"],
            value_model=models["value"],
            train_dataset=data,
            eval_dataset=data,
            optimizers=(policy, torch.optim.lr_scheduler.ConstantLR(policy, factor=1.0)),
        )
        trainer.dataloader = torch.utils.data.DataLoader(data, batch_size=count, collate_fn=trainer.data_collator)
        train, seen = instrumented(changes)
        ppo_trainer.batch_generation = given
        train.__globals__["batch_generation"] = given
        train(trainer)
    return seen


def rounded(value: Any) -> Any:
    return round(value, 7) if isinstance(value, float) else [rounded(part) for part in value]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found = {"trl": trl.__version__, "torch": torch.__version__.split("+")[0]}
    runs = {
        "adapted": (DIFFERENCES, case.models),
        "unchanged": ({}, case.models),
        "lora": (DIFFERENCES, adapted_models),
    }
    for name, (changes, models) in runs.items():
        found[name] = {key: rounded(value) for key, value in run(changes, models()).items()}
    arguments.out.write_text(json.dumps(found) + "\n")
