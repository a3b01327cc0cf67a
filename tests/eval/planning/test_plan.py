"""Plans, compared with measured runs, with Snakemake and with known schedules."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from eval.costs import memory
from eval.costs.assumed import assumed
from eval.costs.memory import Memory
from eval.costs.training_costs import VLLM_ASLEEP
from eval.costs.work import CHECKPOINTED, FORWARD, Cost, Decoding, Passes, Waiting
from eval.figures.gantt import HOUR, Bar, devices_in_use, save_gantt
from eval.planning.formats import duration, size
from eval.planning.frozen_models import frozen_lines
from eval.planning.grid_plan import Plan
from eval.planning.jobs import Job
from eval.planning.judge_calls import judge_prices
from eval.planning.plan import cut_lines, format_plan
from eval.planning.schedule import Run, Span, critical_path, ends, place, spans
from salsa.__main__ import COMMANDS
from salsa.config.config import all_replicates, load_config
from salsa.runtime.command import main
from salsa.runtime.jsonl import write_jsonl
from tests.eval.costs.test_work import GPU, transformers_model

ROOT = Path(__file__).parents[3]
MEASURED = json.loads((Path(__file__).parent / "measured_runs.json").read_text())
OFF = 1.5  # how far a plan may be from what was measured


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder without files."""
    monkeypatch.chdir(tmp_path)


def plan_of(*names: str, device: str = "h100", count: int = 8) -> Plan:
    return Plan.of(load_config(*(ROOT / f"config/{name}.yaml" for name in names)), assumed().devices[device], count)


def job(name: str, seconds: float, *needs: str, sharded: float = 0, spreads: bool = False) -> Job:
    memory = Memory.of(sharded * 1e9, 1e9)
    return Job("rule", name, None, needs, Cost(work=(Waiting(seconds),), memory=memory, spreads=spreads))


def test_job_gets_the_fewest_devices_that_fit():
    assert [place(job("a", 8, sharded=gb, spreads=True), GPU).count for gb in (1, 8, 9, 20, 60)] == [1, 1, 2, 4, 8]
    alone = place(job("a", 8, sharded=20), GPU)
    assert (alone.count, alone.fits, alone.memory) == (1, False, 21e9), "this stage cannot use several devices"
    free = place(Job("rule", "b", None, (), Cost(work=(Waiting(3),))), GPU)
    assert (free.count, free.device_seconds, free.seconds) == (0, 0, 3)


def wall_seconds_of(runs: dict[str, Run], devices: int) -> float:
    return max(ends(runs, devices).values())


@pytest.mark.parametrize(("devices", "seconds"), [(1, 18), (2, 11), (3, 10), (9, 10)])
def test_wall_time_of_a_small_grid(devices, seconds):
    """By hand: a (4) before b (2) and c (6); d (5) and e (1) are independent."""
    jobs = [job("a", 4), job("b", 2, "a"), job("c", 6, "a"), job("d", 5), job("e", 1)]
    assert wall_seconds_of({one.name: place(one, GPU) for one in jobs}, devices) == seconds


def test_critical_path_of_a_small_grid(tmp_path):
    """By hand: c waits for a, and then for d's device. The picture frames the path and shows the devices in use."""
    jobs = [job("a", 4), job("b", 2, "a"), job("c", 6, "a"), job("d", 5), job("e", 1)]
    runs = {one.name: place(one, GPU) for one in jobs}
    when = spans(runs, 2)
    assert (when["a"], when["d"], when["c"].begin) == (Span(0, 4, 1), Span(0, 5, 1), 5)
    assert critical_path(runs, when) == ["a", "c"]
    bars = [Bar("m", name, span.begin, span.end, span.devices, name in "ac") for name, span in when.items()]
    times, used = devices_in_use(bars)
    assert [time * HOUR for time in times] == [0, 4, 5, 6, 7, 11] and used == [2, 2, 2, 2, 1, 0]
    save_gantt(bars, 2, "a grid", tmp_path / "gantt.svg")
    assert "<svg" in (tmp_path / "gantt.svg").read_text()


def test_job_with_too_few_devices_takes_proportionally_longer():
    wide = Run(job("a", 6), 4, 6.0, 1e9, True)
    assert wall_seconds_of({"a": wide}, 2) == 12
    assert wall_seconds_of({"a": wide, "b": replace(wide, job=job("b", 6))}, 8) == 6


def real_small(folder: Path) -> Path:
    """config/smollm2.yaml as tests/real runs it, with files of the same numbers of rows and bytes."""
    from tests.real import test_real

    rows = MEASURED["real"]["rows"]
    for name, (count, length) in rows["files"].items():
        user, said = {"role": "user", "content": "x" * length[0]}, "y" * length[1]
        one = {
            "prompt": user["content"],
            "prompt_id": "p",
            "messages": [user, {"role": "assistant", "content": said}],
            "chosen": [user, {"role": "assistant", "content": said}],
            "rejected": [user, {"role": "assistant", "content": said[1:]}],
        }
        (folder / "real_small").mkdir(exist_ok=True)
        write_jsonl(folder / f"real_small/{name}.jsonl", [{**one, "prompt_id": f"p{i}"} for i in range(count)])
    question = {"category": "writing", "turns": ["x" * rows["mt_bench"][1], ""]}
    (folder / "mt_bench").mkdir()
    questions = [{**question, "question_id": i} for i in range(rows["mt_bench"][0])]
    write_jsonl(folder / "mt_bench/question.jsonl", questions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_real, "DATA", folder)
        patch.setattr(test_real, "MODEL", folder / "model")
        found = test_real.config(folder, "http://127.0.0.1:1/v1")
    _, _, config = transformers_model(assumed().models["HuggingFaceTB/SmolLM2-135M"], "llama")
    config.save_pretrained(folder / "model")
    (folder / "config.yaml").write_text(yaml.safe_dump(found))
    return folder / "config.yaml"


def gemma_2b(folder: Path) -> Path:
    """Config, rows and base checkpoint of benchmarks/shape_grid.py, without weights."""
    from benchmarks import random_model, shape_grid

    random_model.write_rows(folder / "rows", 64, 1024)
    random_model.config_of("google/gemma-2b").save_pretrained(folder / "base")
    (folder / "config.yaml").write_text(yaml.safe_dump(shape_grid.config(folder, 1024, batch=16, frozen="device")))
    return folder / "config.yaml"


@pytest.mark.parametrize(
    ("grid", "config_of", "device", "count"),
    [
        ("mini", lambda _: ROOT / "config/mini.yaml", "cpu", 2),
        ("real", real_small, "cpu", 2),
        ("gemma-2b", gemma_2b, "h200", 1),
    ],
)
def test_plan_is_near_measurements(grid, config_of, device, count, tmp_path):
    """Runs recorded in measured_runs.json; assumed.yaml has a core's speed from docs/benchmarks.md.

    They were recorded before stages of a generated world were forked.
    """
    one = assumed().devices[device]
    starts = one.start_seconds | {"forked": one.start_seconds["transformers"]}
    plan = Plan.of(load_config(config_of(tmp_path)), one.model_copy(update={"start_seconds": starts}), count)
    measured, ratios = MEASURED[grid], {}
    for rule, figures in measured["stages"].items():
        runs = [run for run in plan.runs.values() if run.job.rule == rule]
        seconds = sum(run.seconds for run in runs) / len(runs)
        ratios[rule] = seconds / figures["seconds"]
        if "memory" in figures:
            ratios[f"{rule}, memory"] = max(run.memory for run in runs) / 1e9 / figures["memory"]
    assert {what: ratio for what, ratio in ratios.items() if not 1 / OFF < ratio < OFF} == {}
    if "wall_seconds" in measured:
        assert 1 / 2 < plan.wall_seconds() / measured["wall_seconds"] < 2


@pytest.mark.parametrize("run", MEASURED["h200"]["sampling"], ids=lambda run: f"{run['rows']}-{run['drawn']}")
def test_sampling_takes_what_a_gpu_took(run):
    shape, device = assumed().models[run["model"]], assumed().devices["h200"]
    share = 0.9 if run["engine"] == "vllm" else 0.0
    sampling = Decoding(shape, "bfloat16", run["engine"], run["rows"], run["at_once"], 120, 512, 512, vllm_share=share)
    assert 1 / OFF < sampling.seconds(device, 1) / run["seconds"] < OFF


def test_a_step_of_ppo_takes_what_a_gpu_took():
    """64 responses of 512 tokens at Gemma-2B's shape, with the engine awake all the time."""
    measured, shape, device = MEASURED["h200"]["ppo"], assumed().models["google/gemma-2b"], assumed().devices["h200"]
    tokens, rows = measured["rows"] * (120 + 512), measured["rows"]

    def passes(predicted: float, factor: int, updates: int = 0) -> float:
        made = Passes(shape, "bfloat16", tokens, 316, predicted, measured["passes"], factor, updates)
        return made.seconds(device, 1)

    sampling = Decoding(shape, "bfloat16", "vllm", rows, rows, 120, 512, 512, vllm_share=0.15).seconds(device, 1)
    scoring = 2 * passes(rows * 512, FORWARD) + 2 * passes(0, FORWARD)
    update = passes(rows * 512, CHECKPOINTED, 1) + passes(0, CHECKPOINTED, 1)
    found = {"scoring": scoring, "update": update, "step": sampling + scoring + update}
    assert {what: seconds for what, seconds in found.items() if not 1 / OFF < seconds / measured[what] < OFF} == {}


def test_chunk_of_logits_is_that_of_the_passes():
    from salsa.models.scoring import LOGITS_AT_A_TIME

    assert memory.LOGITS_CHUNK == memory.LOGITS * LOGITS_AT_A_TIME


def test_plan_of_the_full_grid_lists_what_does_not_fit():
    plan = plan_of("paper", device="a100-40", count=8)
    text = "\n".join(format_plan(plan, None))
    assert "too small  score of llama2-7b: needs 43.7 GB on one device: " in text and "use a larger device" in text
    assert "too small  reward of llama2-7b: needs 47.4 GB on each of 32 devices" in text, (
        "the finished reward model is gathered as a whole"
    )
    assert "cost unknown: set judge.input_price" in text
    assert plan_of("paper", device="h200").device_hours() < plan.device_hours()


def test_plan_chooses_the_place_of_frozen_models(tmp_path):
    """The configs have the plan's choices, and Gemma-2B's PPO fits one GPU of 80 GB by its own."""
    h100 = assumed().devices["h100"]
    for name, count in (("paper", 8), ("smollm2", 1)):
        assert not [
            line for line in frozen_lines(load_config(ROOT / f"config/{name}.yaml"), h100, count) if " set " in line
        ]
    paper = {run.job.model: run for run in plan_of("paper").runs.values() if run.job.rule == "align"}
    assert (paper["gemma-2b"].count, paper["llama2-7b"].count) == (1, 8)
    models = {"gemma-2b": {"settings": {"ppo": {"frozen_models": "auto"}}}}
    (tmp_path / "auto.yaml").write_text(yaml.safe_dump({"models": models}))
    changed = load_config(ROOT / "config/paper.yaml", tmp_path / "auto.yaml")
    said = "\n".join(frozen_lines(changed, h100, 8))
    assert re.search(r"gemma-2b  host: 7\d GB on 1 device and 15 GB of host .*; auto: \d+ GB on 2 devices", said)
    assert "set models.gemma-2b.settings.ppo.frozen_models: host" in said
    small = h100.model_copy(update={"host_memory": 14})
    assert "host" not in frozen_lines(changed, small, 8)[-1].partition(";")[0], "the host has no room"


def test_weekend_plan():
    """The whole grid with three replicates on eight H100; prices of judges; what to leave out for a day."""
    plan = plan_of("paper")
    assert len(all_replicates(plan.config)) == 3
    assert plan.wall_seconds() < 72 * 3600 and plan.device_hours() < 600
    cut = [line.split()[:2] for line in cut_lines(plan, 24)[3:]]
    assert cut == [["replicate", "r3"], ["model", "mistral-7b"]]
    assert cut_lines(plan, 100)[-1].split()[0] == "nothing"
    assert "what is left still takes more than 1 h" in cut_lines(plan, 1)[-1]
    costs, calls = judge_prices().costs(plan.calls()), plan.calls()
    assert len(costs) >= 3
    assert costs["gpt-4o-2024-08-06"] == pytest.approx((2.5 * calls.prompt_tokens + 10 * calls.reply_tokens) / 1e6)
    assert "gpt-4o-2024-08-06 (served until 2027-01-14)" in "\n".join(format_plan(plan, None))


@pytest.mark.parametrize(
    ("files", "device"), [(["paper-lora"], "h100"), (["paper-lora", "gemma-lora-24gb"], "rtx4090")]
)
def test_lora_grids_fit_one_gpu(files, device):
    config = load_config(*(ROOT / f"config/{name}.yaml" for name in ("paper", *files)))
    plan = Plan.of(config, assumed().devices[device], 1)
    assert {run.count for run in plan.runs.values()} <= {0, 1} and all(run.fits for run in plan.runs.values())
    whole = Plan.of(load_config(ROOT / "config/paper.yaml"), assumed().devices["h100"], 8).runs
    for name, run in plan.runs.items():
        if device == "h100" and run.job.rule in ("sft", "reward", "align"):
            assert run.device_seconds < whole[name].device_seconds and run.job.cost.disk < whole[name].job.cost.disk
    text = "\n".join(format_plan(plan, None))
    assert "too small" not in text and "frozen  " not in text, "all frozen models are on the policy's base"


def test_four_bits_and_less_rank_take_less_memory(tmp_path):
    found = []
    for lora in ({"rank": 64}, {"rank": 8}, {"rank": 8, "targets": ["q_proj"]}, {"rank": 8, "bits": 4}):
        stages = {name: {"lora": lora} for name in ("sft", "reward", "ppo")}
        (tmp_path / "lora.yaml").write_text(yaml.safe_dump(stages))
        config = load_config(ROOT / "config/paper.yaml", ROOT / "config/paper-lora.yaml", tmp_path / "lora.yaml")
        runs = Plan.of(config, assumed().devices["h100"], 1).runs
        found.append([runs[name].memory for name in ("sft/llama2-7b/1", "align/llama2-7b/ppo-r1-s1")])
    large, small, queries, bits = found
    assert all(a > b > c for a, b, c in zip(large, small, queries, strict=True))
    # 6.5 of 6.7 billion parameters are in layers.
    assert small[0] - bits[0] == pytest.approx(6.48e9 * (2 - 0.5625), rel=0.01)


def test_engine_takes_memory_while_it_samples_alone(tmp_path):
    """Memory of training is that of no engine, but for what a sleeping engine keeps."""
    h100, found = assumed().devices["h100"], {}
    for share in (0.0, 0.15, 0.3):
        ppo = {"rollout": "vllm", "vllm": {"gpu_memory_utilization": share}} if share else {"rollout": "transformers"}
        ppo |= {"sampling_batch_size": 1}
        (tmp_path / "ppo.yaml").write_text(yaml.safe_dump({"models": {"gemma-2b": {"settings": {"ppo": ppo}}}}))
        plan = Plan.of(load_config(ROOT / "config/paper.yaml", tmp_path / "ppo.yaml"), h100, 8)
        found[share] = next(run for run in plan.runs.values() if run.job.name == "align/gemma-2b/ppo-r1-s1")
    assert found[0.15].memory - found[0.0].memory == pytest.approx(VLLM_ASLEEP)
    assert found[0.15].count == found[0.0].count == 1 < found[0.3].count, "0.3 of the GPU is more than training leaves"


def test_vllm_without_room_for_its_weights_is_named(tmp_path):
    ppo = {"models": {"mistral-7b": {"settings": {"ppo": {"vllm": {"gpu_memory_utilization": 0.2}}}}}}
    (tmp_path / "ppo.yaml").write_text(yaml.safe_dump(ppo))
    plan = Plan.of(load_config(ROOT / "config/paper.yaml", tmp_path / "ppo.yaml"), assumed().devices["h100"], 8)
    needed = r"too small  align of mistral-7b: vLLM needs 0\.2\d of each device's memory: raise ppo.vllm.gpu_memory"
    assert re.search(needed, "\n".join(format_plan(plan, None)))


def test_judge_calls_are_counted():
    """Two games per turn and pair of policies, and one grade per turn: MT-Bench 80 x 2, Arena-Hard 500, UltraFeedback
    500.
    """
    pairs, policies = 3 * 3, 3 + 2 * 3
    assert plan_of("paper").calls().number == 3 * (2 * pairs * (160 + 500 + 500) + policies * 160)


@pytest.mark.parametrize("device", ["h100", "h200"])
def test_smollm2_takes_less_than_an_hour_of_one_gpu(device):
    """As its config promises."""
    plan = plan_of("smollm2", device=device, count=1)
    assert all(run.fits and run.count <= 1 for run in plan.runs.values())
    assert plan.wall_seconds() < 3600


def test_counted_tokens_replace_assumptions(tmp_path):
    """For the same data set only: a card of other data is ignored."""
    before = plan_of("mini", device="cpu", count=2)
    from eval.costs.sizes import Sizes
    from salsa.data.training_sets import all_sets

    config = load_config(ROOT / "config/mini.yaml")
    wanted = all_sets(Sizes(config).local, "llama-mini")["sft.train"]
    card = tmp_path / "results/mini/data/llama-mini.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"sft.train": {"used": 12000, "tokens": 12000 * 104}}))
    settings = {"sft.train": wanted.model_dump(mode="json", exclude_none=True)}
    card.with_suffix(".run.json").write_text(json.dumps({"settings": settings}))
    after = plan_of("mini", device="cpu", count=2)
    name = "sft/llama-mini/1"
    assert after.runs[name].seconds > 2 * before.runs[name].seconds
    settings["sft.train"]["max_length"] += 1
    card.with_suffix(".run.json").write_text(json.dumps({"settings": settings}))
    assert plan_of("mini", device="cpu", count=2).runs[name].seconds == before.runs[name].seconds


def test_batches_take_a_day_and_uncounted_costs_are_named(tmp_path):
    (tmp_path / "more.yaml").write_text("judge: {batch: true, requests_per_minute: 60}\n")
    config = load_config(ROOT / "config/paper.yaml", tmp_path / "more.yaml")
    plan = Plan.of(config, assumed().devices["h100"], 8)
    judged = [run.seconds for run in plan.runs.values() if run.job.rule in ("judge", "grade")]
    assert min(judged) > 86400 and any("rate limits" in note for note in plan.notes)
    assert any("calibration's calls" in note for note in plan_of("mini").notes)


def plan_command(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["salsa", "plan", *arguments])
    return main("salsa", COMMANDS)


def test_command_prints_a_table_and_its_assumptions(tmp_path, monkeypatch, capsys):
    (tmp_path / "priced.yaml").write_text("judge: {input_price: 2.5, output_price: 10}\n")
    given = ["--config", str(ROOT / "config/paper.yaml"), "priced.yaml", "--hourly", "2"]
    assert plan_command(monkeypatch, *given) == 0
    text = capsys.readouterr().out
    plan = plan_of("paper")
    assert f"hours      {plan.device_hours():,.2f} device hours, {2 * plan.device_hours():,.0f} at 2 per hour" in text
    calls = plan.calls()
    assert f"cost {(2.5 * calls.prompt_tokens + 10 * calls.reply_tokens) / 1e6:,.2f}" in text
    assert "989 TFLOP/s in bfloat16, 67 TFLOP/s in float32, 3.35 TB/s [published: NVIDIA's data sheet]" in text
    notes = text.split("assumed, with the source of each:\n")[1].splitlines()
    assert all(re.fullmatch(r"- .+ \[(published|counted|measured|assumed|not counted)\b.*\]", note) for note in notes)
    assert len({len(line) for line in text.splitlines()[2:40]}) == 1, "columns are aligned"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sft": {"train": {"path": "none.jsonl"}}}, "none.jsonl: its number of rows is unknown"),
        (
            {"models": {"m": {"hub": {"id": "a/b", "revision": "0" * 40, "chat_template": "t", "pad_token": "p"}}}},
            "models.m: its size is unknown while checkpoints/mini/base/m does not exist: run snakemake prepare",
        ),
        (
            {"benchmarks": {"mt_bench": {"questions": {"path": "none.jsonl"}}}},
            "benchmarks.mt_bench: its number of questions is unknown",
        ),
    ],
)
def test_unplannable_config_is_one_line(changes, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(changes))
    assert plan_command(monkeypatch, "--config", str(ROOT / "config/mini.yaml"), "more.yaml") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}") and error.count("\n") == 1


def test_numbers_are_formatted_for_reading():
    assert [duration(s) for s in (0.4, 59, 90, 5400, 36000, 400000)] == [
        "0 s",
        "59 s",
        "1.5 min",
        "1.5 h",
        "10 h",
        "4.6 d",
    ]
    assert [size(n) for n in (0, 5e5, 2.5e7, 1.35e10, 1.2e12)] == ["0", "< 1 MB", "25 MB", "13.5 GB", "1.2 TB"]
