"""The whole workflow with a real pretrained model on real text: `make test-real`, 27 minutes on two cores.

SmolLM2-135M-Instruct comes from a PyPI package (scripts/smollm2.py), the text from a folder of JSONL files in
UltraChat's and UltraFeedback's schemas, the questions from FastChat; `make test-real DATA=…` names another folder than
../shared/data. The judge prefers the longer answer, so that tables have content; its verdicts mean nothing.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from benchmarks.stages import stages, table
from eval.protocols.prompt_parsing import parse_judge_prompt
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from tests.eval.judge_server import Answer, JudgeServer, chat

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("REAL_DATA", ROOT.parent / "shared/data"))
MODEL = Path(os.environ.get("REAL_MODEL", ROOT / "data/smollm2-135m-instruct"))
MINUTES = 30
WORD = re.compile(r"[a-z]+")


def small(name: str, **keys) -> dict:
    return {"path": str(DATA / "real_small" / f"{name}.jsonl"), **keys}


def config(folder: Path, url: str) -> dict:
    """config/smollm2.yaml with a local model and local data, and as few steps as show an effect."""
    grid = yaml.safe_load((ROOT / "config/smollm2.yaml").read_text())
    chatml = str(ROOT / "config/chat_templates/chatml.jinja")
    grid["models"] = {
        "smollm2-135m": {"local": {"path": str(MODEL), "chat_template": chatml, "pad_token": "<file_sep>"}}
    }
    few = {"batch_size": 8, "micro_batch_size": 4, "max_length": 320, "dtype": "float32"}
    grid["sft"] |= {**few, "train": small("sft_train", limit=96), "test": small("sft_test", limit=24)}
    grid["reward"] |= {**few, "train": small("prefs_train", limit=160), "test": small("prefs_test", limit=160)}
    grid["reward"] |= {"normalisation_prompts": small("prompts_train"), "normalisation_samples": 16}
    grid["reward"] |= {"max_new_tokens": 64}
    grid["ppo"] |= {
        "prompts": small("prompts_train"),
        "rollout": "transformers",
        "steps": 5,
        "rollout_batch_size": 8,
        "train_batch_size": 8,
    }
    grid["ppo"] |= {"micro_batch_size": 8, "max_prompt_length": 128, "max_new_tokens": 64, "dtype": "float32"}
    first_turns = [{**row, "turns": row["turns"][:1]} for row in read_jsonl(DATA / "mt_bench/question.jsonl")]
    write_jsonl(folder / "mt_bench.jsonl", [{k: v for k, v in row.items() if k != "reference"} for row in first_turns])
    asked = {"mt_bench": {"path": str(folder / "mt_bench.jsonl")}, "ultrafeedback": small("prompts_test", limit=16)}
    prompts = str(DATA / "mt_bench/judge_prompts.jsonl")
    references = str(DATA / "mt_bench/reference_gpt-4.jsonl")
    for name, questions in asked.items():
        benchmark = grid["benchmarks"][name]
        benchmark.pop("download", None)
        benchmark |= {"questions": questions, "max_new_tokens": 64, "judge_prompts": prompts}
    grid["benchmarks"]["mt_bench"]["references"] = references
    for section in ("generate", "score", "alpha"):
        grid[section] |= {"batch_size": 16, "dtype": "float32"}
    grid["generate"]["engine"] = "transformers"
    grid["policies_together"] = False  # the stages are compared with the plan's, job by job
    grid["alpha"] |= {"points": [0, 0.5, 1], "prompts": small("prompts_test"), "samples": 16, "max_new_tokens": 64}
    grid["judge"] = {"kind": "endpoint", "model": "takes-the-longer", "base_url": url, "api_key_env": "REAL_TEST_KEY"}
    return grid


def longer(_: int, body: bytes) -> Answer:
    asked = parse_judge_prompt("\n\n".join(message["content"] for message in json.loads(body)["messages"]))
    a, b = map(len, asked.answers)
    return Answer(body=chat(f"My verdict is [[{'C' if a == b else 'A' if a > b else 'B'}]]"))


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """The folder of a finished run."""
    for needed in (DATA / "real_small", MODEL):
        if not needed.is_dir():
            pytest.fail(f"{needed} is not there: make test-real sets the model up, and DATA=FOLDER names the data")
    folder = tmp_path_factory.mktemp("real")
    with JudgeServer(longer) as judge:
        (folder / "config.yaml").write_text(yaml.safe_dump(config(folder, judge.url)))
        options = f"--cores 2 --snakefile {ROOT}/Snakefile --workflow-profile {ROOT}/profiles/default"
        # Nothing else can run beside the reward model.
        command = f"{options} --set-threads reward=2 --configfile {folder}/config.yaml"
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *command.split()],
            cwd=folder,
            env={**os.environ, "REAL_TEST_KEY": "none"},
            start_new_session=True,
        )
        try:
            assert process.wait(timeout=60 * MINUTES) == 0
        finally:
            # Also the jobs that it has started, where it is over its time or the test is interrupted.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    print("\n" + table(stages(folder)))
    return folder


def results(grid: Path) -> Path:
    return grid / "results/smollm2"


def test_sft_loss_is_plausible_and_the_soup_is_the_average(grid):
    line = {row["alpha"]: row for row in read_jsonl(results(grid) / "alpha/smollm2-135m-r1.jsonl")}
    assert all(1.0 < row["sft_loss"] < 2.5 for row in line.values()), "nats per token of English"
    assert line[0.5]["sft_loss"] < max(line[0]["sft_loss"], line[1]["sft_loss"]) + 0.01
    folder = grid / "checkpoints/smollm2"
    names = ("sft/smollm2-135m/1", "sft/smollm2-135m/2", "soup/smollm2-135m/sft-1@0.5+sft-2@0.5")
    one, two, soup = (load_file(folder / name / "model.safetensors") for name in names)
    assert one.keys() == two.keys() == soup.keys()
    assert all(soup[name].allclose((one[name] + two[name]) / 2, atol=1e-6) for name in one)
    assert not all(one[name].equal(two[name]) for name in one)


def test_reward_model_is_measured_on_held_out_pairs(grid):
    card = json.loads((results(grid) / "reward/smollm2-135m.json").read_text())
    assert card["pairs_test"] > 120
    assert card["accuracy_low"] < card["accuracy"] < card["accuracy_high"]
    assert card["accuracy"] > 0.5
    assert card["std"] > 0


def test_ppo_and_salsa_start_at_their_own_kl_and_update_five_times(grid):
    ppo, salsa = (read_jsonl(results(grid) / f"training/smollm2-135m/{name}-r1-s1.jsonl") for name in ("ppo", "salsa"))
    assert len(ppo) == len(salsa) == 5
    assert ppo[0]["kl_ref_k1"] == pytest.approx(0, abs=1e-3), "from its own reference"
    assert salsa[0]["kl_ref_k3"] > 1e-4, "KL(SFT 1 || soup)"
    assert ppo[0]["reward"] == pytest.approx(salsa[0]["reward"], abs=1e-4), "the same first rollout"
    assert all(row["sampler_gap"] < 1e-2 for row in [*ppo, *salsa])


def test_answers_are_english(grid):
    """Nearly all words of the answers occur in the demonstrations; the pretrained model writes English."""
    known = set()
    for row in read_jsonl(DATA / "real_small/sft_train.jsonl"):
        known.update(WORD.findall(" ".join(message["content"] for message in row["messages"]).lower()))
    for policy in ("sft-r1", "ppo-r1-s1", "salsa-r1-s1"):
        rows = read_jsonl(results(grid) / f"generations/smollm2-135m/{policy}/mt_bench.jsonl")
        assert len(rows) == 80 and all(row["error"] is None for row in rows)
        words = [word for row in rows for word in WORD.findall(row["turns"][0]["assistant"].lower())]
        assert len(words) > 80 * 20
        assert sum(word in known for word in words) > 0.85 * len(words), policy
        for row in rows[:6]:
            print(f"\n{policy} {row['question_id']}: {row['turns'][0]['assistant']}")


def test_scores_and_tables_exist(grid):
    tables = results(grid) / "tables"
    assert "smollm2-135m" in (tables / "scores.md").read_text()
    assert "too low" not in (tables / "win_rates.md").read_text()
    assert "takes-the-longer" in (results(grid) / "report.html").read_text()
    for name in ("reward_model", "data", "overlap", "soup", "headline"):
        print((tables / f"{name}.md").read_text())
