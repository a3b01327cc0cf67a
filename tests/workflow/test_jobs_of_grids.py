"""Which jobs each grid has, by dry runs. The plan counts the same."""

import time
from collections import Counter
from pathlib import Path

import pytest

from eval.costs.assumed import assumed
from eval.planning.grid_plan import Plan
from salsa.config.config import load_config
from tests.workflow.running import ROOT, planned, snakemake

CONFIG = ROOT / "config"


def counted_by_plan(*config: Path) -> dict[str, str]:
    """Number of jobs by rule according to salsa plan, like `planned` for Snakemake."""
    runs = Plan.of(load_config(*config), assumed().devices["h100"], 8).runs.values()
    jobs = Counter(run.job.rule for run in runs)
    return {rule: str(number) for rule, number in (jobs | {"total": len(runs)}).items()}


def dry_run(folder: Path, *config: Path) -> tuple[dict[str, str], str]:
    """Jobs by rule, and the commands. The plan must count the same jobs."""
    status, said = snakemake(folder, "--dry-run", "--printshellcmds", config=config)
    jobs, counted = planned(status, said), counted_by_plan(*config)
    assert {rule: jobs.get(rule) for rule in counted} == counted
    return jobs, said


def over_smoke(folder: Path, changes: str) -> tuple[Path, Path]:
    """The smoke grid's config and one with these changes."""
    path = folder / "changes.yaml"
    path.write_text(changes)
    return CONFIG / "smoke.yaml", path


def test_policies_together_share_the_jobs_of_answers_and_scores(tmp_path):
    path = tmp_path / "together.yaml"
    path.write_text("policies_together: true")
    jobs, _ = dry_run(tmp_path, CONFIG / "mini.yaml", path)
    assert (jobs["generate"], jobs["score"]) == ("9", "9"), "one job per model and replicate"


def test_runs_of_the_frontier_are_judged_against_a_method(tmp_path):
    jobs, _ = dry_run(tmp_path, *over_smoke(tmp_path, "frontier: {against: sft}"))
    benchmarks, runs, others = 3, 4, 1  # comparisons: of each run with SFT 1, and of SALSA with PPO
    assert (int(jobs["generate"]), int(jobs["judge"])) == (runs + 1, benchmarks * (runs + others))


@pytest.mark.parametrize("grid", ["paper", "smollm2"])
def test_plan_counts_the_jobs_of_hub_grids(grid, tmp_path):
    dry_run(tmp_path, CONFIG / f"{grid}.yaml")


def test_ten_replicates_have_the_settings_of_the_mini_grid():
    names = (CONFIG / "mini.yaml", CONFIG / "replicated.yaml")
    mini, replicated = load_config(names[0]), load_config(*names)
    replicated.benchmarks["mt_bench"].grade = True
    sections = ("world", "base", "models", "sft", "reward", "ppo", "benchmarks", "generate", "score", "judge", "seed")
    assert all(getattr(mini, section) == getattr(replicated, section) for section in sections)
    assert all(replicated.methods[name] == method for name, method in mini.methods.items())
    jobs = counted_by_plan(*names)
    assert (jobs["sft"], jobs["align"], jobs["score"]) == ("60", "330", "30")


def test_other_algorithms_soups_and_averages_have_ten_replicates():
    """PPO at three betas and eight other RL methods, WARP's four runs, and DPO twice; in 30 pairs of SFT models."""
    jobs = counted_by_plan(CONFIG / "mini.yaml", CONFIG / "beyond.yaml")
    assert (jobs["align"], jobs["warp"], jobs["dpo"]) == (str(30 * (3 + 8 + 4)), "30", "60")


@pytest.mark.parametrize(("grid", "dpo", "ppo"), [("smoke", 3, 18), ("mini", 27, 144), ("paper", 27, 144)])
def test_ablations_merge_over_each_grid(grid, dpo, ppo, tmp_path):
    names = (CONFIG / f"{grid}.yaml", CONFIG / "ablations.yaml")
    # In the mini grid they are the jobs of the paper's.
    jobs = counted_by_plan(*names) if grid == "mini" else dry_run(tmp_path, *names)[0]
    assert (int(jobs["dpo"]), int(jobs["align"])) == (dpo, ppo)
    assert int(jobs["perturb"]) == (1 if grid == "smoke" else 9)


AVERAGES = """
methods:
  on-arc: {algorithm: rloo, init: sft-1, reference: {slerp: {sft-1: 0.5, sft-2: 0.5}}}
  drawn-back: {algorithm: ppo, init: {slerp: {sft-1: 0.3, sft-2: 0.3, base: 0.4}}, reference: base}
  half-tuned: {algorithm: none, init: {soup: {base: 0.5, sft-1: 0.5}}}
  chosen: {algorithm: none, init: {greedy: [sft-2, sft-1]}}
comparisons: {on_arc_vs_drawn_back: {a: on-arc, b: drawn-back}, half_tuned_vs_ppo: {a: half-tuned, b: ppo}}
"""


def test_averages_on_an_arc_and_with_the_base(tmp_path):
    jobs, _ = dry_run(tmp_path, *over_smoke(tmp_path, AVERAGES))
    assert (jobs["slerp"], jobs["sft"], jobs["soup"], jobs["greedy"]) == ("2", "2", "2", "1")


WARP = """
methods:
  warp:
    {algorithm: rloo, init: sft-1, reference: {ema: {of: sft-1}}, warp: {rounds: 3, runs: 2, eta: 0.4, last_eta: 0.5}}
comparisons: {warp_vs_ppo: {a: warp, b: ppo}}
"""


def test_warp_is_rounds_of_runs_and_averages(tmp_path):
    """Each run starts where its round does, and has random draws of its own."""
    jobs, said = dry_run(tmp_path, *over_smoke(tmp_path, WARP))
    assert (jobs["warp"], jobs["warp_start"], jobs["align"]) == ("1", "2", "10")
    [last] = [line for line in said.splitlines() if "--out checkpoints/smoke/policy/llama-mini/warp.3.2-s1 " in line]
    root = "checkpoints/smoke"
    start = f"{root}/warp/llama-mini/warp-s1/start-3"
    assert f"--init {start} --reference {start} " in last and "--run llama-mini.3.2 " in last
    [policy] = [line for line in said.splitlines() if " salsa warp " in line]
    for run in ("3.1", "3.2"):
        assert f"--ingredient={root}/policy/llama-mini/warp.{run}-s1=0.25 " in policy
    assert f"--ingredient={start}=0.5 --slerp-from {start} " in policy
    assert "training/llama-mini/warp.1.1-s1.jsonl" in policy and policy.count(".jsonl") == 7


COMBINED = """
replicates:
  r1: {sft: {sft-1: 1, sft-2: 2}}
  r2: {sft: {sft-1: 3, sft-2: 4}, reward_seed: 7}
methods:
  warm: {algorithm: ppo, init: sft-1, reference: sft-1, reward: {models: 3, combine: weights}}
  careful: {algorithm: rloo, init: sft-1, reference: sft-1, reward: {models: 2, combine: min}}
comparisons: {warm_vs_careful: {a: warm, b: careful}}
"""


def test_reward_models_are_combined_in_each_replicate(tmp_path):
    """Their numbers, seeds and starts are those of the replicate's reward model."""
    jobs, said = dry_run(tmp_path, *over_smoke(tmp_path, COMBINED))
    assert (jobs["reward"], jobs["combine"]) == ("7", "4"), "three for each replicate, and the held-out one"
    models = "checkpoints/smoke/reward/llama-mini"
    [warm] = [line for line in said.splitlines() if f"--out {models}-r2.weights-3 " in line]
    assert (
        f"--reward {models}-r2 {models}-r2.2 {models}-r2.3 --by weights --sft checkpoints/smoke/sft/llama-mini/3"
        in warm
    )
    assert "--reward-seed=7 --run llama-mini-r2 " in warm
    [third] = [line for line in said.splitlines() if f"--out {models}-r2.3 " in line]
    assert "--reward-seed=7 --order=3 --run llama-mini-r2 " in third
    [careful] = [line for line in said.splitlines() if "policy/llama-mini/careful-r1-s1 " in line and "align" in line]
    assert f"--reward {models}.min-2 " in careful


def test_full_grid_is_planned_in_five_seconds(tmp_path):
    began = time.monotonic()
    status, said = snakemake(tmp_path, "--dry-run", "--quiet", "rules", config=("config/paper.yaml",))
    assert status == 0, said
    assert time.monotonic() - began < 5
    assert "align" in said
