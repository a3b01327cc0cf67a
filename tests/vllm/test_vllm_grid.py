"""The whole smoke grid with vLLM as its engine: PPO rollouts, and answers to the benchmarks."""

import json

import yaml

from salsa.runtime.jsonl import read_jsonl
from tests.workflow.running import ROOT, finished_jobs, snakemake


def test_smoke_grid(tmp_path, python):
    """The engine starts once for all policies; answers equal those of transformers."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    config |= {"generate": {"engine": "vllm"}, "policies_together": True}
    config["ppo"]["rollout"] = "vllm"
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(config))
    status, said = snakemake(tmp_path, config=(tmp_path / "smoke.yaml",))
    assert status == 0, said
    assert finished_jobs(said)["generate"] == 1
    results = tmp_path / "results/smoke"
    for method in ("ppo", "salsa"):
        for step in read_jsonl(results / f"training/llama-mini/{method}-s1.jsonl"):
            assert 0 < step["sampler_gap"] < 1e-4
    policies = {"sft": "sft/llama-mini/1", "salsa-s1": "policy/llama-mini/salsa-s1"}
    arguments = [f"--policy={name}={tmp_path}/checkpoints/smoke/{folder}" for name, folder in policies.items()]
    benchmarks = {name: config["benchmarks"][name] for name in ("arena_hard", "ultrafeedback")}
    for benchmark in benchmarks.values():
        benchmark["questions"]["path"] = str(tmp_path / benchmark["questions"]["path"])
    arguments += ["--benchmarks", json.dumps(benchmarks), "--seed", 1]
    for engine in ("transformers", "vllm"):
        settings = json.dumps({"engine": engine})
        python("-m", "eval", "generate", *arguments, "--settings", settings, "--out", tmp_path / engine)
    for file in (f"{policy}/{benchmark}.jsonl" for policy in policies for benchmark in benchmarks):
        assert read_jsonl(tmp_path / "vllm" / file) == read_jsonl(tmp_path / "transformers" / file), file
    assert "salsa" in (results / "tables/win_rates.md").read_text()
