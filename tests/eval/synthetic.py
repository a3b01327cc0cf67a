"""A results folder like that of a finished grid, with invented figures: two models, three benchmarks, two RL seeds."""

import json
import random
from pathlib import Path

from eval.grid.claims import load_claims
from eval.grid.layout import (
    Grid,
    alpha_file,
    data_file,
    frontier_file,
    generation_file,
    grade_file,
    judgment_file,
    overlap_file,
    pairs,
    policies,
    reward_file,
    rewards,
    score_file,
    training_file,
)
from salsa.config.replicates import Policy
from salsa.runtime.jsonl import write_jsonl

ROOT = Path(__file__).parents[2]
METHODS = {
    "sft": {"algorithm": "none", "init": "sft-1"},
    "ppo": {"algorithm": "ppo", "init": "sft-1", "reference": "sft-1"},
    "salsa": {"algorithm": "ppo", "init": "sft-1", "reference": {"soup": {"sft-1": 0.5, "sft-2": 0.5}}},
}
GRID = Grid.model_validate(
    {
        "grid": "synthetic",
        "models": ["one-mini", "two_mini"],
        "methods": METHODS,
        "replicates": {"": {"sft": {"sft-1": 1, "sft-2": 2}, "rl_seeds": [1, 2]}},
        "benchmarks": ["mt_bench", "arena_hard", "ultrafeedback"],
        "graded": ["mt_bench"],
        "comparisons": {"salsa_vs_ppo": {"a": "salsa", "b": "ppo"}, "ppo_vs_sft": {"a": "ppo", "b": "sft"}},
        "held_out": True,
        "claims": load_claims([ROOT / "config/claims.yaml"]),
        "judge": "gold-judge (gold judge)",
        "tables": {"headline": "salsa_vs_ppo"},
    }
)
BETAS = (0.05, 0.1, 0.2, 0.4)
OWN_BETA = 0.2
THREE = {f"r{n}": {"sft": {"sft-1": 2 * n - 1, "sft-2": 2 * n}, "rl_seeds": [1]} for n in (1, 2, 3)}
REPLICATED = Grid.model_validate({**GRID.model_dump(), "replicates": THREE})


def with_frontier(grid: Grid) -> Grid:
    """The grid with PPO and SALSA at several betas, which answer no benchmark."""
    runs = [
        {"method": method, "beta": beta, "name": method if beta == OWN_BETA else f"{method}-b{beta:g}"}
        for method in ("ppo", "salsa")
        for beta in BETAS
    ]
    added = {
        run["name"]: {**METHODS[run["method"]], "settings": {"beta": run["beta"]}, "answers": False}
        for run in runs
        if run["beta"] != OWN_BETA
    }
    methods = {**grid.model_dump()["methods"], **added}
    return Grid.model_validate({**grid.model_dump(), "frontier": runs, "methods": methods})


QUESTIONS = 24


def put(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows)


def judgment(rng: random.Random, question: int, pair: tuple[str, str]) -> dict:
    found = [rng.choice(("a", "a", "b", "tie")) for _ in range(2)]
    points = {"aa": 1.0, "bb": 0.0}.get("".join(found), 0.5)
    games = [{"order": order, "outcome": o, "strong": False} for order, o in zip(("ab", "ba"), found, strict=True)]
    return {
        **{"question_id": str(question), "category": "x", "turn": 1, "a": pair[0], "b": pair[1], "games": games},
        **{"template": "ours:pair-v2", "points": points, "weight": 1, "consistent": found[0] == found[1], "flags": []},
        "lengths": [rng.randint(20, 90), rng.randint(20, 90)],
        "imitating": ["a"] if question == 3 else [],
    }


def write_results(results: Path, questions: int = QUESTIONS, grid: Grid = GRID) -> Path:
    """Fill the folder, with the same figures each time."""
    rng = random.Random(1)
    for model in grid.models:
        for benchmark in grid.benchmarks:
            for name, comparison in grid.comparisons.items():
                for replicate in grid.replicates:
                    both = pairs(grid.methods, grid.replicates, comparison, replicate)
                    rows = [judgment(rng, q, pair) for q in range(questions) for pair in both]
                    put(judgment_file(results, model, benchmark, name, replicate), rows)
        for replicate in grid.replicates if grid.frontier else ():
            put(frontier_file(results, model, replicate), frontier(grid, model, replicate))
        for run in policies(grid.methods, grid.replicates):
            write_policy(results, model, run, questions, rng, grid)
        for replicate in grid.replicates:
            line = [
                soup(rng, alpha, f"checkpoints/x/soup/{model}/sft-1@{1 - alpha:g}+sft-2@{alpha:g}")
                for alpha in (0, 0.5, 1)
            ]
            put(alpha_file(results, model, replicate), [*line, soup(rng, None, f"checkpoints/x/sft/{model}/3")])
        for owner, version in rewards(grid):
            path = reward_file(results, model, owner, version)
            path.parent.mkdir(parents=True, exist_ok=True)
            card = {
                "pairs_train": 90,
                "dropped_train": 10,
                "loss": 0.6,
                "pairs_test": 80,
                "dropped_test": 4,
                "mean": 0.1,
            }
            card |= {
                "samples": 64,
                "accuracy": 0.7,
                "accuracy_low": 0.6,
                "accuracy_high": 0.79,
                "mean": 0.1,
                "std": 1.2,
            }
            card |= {"pairs_gold": 70, "accuracy_gold": 0.75, "accuracy_gold_low": 0.65, "accuracy_gold_high": 0.83}
            path.write_text(json.dumps(card))
        path = data_file(results, model)
        path.parent.mkdir(parents=True, exist_ok=True)
        counts = {"rows": 100, "used": 90, "empty": 1, "equal": 2, "tied": 3, "too_long": 4, "cut": 5, "tokens": 1800}
        counts |= {"malformed": 1, "roles": 0, "mismatched": 0, "refused": 0}
        path.write_text(json.dumps({"sft.train": {"kind": "x", "source": "sft.jsonl", "limit": 64, **counts}}))
    found = {name: {"questions": 40, "equal": ["3"], "alike": ["5", "6"]} for name in grid.benchmarks}
    overlap_file(results).write_text(json.dumps({"ppo.prompts": found}))
    return results


GAIN = 0.1  # of SALSA at equal KL
SPREAD = 0.02  # between replicates


def frontier(grid: Grid, model: str, replicate: str) -> list[dict]:
    """Reward d (1.2 - 0.2 d) for d = sqrt(KL), and `GAIN` more for SALSA, give or take a replicate's `SPREAD`."""
    start = {"policy": None, "steps": None, "kl_sft": 0.0, "reward": 0.0}
    rows = [start]
    names = {run.name: run for run in grid.frontier}
    for policy in policies(grid.methods, {replicate: grid.replicates[replicate]}):
        if policy.method not in names:
            continue
        run = names[policy.method]
        lift = GAIN + SPREAD * (list(grid.replicates).index(replicate) - 1) if run.method == "salsa" else 0.0
        for steps, share in ((4, 0.5), (None, 1.0)):
            kl = share * (0.3 / run.beta if run.method == "ppo" else 0.4 / run.beta)
            value = kl**0.5 * (1.2 - 0.2 * kl**0.5) + lift
            rows.append({"policy": policy.name, "steps": steps, "kl_sft": kl, "reward": value})
    measured = {"reward_se": 0.05, "gold_se": 0.02, "tokens": 12.0, "samples": 100}
    return [{**row, "reward_held_out": row["reward"] / 2, "gold": row["reward"] / 3, **measured} for row in rows]


def write_policy(results: Path, model: str, run: Policy, questions: int, rng: random.Random, grid: Grid) -> None:
    """Answers, scores, grades and training metrics of one policy."""
    for benchmark in grid.benchmarks if grid.methods[run.method].answers else ():
        rows = [score(rng, q, run.method) for q in range(questions)]
        put(score_file(results, model, run.name, benchmark), rows)
        turn = {"user": "Say <b>hi</b>.", "assistant": f"<script>{run.name}</script> | hi"}
        answers = [{"question_id": str(q), "category": "x", "turns": [turn], "error": None} for q in range(questions)]
        put(generation_file(results, model, run.name, benchmark), answers)
    grades = [
        {**{"question_id": str(q), "category": "x", "turn": t, "policy": run.name, "outcome": "rated"},
         **{"rating": rng.uniform(3, 9), "flags": [], "template": "prompts.jsonl:single-v1"},
         "imitating": False}
        for q in range(8)
        for t in (1, 2)
    ]  # fmt: skip
    if grid.methods[run.method].answers:
        put(grade_file(results, model, run.name, "mt_bench"), grades)
    if run.rl_seed is not None:
        put(training_file(results, model, run.name), [step(rng, n) for n in range(12)])


def score(rng: random.Random, question: int, method: str) -> dict:
    better = {"sft": 0.0, "ppo": 0.5, "salsa": 0.6}[method]
    return {
        **{
            "question_id": str(question),
            "category": "x",
            "turn": 1,
            "reward": rng.gauss(better, 1),
            "reward_held_out": rng.gauss(better / 2, 1),
            "kl_sft": 2 * better,
        },
        **{
            "kl_reference": None if method == "sft" else better,
            "tokens": rng.randint(5, 20),
            "ended": rng.random() < 0.9,
        },
        **{"distinct_1": rng.random(), "distinct_2": rng.random(), "gold": rng.uniform(0.2, 0.6) + better / 2},
    }


def soup(rng: random.Random, alpha: float | None, checkpoint: str) -> dict:
    figures = {
        "reward": rng.gauss(0, 0.1),
        "reward_se": 0.05,
        "sft_loss": 0.6,
        "gold": 0.5,
        "gold_se": 0.02,
        "kl_sft": 0.3,
        "tokens": 12.5,
    }
    return {"alpha": alpha, "checkpoint": checkpoint, **figures, "samples": 100}


def step(rng: random.Random, n: int) -> dict:
    names = (
        "objective",
        "kl_ref_k1",
        "kl_ref_k3",
        "kl_sft_k1",
        "kl_sft_k3",
        "entropy",
        "eos_share",
        "explained_variance",
    )
    return {
        **{"step": n, "episodes": 64 * (n + 1), "reward": n / 10 + rng.gauss(0, 0.1), "length": 12.0},
        **{name: n / 12 + rng.random() / 10 for name in names},
        **{"loss_policy": 0.1, "loss_value": 0.2, "learning_rate": 1e-4, "gold": 0.4 + n / 40},
    }
