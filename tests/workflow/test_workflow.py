"""The workflow: the smoke grid from nothing to tables, interrupted, resumed, repeated; and what it refuses."""

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from dataclasses import replace

import pytest
import yaml

from salsa.runtime.jsonl import read_jsonl
from tests import documented
from tests.workflow.running import ROOT, SLOW, finished_jobs, planned, snakemake, start

CELL = "results/smoke/judgments/llama-mini/mt_bench/salsa_vs_ppo.jsonl"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A finished smoke grid whose run was killed in the middle of training and resumed."""
    folder = tmp_path_factory.mktemp("smoke")
    process = start(folder, "--configfile", str(ROOT / "config/smoke.yaml"))
    deadline = time.monotonic() + 300
    while not (folder / "checkpoints/smoke/base/llama-mini").exists():
        assert time.monotonic() < deadline, "the base model did not appear"
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    time.sleep(4)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    # The killed stage's output is under a name of its own, which begins with a dot: what has its final name is whole.
    stages = ("sft", "soup", "policy")
    made = [path for stage in stages for path in folder.glob(f"checkpoints/smoke/{stage}/llama-mini/[!.]*")]
    assert all((path / "run.json").exists() for path in made), made
    status, said = snakemake(folder)
    assert status == 0, said
    assert "sft" in finished_jobs(said) and "base" not in finished_jobs(said), "finished outputs are not remade"
    return folder, said


def test_token_ids_are_made_once_and_counted(smoke):
    """Six sets that the training jobs read, and two of the alpha line; each job's counts equal the card's."""
    folder, _ = smoke
    card = json.loads((folder / "results/smoke/data/llama-mini.json").read_text())
    assert len(list((folder / "data/prepared").glob("[!.]*"))) == 8
    assert len(card) == 6
    runs = [json.loads(path.read_text()) for path in (folder / "checkpoints").rglob("run.json")]
    counted = {}
    for run in runs:
        counted |= run.get("data", {})
    assert counted == {name: {key: entry[key] for key in counted[name]} for name, entry in card.items()}
    reward = counted["reward.train"]
    assert reward["rows"] == 160 == reward["used"] + reward["empty"] + reward["equal"] + reward["tied"]
    assert "| llama-mini | reward.train |" in (folder / "results/smoke/tables/data.md").read_text()


def test_two_reward_models_share_no_pairs_and_score_all_answers(smoke):
    folder, _ = smoke
    results = folder / "results/smoke"
    ours, other = (json.loads((results / f"reward/llama-mini{name}.json").read_text()) for name in ("", "-held-out"))
    used = json.loads((results / "data/llama-mini.json").read_text())["reward.train"]["used"]
    assert ours["pairs_train"] + other["pairs_train"] == used
    scores = [row for file in (results / "scores").rglob("*.jsonl") for row in read_jsonl(file)]
    assert all(row["reward_held_out"] != row["reward"] for row in scores)
    assert "| llama-mini | held-out |" in (results / "tables/reward_model.md").read_text()


def test_run_ends_with_the_table_and_the_paths(smoke):
    _, said = smoke
    assert "undecided     SALSA earns more reward than PPO" in said
    assert "Of 8 claims" in said
    assert "Adjusted win rate of salsa against ppo, judged by gold-judge (gold judge)" in said
    for benchmark in ("mt_bench", "arena_hard", "ultrafeedback"):
        assert f"llama-mini  {benchmark}" in said
    assert "results/smoke/report.html" in said


def test_second_run_only_prints_the_table(smoke):
    folder, _ = smoke
    before = {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*") if path.is_file()}
    status, said = snakemake(folder)
    assert status == 0
    assert not finished_jobs(said) and "\n1 job in " in said
    assert "Adjusted win rate" in said
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*") if path.is_file()}


def test_two_runs_of_a_grid_exclude_each_other(tmp_path):
    """Three real runs in one folder: a second run of the same grid ends, one of another grid works. A killed run leaves
    no lock.
    """
    other = yaml.safe_load((ROOT / "config/smoke.yaml").read_text()) | {"grid": "other"}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    base = "checkpoints/{}/base/llama-mini"
    first = start(tmp_path, base.format("smoke"), "--configfile", str(ROOT / "config/smoke.yaml"))
    lock = tmp_path / ".snakemake/smoke.lock"
    deadline = time.monotonic() + 60
    while not (lock.exists() and lock.read_text().endswith("\n")):
        assert first.poll() is None and time.monotonic() < deadline, "the first run did not start"
        time.sleep(0.05)
    # The first run renames its temporary files meanwhile.
    made = [path for path in tmp_path.rglob("*") if not path.name.endswith(".tmp")]
    status, said = snakemake(tmp_path, base.format("smoke"))
    assert status != 0 and "Traceback" not in said
    [line] = [line for line in said.splitlines() if "error:" in line]
    who = f"process {first.pid} on {socket.gethostname()}"
    assert line == f"error: results/smoke: another run of this grid is active here ({who}): wait until it ends"
    assert set(made) <= set(tmp_path.rglob("*")), "no file was removed"
    assert first.poll() is None, "the first run is still working"
    status, said = snakemake(tmp_path, "data/other/world", config=(tmp_path / "other.yaml",))
    assert status == 0, said
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    status, said = snakemake(tmp_path, "data/smoke/world")
    assert status == 0, said


def test_terminal_shows_bars(tmp_path, monkeypatch):
    terminal, end = os.openpty()
    termios.tcsetwinsize(end, (24, 70))
    monkeypatch.setenv("TERM", "xterm")
    process = start(tmp_path, "data/smoke/world", "--configfile", str(ROOT / "config/smoke.yaml"), output=end)
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # the process has closed its end
        while part := os.read(terminal, 65536):
            shown += part
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    lines = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown.decode()).splitlines()
    assert any(re.match("world +━+ +0/1 +0:0", line) for line in lines)
    assert any(re.match("total +━+ +0/1 +0:0. .* left", line) for line in lines), "the plan gives the time left"
    assert any(re.match("total +━+ +1/1", line) for line in lines) and re.match(r"1 job in 0:0\d", lines[-1])
    assert max(map(len, lines[1:])) <= 70, "the first line is Snakemake's, on its profile"


def test_interrupted_run_says_how_to_resume(tmp_path):
    process = start(tmp_path, "checkpoints/smoke/base/llama-mini", "--configfile", str(ROOT / "config/smoke.yaml"))
    deadline = time.monotonic() + 60
    while not (tmp_path / "logs/smoke/base/llama-mini.log").exists():
        assert process.poll() is None and time.monotonic() < deadline, "the job did not start"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert re.search(r"^Interrupted: \d+ of \d+ jobs are done\. Rerun the same command to resume\.$", said, re.M), said
    assert "TypeError" not in said


def test_misspelt_cell_ends_with_the_nearest_names(tmp_path):
    status, said = snakemake(tmp_path, CELL.replace("mt_bench", "mtbench"), "--dry-run")
    assert status != 0 and "Traceback" not in said
    [line] = [line for line in said.splitlines() if "error:" in line]
    assert line.startswith(
        f"error: {CELL.replace('mt_bench', 'mtbench')}: this grid (smoke) makes no such file: did you"
    )
    assert f"mean {CELL}" in line


def test_two_runs_give_equal_tables_figures_and_report(smoke, tmp_path):
    """The second run takes over base and SFT models alone, which other tests make twice."""
    folder, _ = smoke
    for made in ("data", "checkpoints/smoke/base", "checkpoints/smoke/sft"):
        shutil.copytree(folder / made, tmp_path / made, symlinks=True)
    status, said = snakemake(tmp_path, "--rerun-triggers", "mtime")
    assert status == 0, said
    made = [*(folder / "results/smoke").glob("tables/*.*"), *(folder / "results/smoke").glob("figures/*.*")]
    made = [path for path in [*made, folder / "results/smoke/report.html"] if not path.name.endswith("run.json")]
    assert len(made) > 25
    for path in made:
        assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name


def test_cell_is_rerun_by_its_path_without_new_calls(smoke):
    folder, _ = smoke
    before = (folder / CELL).read_bytes()
    (folder / CELL).unlink()
    status, said = snakemake(folder, CELL)
    assert status == 0
    assert sum(finished_jobs(said).values()) == 1
    assert (folder / CELL).read_bytes() == before
    assert json.loads((folder / CELL).with_suffix(".run.json").read_text())["calls"] == 0


def test_policy_by_hand_equals_the_workflows(smoke, tmp_path):
    folder, _ = smoke
    command = [sys.executable, "-m", "salsa", "align", "--config", str(ROOT / "config/smoke.yaml"), "--method", "salsa"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--out", str(tmp_path / "hand")], cwd=folder, env=environment, check=True, timeout=SLOW)
    made = folder / "checkpoints/smoke/policy/llama-mini/salsa-s1"
    assert (tmp_path / "hand/model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
    by_hand, by_rule = (json.loads((path / "run.json").read_text()) for path in (tmp_path / "hand", made))
    assert by_hand["id"] == by_rule["id"]
    metrics = folder / "results/smoke/training/llama-mini/salsa-s1.jsonl"
    assert (tmp_path / "hand.jsonl").read_bytes() == metrics.read_bytes()


@pytest.mark.parametrize(
    "block",
    [block for page in documented.PAGES for block in documented.blocks(page) if block.of_a_grid and not block.needs],
    ids=lambda block: f"{block.page}:{block.line}",
)
def test_docs_commands_on_a_finished_grid_run(block, smoke, tmp_path):
    """Like tests/test_docs.py for the others. The docs name the mini grid; this one has one unnamed replicate."""
    for name in ("checkpoints", "data", "results"):
        shutil.copytree(smoke[0] / name, tmp_path / name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    text = re.sub(r"(?<=[/ ])mini(?=[/.\s])", "smoke", block.text).replace("8123", port)
    text = re.sub(r"-r1(?=[-. ])", "", text)
    documented.run(replace(block, text=text), documented.checkout(tmp_path))


ENDS = {"tables", "figures", "report", "all"}
JUDGED = {"judge", "grade"}
ANSWERED = {"generate", "score", *JUDGED}
ALIGNED = {"align", "frontier", *ANSWERED}
SOUPED = {"soup", "alpha", *ALIGNED}
TUNED = {"sft", "reward", *SOUPED}
DPO_DATA = {"path": "data/smoke/world/prefs_train.jsonl", "limit": 50}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"world": {"preference_temperature": 0.2}}, {"world", "base", "data", "overlap", *TUNED}),
        ({"base": {"learning_rate": 1e-4}}, {"base", "data", *TUNED}),
        ({"models": {"llama-mini": {"settings": {"generate": {"batch_size": 7}}}}}, ANSWERED),
        ({"sft": {"learning_rate": 1e-4}}, TUNED),
        ({"sft": {"test": {"limit": 5}}}, {"data", *TUNED}),
        ({"soup": {"shard_size": "3GB"}}, SOUPED),
        ({"reward": {"learning_rate": 1e-4}}, {"reward", "alpha", *ALIGNED}),
        ({"ppo": {"beta": 0.11}}, ALIGNED),
        ({"ppo": {"max_prompt_length": 150}}, {"data", "overlap", *ALIGNED}),
        ({"dpo": {"train": DPO_DATA}}, set()),
        ({"methods": {"salsa": {"settings": {"steps": 3}}}}, ALIGNED),
        ({"benchmarks": {"mt_bench": {"max_new_tokens": 9}}}, {"overlap", *ANSWERED}),
        ({"benchmarks": {"mt_bench": {"references": "data/smoke/world/prefs_test.jsonl"}}}, JUDGED),
        ({"benchmarks": {"arena_hard": {"grade": True}}}, {"grade"}),
        ({"generate": {"batch_size": 7}}, ANSWERED),
        ({"score": {"batch_size": 7}}, {"score"}),
        ({"alpha": {"samples": 5}}, {"alpha", "frontier"}),
        ({"judge": {"noise": 0.3}}, JUDGED),
        ({"judge": {"temperature": None}}, JUDGED),
        ({"comparisons": {"again": {"a": "salsa", "b": "sft"}}}, {"judge"}),
        ({"tables": {"confidence": 0.9}}, set()),
        ({"paths": {"ledger": "elsewhere"}}, JUDGED),
    ],
    ids=lambda value: json.dumps(value)[1:-1] if isinstance(value, dict) else "",
)
def test_change_reruns_the_stages_that_use_it_and_what_follows(change, expected, smoke, tmp_path):
    (tmp_path / "change.yaml").write_text(yaml.safe_dump(change))
    config = ("config/smoke.yaml", tmp_path / "change.yaml")
    jobs = planned(*snakemake(smoke[0], "--dry-run", "--quiet", "rules", config=config))
    assert jobs.keys() - {"total"} == (expected | ENDS if "dpo" not in change else {"all"})


def test_log_begins_with_a_command_that_can_be_copied(smoke, tmp_path):
    """It runs in the same folder and gives the same weights."""
    folder, _ = smoke
    log = (folder / "logs/smoke/sft/llama-mini/1.log").read_text()
    first = log.splitlines()[0]
    assert len(first) < 300 and "{" not in first
    command = first[first.index("python -m salsa sft") :]
    assert "--settings results/smoke/settings/llama-mini/sft.yaml" in command
    words = shlex.split(command.replace("checkpoints/smoke/sft/llama-mini/1", str(tmp_path / "again")))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *words[1:]], cwd=folder, env=environment, check=True, timeout=SLOW)
    weights = folder / "checkpoints/smoke/sft/llama-mini/1/model.safetensors"
    assert (tmp_path / "again/model.safetensors").read_bytes() == weights.read_bytes()


def test_commands_name_the_runs_random_draws(smoke):
    """Runs of other models and replicates draw independently. These stages draw at random for a model."""
    folder, _ = smoke
    for stage in ("sft", "reward", "align", "alpha", "frontier", "generate"):
        logs = sorted((folder / f"logs/smoke/{stage}").rglob("*.log"))
        commands = [log.read_text().splitlines()[0] for log in logs]
        assert commands and all(re.search(" --run llama-mini(-held-out)? ", text) for text in commands), stage


def test_report_rebuilds_everything_from_stored_results(smoke, tmp_path):
    """`salsa report` runs neither Snakemake nor a model, and gives the same bytes."""
    folder, _ = smoke
    for name in ("checkpoints", "data", "results"):
        shutil.copytree(folder / name, tmp_path / name, symlinks=True)
    for name in ("tables", "figures"):
        shutil.rmtree(tmp_path / "results/smoke" / name)
    script = "from eval.commands.main import main; main()"
    command = [sys.executable, "-c", script, "report", "--config", str(ROOT / "config/smoke.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "Adjusted win rate of salsa against ppo" in done.stdout
    kinds = (".csv", ".html", ".md", ".png", ".svg", ".tex")
    made = [path for path in (folder / "results/smoke").rglob("*") if path.suffix in kinds]
    assert len(made) > 25
    for path in made:
        assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name


@pytest.mark.parametrize(("arguments", "limit"), [((), "None"), (("--max-jobs-per-timespan", "50/1s"), "50")])
def test_only_a_limit_of_your_own_limits_how_many_jobs_start(arguments, limit, tmp_path):
    # Into a file: on the terminal it would mix with lines that Snakemake's logger writes meanwhile.
    limiter = 'getattr(workflow.scheduler.job_rate_limiter, "max_jobs", None)'
    report = f'print({limiter}, file=open("{tmp_path / "limit"}", "w"))'
    (tmp_path / "Snakefile").write_text(f'include: "{ROOT / "Snakefile"}"\nonsuccess:\n    {report}\n')
    (tmp_path / "environment.yml").symlink_to(ROOT / "environment.yml")
    own = ("--snakefile", str(tmp_path / "Snakefile"))
    status, said = snakemake(tmp_path, "data/smoke/world", *own, *arguments)
    assert status == 0, said
    assert (tmp_path / "limit").read_text() == f"{limit}\n"


def test_report_names_runs_and_shows_the_judge_texts(smoke):
    folder, _ = smoke
    page = (folder / "results/smoke/report.html").read_text()
    data = json.loads(re.search('<script type="application/json" id="data">(.*?)</script>', page)[1])
    for pair in data["pairs"]:
        for side in "ab":
            policy = folder / "checkpoints/smoke/policy" / pair["model"] / pair["policies"][side]
            if policy.exists():  # SFT is no policy of its own
                assert pair["runs"][side] == json.loads((policy / "run.json").read_text())["id"]
                assert f"<td>{pair['policies'][side]}</td><td>{pair['runs'][side]}</td>" in page
    assert len(data["samples"]) > 10
    assert all(sample["run"] for sample in data["samples"])
    games = [game for sample in data["samples"] for game in sample["games"]]
    assert games and all("[[" in data["texts"][game["text"]] for game in games), "the judge's verdict"


def test_models_share_the_points_of_alpha(tmp_path):
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    config["models"]["llama-mini"]["settings"] = {"alpha": {"points": [0, 1]}}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    status, said = snakemake(tmp_path, "-n", config=(tmp_path / "two.yaml",))
    assert status != 0
    assert "models.llama-mini.settings: alpha.points is the same for all models: set it in the section" in said


def test_fresh_clone_with_committed_tables_runs_everything(smoke, tmp_path):
    """Git holds the tables of one run; with only those, everything is still missing."""
    folder, _ = smoke
    for name in ("tables", "figures"):
        shutil.copytree(folder / "results/smoke" / name, tmp_path / "results/smoke" / name)
        (tmp_path / "results/smoke" / name / "run.json").unlink()
    shutil.copy(folder / "results/smoke/report.html", tmp_path / "results/smoke/report.html")
    status, said = snakemake(tmp_path, "--dry-run", "--quiet", "rules")
    assert status == 0
    assert {"base", "align", "judge", "tables"} <= {line.split()[0] for line in said.splitlines() if line.split()}


def test_snakemake_report_contains_tables_figures_and_page(smoke, tmp_path):
    folder, _ = smoke
    status, said = snakemake(folder, "--report", str(tmp_path / "report.html"))
    assert status == 0, said
    page = (tmp_path / "report.html").read_text()
    for shown in (
        "headline.csv",
        "win_rates.svg",
        "improvements.svg",
        "soup.svg",
        "training.svg",
        "reward_kl.svg",
        "report.html",
    ):
        assert shown in page


def test_copy_without_file_times_reruns_nothing(smoke, tmp_path):
    """`cp -r` gives files the time of the copy, in any order."""
    copy = shutil.copytree(smoke[0], tmp_path / "copy", symlinks=True)
    files = sorted(path for path in copy.rglob("*") if not path.is_symlink())
    random.Random(3).shuffle(files)
    for second, path in enumerate(files):
        os.utime(path, (time.time() + second,) * 2)
    status, said = snakemake(copy, "--dry-run", "--quiet", "rules")
    assert status == 0, said
    assert {line.split()[0] for line in said.splitlines() if re.search(r" \d+$", line)} == {"all", "total"}, said


def test_stages_that_import_torch_are_forked(smoke):
    log = (smoke[0] / "logs/smoke/fork_server.log").read_text().split("\n")
    training, measuring = ("align", "reward", "sft"), ("alpha", "frontier", "generate", "score")
    expected = {*(f"forked: salsa {stage}" for stage in training), *(f"forked: eval {stage}" for stage in measuring)}
    assert {*log} == expected | {""}


def test_jobs_use_one_thread_and_record_their_inputs(smoke):
    folder, _ = smoke
    runs = {path: json.loads(path.read_text()) for path in (folder / "checkpoints").rglob("run.json")}
    assert len(runs) > 6
    assert {run.get("threads", 1) for run in runs.values()} == {1}
    salsa = json.loads((folder / "checkpoints/smoke/policy/llama-mini/salsa-s1/run.json").read_text())
    soup = json.loads((folder / "checkpoints/smoke/soup/llama-mini/sft-1@0.5+sft-2@0.5/run.json").read_text())
    assert salsa["inputs"]["reference_1"]["id"] == f"run:{soup['id']}"
    tables = json.loads((folder / "results/smoke/tables/run.json").read_text())
    cell = json.loads((folder / CELL).with_suffix(".run.json").read_text())
    assert tables["inputs"]["judgments/llama-mini/mt_bench/salsa_vs_ppo.jsonl"]["id"] == f"run:{cell['id']}"


def test_calibration_is_part_of_the_report(smoke, tmp_path):
    """The grid's own ledger as the archive: the same judge gives the same verdicts without new calls."""
    folder, _ = smoke
    shutil.copytree(folder / "results/smoke/ledger", tmp_path / "archive")
    config = {"calibration": {"archive": str(tmp_path / "archive"), "items": 5}}
    (tmp_path / "archive.yaml").write_text(yaml.safe_dump(config))
    before = (folder / "results/smoke/report.html").read_text()
    status, said = snakemake(folder, config=("config/smoke.yaml", tmp_path / "archive.yaml"))
    assert status == 0, said
    assert finished_jobs(said) == {"calibrate": 1, "report": 1} and "\n3 jobs in " in said, "and the table at the end"
    card = json.loads((folder / "results/smoke/calibration.json").read_text())
    assert card["calls"] == 0
    assert {(cell["benchmark"], cell["items"]) for cell in card["cells"] if cell["protocol"] == "mt_bench_pair"} == {
        ("mt_bench", 10),
        ("ultrafeedback", 10),
    }
    for cell in card["cells"]:
        agreed = "within_one" if cell["protocol"] == "mt_bench_single" else "agreement"
        assert cell["figures"][agreed]["estimate"] == 1
    page = (folder / "results/smoke/report.html").read_text()
    assert "was not compared with archived verdicts" in before
    assert "judged the prompts of an archive again" in page
    assert "<td>agreement</td><td>1.000 [" in page


def test_published_file_is_imported_and_judged_again(smoke, tmp_path):
    """Verdicts of a judge with a strong position bias; the archive is a separate ledger."""
    folder, _ = smoke
    world = {"published_judge": {"kind": "gold", "model": "retired-judge", "position_bias": 0.5, "noise": 0.1}}
    files = {"retired": {"format": "fastchat_pair", "path": "data/smoke/published_pair.jsonl"}}
    config = {"world": world, "calibration": {"archive": str(tmp_path / "new"), "files": files}}
    (tmp_path / "published.yaml").write_text(yaml.safe_dump(config))
    status, said = snakemake(folder, config=("config/smoke.yaml", tmp_path / "published.yaml"))
    assert status == 0, said
    assert finished_jobs(said) == dict.fromkeys(("published", "archive", "calibrate", "report"), 1), "the world is kept"
    assert "kept      32: 32 with a verdict" in (folder / "results/smoke/archive/retired.txt").read_text()
    [cell] = json.loads((folder / "results/smoke/calibration.json").read_text())["cells"]
    assert (cell["archive_judge"], cell["items"]) == ("retired-judge", 32)
    figures = {name: figure["estimate"] for name, figure in cell["figures"].items()}
    assert figures["archive_first_place"] > 0.8 > figures["first_place"]
    assert figures["archive_swap_consistency"] < figures["swap_consistency"]
    assert "archive retired-judge" in (folder / "results/smoke/report.html").read_text()


def test_real_questions_go_through_generation_judging_and_tables(smoke, shared_data, tmp_path):
    """The smoke grid's policies answer MT-Bench and Arena-Hard, all in one job; nothing is trained again."""
    folder = shutil.copytree(smoke[0], tmp_path / "copy", symlinks=True)
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text()) | {"policies_together": True}
    mt, arena = shared_data / "mt_bench", shared_data / "arena_hard"
    config["benchmarks"]["mt_bench"] |= {
        "questions": {"path": str(mt / "question.jsonl"), "limit": 12},
        "references": str(mt / "reference_gpt-4.jsonl"),
        "judge_prompts": str(mt / "judge_prompts.jsonl"),
    }
    config["benchmarks"]["arena_hard"]["questions"] = {"path": str(arena / "question.v0.1.orig.jsonl"), "limit": 12}
    (tmp_path / "real.yaml").write_text(yaml.safe_dump(config))
    status, said = snakemake(folder, "tables", config=(tmp_path / "real.yaml",))
    assert status == 0, said
    finished = finished_jobs(said)
    assert finished["generate"] == finished["score"] == finished["tables"] == 1
    assert not finished.keys() & {"base", "sft", "soup", "reward", "align", "alpha"}
    rows = [json.loads(line) for line in (folder / CELL).read_text().splitlines()]
    assert len(rows) == 24
    assert len({row["question_id"] for row in rows}) == 12


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ppo": {"betta": 1}}, "ppo.betta: unknown key: remove it or correct its spelling"),
        (
            {"methods": {"salsa": {"reference": "stf-2"}}},
            "methods.salsa.reference: stf-2: name an SFT seed (sft-1), base, or a soup",
        ),
        ({"methods": {"salsa": {"reference": {"soup": {"sft-1": 0.9}}}}}, "soup weights sum to 1.4, not 1"),
    ],
)
def test_mistake_in_the_config_is_one_line(change, expected, tmp_path):
    (tmp_path / "change.yaml").write_text(yaml.safe_dump(change))
    status, said = snakemake(tmp_path, "--dry-run", config=("config/smoke.yaml", tmp_path / "change.yaml"))
    assert status != 0
    [line] = [line for line in said.splitlines() if line.startswith("error:")]
    assert expected in line
    assert "change.yaml" in line
    assert "Traceback" not in said
