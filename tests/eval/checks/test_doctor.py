"""What `salsa doctor` reports about deliberate faults, and that it never hangs."""

import fcntl
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml

import eval.checks.doctor
from eval.checks import cluster, devices, disk, files, hub, judge, software
from eval.checks.check import Check, NotChecked
from eval.costs.assumed import assumed
from eval.planning.grid_plan import Plan
from salsa.config.config import Config, parse_config
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError
from tests.eval.judge_server import Answer, JudgeServer, chat

ROOT = Path(__file__).parents[3]
KEY = "sk-0123456789abcdef"
CPU, H100 = assumed().devices["cpu"], assumed().devices["h100"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder without data, and an environment without tokens and keys."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))


def grid(name: str, **changes) -> Config:
    data = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    return parse_config({**data, **changes}, name)


def message(checks: list[Check], subject: str) -> str:
    """Message of the only check of that subject, with its state unless that is ok."""
    [check] = [check for check in checks if subject in check.subject]
    [(state, text)] = eval.checks.doctor.run_checks([check], 30)
    return text if state == "ok" else f"{state} {text}"


class Hub:
    """A hub with `repositories`: id -> (kind, description), all at revision "a"*40. It records requests."""

    REVISION = "a" * 40

    def __init__(self, repositories: dict[str, tuple[str, dict]], allowed: bool = True, user: str | None = "ada"):
        self.repositories, self.allowed, self.user, self.asked = repositories, allowed, user, []

    def answer(self, path: str) -> tuple[int, dict, str]:
        """Status, body, error code."""
        if path == "/api/whoami-v2":
            return (200, {"name": self.user}, "") if self.user else (401, {"error": "Invalid credentials"}, "")
        for id, (kind, info) in self.repositories.items():
            if path == f"/api/{kind}s/{id}/auth-check":
                return (200, {}, "") if self.allowed else (403, {"error": "gated"}, "GatedRepo")
            if path == f"/api/{kind}s/{id}/revision/{self.REVISION}":
                return 200, {"id": id, "sha": self.REVISION, **info}, ""
            if path.startswith(f"/api/{kind}s/{id}/revision/"):
                return 404, {}, "RevisionNotFound"
        return 404, {}, "RepoNotFound"


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[[Hub], None]]:
    """serve(hub): this process uses that hub, on the loopback interface."""
    servers = []

    def start(fake: Hub) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.split("?")[0]
                if "org/" in path or "whoami" in path:  # the client asks other things for itself
                    fake.asked.append((path, self.headers.get("authorization")))
                status, body, code = fake.answer(path)
                data = json.dumps(body).encode()
                self.send_response(status)
                if code:
                    self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        reach(monkeypatch, servers[-1].server_address[1])

    yield start
    huggingface_hub.close_session()
    for server in servers:
        server.shutdown()
        server.server_close()


def reach(monkeypatch, port: int) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()


TEMPLATE = str(ROOT / "config/chat_templates/turns.jinja")
WEIGHTS = {"siblings": [{"rfilename": "model-00001-of-00002.safetensors"}], "gated": False}


def of_hub(revision: str = Hub.REVISION) -> Config:
    """The smallest config whose model and demonstrations come from the hub."""
    data = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    model = {"id": "org/base", "revision": revision, "chat_template": TEMPLATE, "pad_token": "<unk>"}
    train = {"hub": "org/talks", "revision": revision, "split": "train_sft"}
    return parse_config({**data, "models": {"m": {"hub": model}}, "sft": {**data["sft"], "train": train}}, "smoke")


def test_complete_hub(serve, monkeypatch):
    card = {"cardData": {"dataset_info": {"splits": [{"name": "train_sft"}]}}, "gated": False}
    fake = Hub({"org/base": ("model", WEIGHTS), "org/talks": ("dataset", card)})
    serve(fake)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    checks = hub.checks(of_hub())
    assert message(checks, "token") == "belongs to ada"
    assert message(checks, "org/base@aaaaaaa") == "can be read at this revision"
    assert message(checks, "org/talks@aaaaaaa") == "can be read at this revision: train_sft"
    assert {key for _, key in fake.asked} == {"Bearer hf_secret"}
    assert not any(path.endswith("auth-check") for path, _ in fake.asked), "open repositories need no access check"


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({**WEIGHTS, "gated": "manual"}, "models.m.hub: org/base is gated, and HF_TOKEN's account has no access"),
        ({"siblings": [{"rfilename": "pytorch_model.bin"}], "gated": False}, "models.m.hub: revision aaaa"),
    ],
)
def test_unusable_model(serve, monkeypatch, info, said):
    serve(Hub({"org/base": ("model", info)}, allowed=False))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert message(hub.checks(of_hub()), "org/base").startswith(f"FAILED {said}")


def test_gated_model_without_token_names_the_licence_page(serve):
    serve(Hub({"org/base": ("model", {**WEIGHTS, "gated": "auto"})}, allowed=False))
    checks = hub.checks(of_hub())
    endpoint = huggingface_hub.constants.ENDPOINT
    said = message(checks, "org/base")
    assert said.startswith(
        f"FAILED models.m.hub: org/base is gated, and no token is set: accept its licence at {endpoint}"
    )
    assert f"{endpoint}/org/base and set HF_TOKEN" in said
    assert message(checks, "token").startswith("- no token is set")


def test_missing_ids_revisions_splits_and_tokens(serve, monkeypatch):
    fake = Hub({"org/talks": ("dataset", {"cardData": {"dataset_info": [{"splits": [{"name": "train"}]}]}})}, user=None)
    serve(fake)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    checks = hub.checks(of_hub())
    assert message(checks, "org/base").startswith("FAILED models.m.hub: org/base does not exist at http://127.0.0.1")
    assert message(checks, "org/talks") == "FAILED data set org/talks has no split train_sft: use one of train"
    assert message(checks, "token").startswith(
        "FAILED the token: HTTP 401: the hub refuses the token: create a new one at http"
    )
    other = hub.checks(of_hub("b" * 40))
    assert message(other, "org/talks") == (
        f"FAILED data set org/talks has no revision {'b' * 40}: correct it in the config"
    )


def test_malformed_token_is_not_quoted(serve, monkeypatch):
    serve(Hub({}))
    monkeypatch.setenv("HF_TOKEN", "hf_secr\u00e9t")
    said = message(hub.checks(of_hub()), "token")
    assert said == "FAILED the token: HF_TOKEN contains characters that no token has: set it again"


def test_local_files_need_no_request(serve):
    fake = Hub({})
    serve(fake)
    config = of_hub()
    folder = Path("checkpoints/smoke/base/m")
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"revision": Hub.REVISION}))
    fetched = Path(f"data/hub/org--talks/{Hub.REVISION}/train_sft.jsonl")
    fetched.parent.mkdir(parents=True)
    fetched.write_text("{}")
    checks = hub.checks(config)
    assert message(checks, "org/base") == message(checks, "org/talks") == "is on disk"
    assert not fake.asked
    (folder / "run.json").write_text(json.dumps({"revision": "b" * 40}))
    assert message(hub.checks(config), "org/base").startswith("FAILED")


def test_each_hub_check_reports_a_missing_network(monkeypatch):
    """A closed port, a port that accepts and stays silent, and the hub's offline switch."""
    import socket

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        reach(monkeypatch, closed.getsockname()[1])
        assert "cannot reach http://127.0.0.1" in message(hub.checks(of_hub()), "org/base")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(hub, "TRY_SECONDS", 0.2)
        reach(monkeypatch, silent.getsockname()[1])
        before = time.monotonic()
        for what in ("org/base", "org/talks"):
            said = message(hub.checks(of_hub()), what)
            assert said.startswith("FAILED cannot reach http://127.0.0.1") and "timed out" in said
            assert "run snakemake prepare on a machine that has a network" in said
        assert time.monotonic() - before < 5
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert message(hub.checks(of_hub()), "org/base").startswith("FAILED HF_HUB_OFFLINE is set: unset it, or run")
    huggingface_hub.close_session()


def test_hanging_check_times_out():
    stay = threading.Event()
    checks = [Check("a", "hangs", lambda: str(stay.wait())), Check("a", "ends", lambda: "well")]
    before = time.monotonic()
    (state, said), ended = eval.checks.doctor.run_checks(checks, 0.2)
    assert time.monotonic() - before < 2
    assert (state, said.partition(":")[0]) == ("FAILED", "no answer within 0.2 s") and ended == ("ok", "well")
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    assert others and all(thread.daemon for thread in others), "threads that hang do not keep the program alive"
    stay.set()


def test_bug_in_a_check_is_not_a_finding():
    with pytest.raises(ZeroDivisionError):
        eval.checks.doctor.run_checks([Check("a", "b", lambda: str(1 // 0))], 5)


def asked(answer, model="m", **keys) -> dict[str, str]:
    """Findings of the judge checks for a server that replies so; also checks the request."""
    with JudgeServer(answer) as server:
        settings = Judge(kind="endpoint", model=model, base_url=server.url, api_key_env="JUDGE_KEY", **keys)
        checks = judge.checks(grid("smoke", judge=settings.model_dump()))
        return {check.subject: message(checks, check.subject) for check in checks}


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)


def test_judge_check_requests_one_token(key):
    bodies = []

    def answer(number: int, body: bytes) -> Answer:
        bodies.append(json.loads(body))
        return Answer(body=chat("Yes", model="m-2026"))

    keys = {"limit_parameter": "max_completion_tokens", "temperature": None, "parameters": {"reasoning_effort": "low"}}
    assert asked(answer, **keys)["m"].endswith("/v1, as m-2026")
    assert [{key: body[key] for key in body if key != "messages"} for body in bodies] == [
        {"model": "m", "max_completion_tokens": 1, "reasoning_effort": "low"}
    ]
    assert not list(Path.cwd().iterdir()), "no files are left"


def test_last_day_of_a_judge_is_named(key):
    found = [asked(lambda *_: Answer(body=chat("Yes")), model=name)[name] for name in ("gpt-4o-2024-08-06", "m")]
    assert found[0].endswith("; its maker serves it until 2027-01-14") and "serves it" not in found[1]


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, {"message": f"wrong key {KEY}"}, "HTTP 401: check the key in JUDGE_KEY"),
        (404, {"message": "no model m"}, "HTTP 404 (no model m): check judge.model and judge.base_url"),
        (
            429,
            {"message": "no money", "code": "insufficient_quota"},
            "HTTP 429 (no money): the account's credit is used up",
        ),
        (400, {"message": "bad", "param": "temperature"}, "HTTP 400 (bad): correct judge.model, temperature"),
        (400, {"message": "not this"}, "the endpoint refuses a call (HTTP 400 (not this)): correct the section judge"),
    ],
)
def test_unreachable_judge(key, status, error, said):
    found = asked(lambda *_: Answer(status=status, body={"error": error}))["m"]
    assert found.startswith("FAILED http://127.0.0.1") and f"/v1: {said}" in found
    assert KEY not in found


def test_reasoning_judge_passes(key):
    message = "Could not finish the message because max_tokens or model output limit was reached."
    said = asked(lambda *_: Answer(status=400, body={"error": {"message": message}}))["m"]
    assert said.startswith("answers at") and said.endswith("; its reasoning takes more than one token")


def test_slow_or_briefly_failing_judge(key, monkeypatch):
    monkeypatch.setattr(judge, "TRY_SECONDS", 0.3)
    before = time.monotonic()
    said = asked(lambda *_: Answer(body=chat("late"), delay=20))["m"]
    assert "no answer in 0.3 s: check judge.base_url and that it is running" in said
    assert time.monotonic() - before < 10
    said = asked(lambda number, _: Answer(status=500) if number == 1 else Answer(body=chat("well")))["m"]
    assert said.startswith("answers at")


def test_placeholder_keys(monkeypatch):
    answer = Answer(body=chat("Yes"))
    assert "the environment variable JUDGE_KEY is not set: export" in asked(lambda *_: answer)["m"]
    monkeypatch.setenv("JUDGE_KEY", "ключ")
    assert "JUDGE_KEY contains characters that no key has: set it again" in asked(lambda *_: answer)["m"]
    monkeypatch.setenv("JUDGE_KEY", f"{KEY}\n")
    assert asked(lambda *_: answer)["m"].startswith("answers at")


def test_budget_needs_token_counts_and_batch_needs_its_api(key):
    prices = {"input_price": 1, "output_price": 1, "budget": 5}
    assert (
        "judge.budget: the endpoint does not report the tokens"
        in asked(lambda *_: Answer(body=chat("Yes")), **prices)["m"]
    )
    counted = chat("Yes", usage={"prompt_tokens": 9, "completion_tokens": 1})
    assert asked(lambda *_: Answer(body=counted), **prices)["m"].startswith("answers at")

    def without(_: int, body: bytes) -> Answer:
        return Answer(body=counted) if body else Answer(status=404, body={"error": {"message": "no such path"}})

    found = asked(without, batch=True)
    assert found["m"].startswith("answers at")
    assert "/v1/batches: HTTP 404 (no such path)" in found["batch API"] and "remove judge.batch" in found["batch API"]
    page = {"object": "list", "data": [], "has_more": False}
    assert asked(lambda _, body: Answer(body=counted if body else page), batch=True)["batch API"] == "answers"


def test_folders_must_support_writes_and_locks(tmp_path, monkeypatch):
    assert disk.check_folder(tmp_path / "a" / "b") == "can be written and locked"
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"^/proc: cannot write there \("):
        disk.check_folder(Path("/proc/none"))

    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"the file system does not support locks \(flock: Function not implemented\)"):
        disk.check_folder(tmp_path)


def test_disk_space_is_the_plan_minus_existing_files(tmp_path, monkeypatch):
    config = grid("smoke")
    plan = Plan.of(config, CPU, 1)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path / "hub"))
    folder = Path("checkpoints/smoke")
    before = disk.bytes_needed(config, plan)
    assert sum(before.values()) == pytest.approx(plan.disk() + plan.scratch())
    (folder / "sft").mkdir(parents=True)
    (folder / "sft/model.safetensors").write_bytes(b"x" * 1000)
    (folder / "link").symlink_to(ROOT / "README.md")
    after = disk.bytes_needed(config, plan)
    link = (folder / "link").lstat().st_size
    assert before[folder] - after[folder] == pytest.approx(1000 + link)
    with pytest.raises(UserError, match=r"^1e\+06 TB are needed, .* are free: free some space"):
        disk.check_free_space(folder, 1e18)
    assert disk.check_free_space(folder, 1e6).startswith("1 MB are needed, ")


def test_data_sets_take_double_space_until_fetched(monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", "cache")
    config = grid("smollm2")
    plan = Plan.of(config, H100, 1)
    cache = disk.bytes_needed(config, plan)[Path("cache")]
    assert cache == sum(run.job.cost.disk for run in plan.runs.values() if run.job.rule == "fetch") > 1e8
    for run in plan.runs.values():
        if run.job.rule == "fetch":
            path = Path(run.job.name.partition("/")[2])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    assert disk.bytes_needed(config, plan)[Path("cache")] == 0


def gpu(**keys) -> devices.Gpu:
    return devices.Gpu(**{"index": 0, "name": "A GPU", "memory": 80 * 10**9, "capability": (9, 0), **keys})


@pytest.fixture
def card(monkeypatch):
    """card(free): a GPU that computes and has so many free bytes."""
    ones = torch.ones

    def put(free: float) -> None:
        monkeypatch.setattr(torch, "ones", lambda *sizes, device: ones(*sizes))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (int(free), 80 * 10**9))

    return put


def test_gpu_computes_has_memory_and_the_right_kind(card):
    card(79e9)
    assert devices.check_gpu(gpu(), grid("paper")) == "79 GB of 80 GB are free"
    with pytest.raises(UserError, match=r"no bfloat16 \(compute capability 7.5\)"):
        devices.check_gpu(gpu(capability=(7, 5)), grid("paper"))
    assert devices.check_gpu(gpu(capability=(7, 5)), grid("mini")), "float32 works on any GPU"
    card(30e9)
    with pytest.raises(UserError, match="50 GB of 80 GB are in use"):
        devices.check_gpu(gpu(), grid("paper"))


def test_broken_gpu_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with `TORCH_USE_CUDA_DSA`")

    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(
        UserError, match=r"^torch cannot compute on this GPU \(CUDA error: no kernel image is available"
    ):
        devices.check_gpu(gpu(), grid("mini"))


def test_cpu_build_and_missing_driver(tmp_path, monkeypatch):
    tool = tmp_path / "bin/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 470.1'\n")
    tool.chmod(0o755)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(UserError, match="is a CPU build: install the one for CUDA"):
        devices.check_cuda([], H100)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("PATH", "/none")
    with pytest.raises(NotChecked, match="run this again in a job"):
        devices.check_cuda([], H100)
    with pytest.raises(UserError, match="this machine has no GPU: run this on one that has"):
        devices.check_cuda([], None)
    monkeypatch.setenv("PATH", f"{tool.parent}:/bin:/usr/bin")
    with pytest.raises(UserError, match=r"built for CUDA 13.0 and does not see NVIDIA H100, 470.1: install a driver"):
        devices.check_cuda([], H100)
    with pytest.raises(NotChecked, match=r"jobs run on the CPU; torch .* does not see NVIDIA H100"):
        devices.check_cuda([], CPU)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES hides NVIDIA H100, 470.1: unset it"):
        devices.check_cuda([], H100)
    assert devices.check_cuda([gpu()], H100).endswith(", 1 GPU")


def test_stages_must_fit_the_memory_of_their_jobs(monkeypatch):
    config = grid("paper")
    device, count = devices.job_devices(None, None, [gpu(), gpu(memory=40 * 10**9)], config)
    assert (device.title, device.memory, count) == ("A GPU", 40, 2), "the smallest GPU counts"
    checks = devices.stages(Plan.of(config, H100, 8))
    assert message(checks, "align of llama2-7b").endswith("on each of 8 devices, of 84.9 GB")
    assert message(checks, "sft of llama2-7b").endswith("on each of 4 devices, of 84.9 GB")
    smaller = devices.stages(Plan.of(config, H100.model_copy(update={"memory": 40}), 8))
    assert message(smaller, "score of llama2-7b").startswith(
        "FAILED needs 43.7 GB on one device: lower its micro_batch_size"
    )
    few = devices.stages(Plan.of(config, H100, 4))
    assert message(few, "align of llama2-7b") == "FAILED needs 8 devices for its memory, of 4: use more"
    assert devices.job_devices(None, None, [], config) is None
    assert message([devices.UNKNOWN_DEVICES], "all stages").startswith("- the devices of the jobs are not known")


def test_on_a_cpu_stages_must_fit_the_machine(monkeypatch):
    config = grid("mini")
    device, count = devices.job_devices(None, None, [], config)
    plan = Plan.of(config, device, count)
    assert "per job, of this machine's" in message(devices.stages(plan), "align of gemma-mini")
    monkeypatch.setattr(devices.os, "sysconf", {"SC_PHYS_PAGES": 100_000, "SC_PAGE_SIZE": 4096}.__getitem__)
    said = message(devices.stages(plan), "align of gemma-mini")
    assert said.endswith("this machine has 410 MB: use a larger machine, or GPUs")


def test_files_that_the_config_names(monkeypatch):
    data = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    local = {"path": "mine", "chat_template": TEMPLATE, "pad_token": "<unk>"}
    with JudgeServer(lambda *_: Answer(status=404)) as server:
        url = server.url.replace("/v1", "/file.jsonl")
        pin = {"url": url, "sha256": "0" * 64}
        questions = {"path": "data/q.jsonl"}
        benchmark = {"kind": "mt_bench", "max_new_tokens": 8, "questions": questions, "download": {"data/q.jsonl": pin}}
        own = {"kind": "own.py", "max_new_tokens": 8, "questions": {"path": "gone.jsonl"}}
        sft = {**data["sft"], "train": {"path": "train.jsonl"}}
        config = parse_config(
            {**data, "models": {"m": {"local": local}}, "sft": sft, "benchmarks": {"mt": benchmark, "own": own}}, "x"
        )
        Path("train.jsonl").write_text("{}")
        checks = files.checks(config)
        assert message(checks, "turns.jinja") == "a chat template"
        assert message(checks, "mine") == (
            "FAILED models: mine: no config.json there: name a folder with a checkpoint and its tokenizer"
        )
        assert message(checks, "train.jsonl") == "sft.train of m"
        assert message(checks, "gone.jsonl").startswith(
            "FAILED benchmarks.own.questions: cannot read gone.jsonl (No such file"
        )
        assert message(checks, "own.py").startswith("FAILED benchmark kind own.py: cannot read it")
        assert message(checks, "data/q.jsonl").startswith(f"FAILED {url}: HTTP 404: correct benchmarks.mt.download")
    assert message(checks, "data/q.jsonl").startswith("FAILED cannot reach 127.0.0.1 (")
    Path("data").mkdir()
    Path("data/q.jsonl").write_text("{}")
    assert "data/q.jsonl: its sha256 is" in message(checks, "data/q.jsonl")


def test_uninstalled_clone_is_reported(monkeypatch):
    monkeypatch.setattr(software, "PROJECT", "salsa-that-is-nowhere")
    said = message(software.checks(grid("smoke")), "packages")
    assert said.startswith("FAILED salsa-that-is-nowhere is not installed in this environment: pip install -e . in")


def test_packages_must_match_the_requirements(monkeypatch):
    checks = software.checks(grid("smoke"))
    assert f"torch {metadata.version('torch')}" in message(checks, "packages")
    assert message(checks, "vllm") == "- no stage of this config uses it"
    assert message(checks, "bitsandbytes") == "- no stage of this config uses it"
    wanted = ["torch==0.1", "numpy>=1", 'nothing>=2; extra == "dev"', "nowhere>=3", 'vllm==99; extra == "vllm"']
    wanted.append('bitsandbytes==99; extra == "quantised"')
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    said = message(checks, "packages")
    assert said.startswith(
        f"FAILED torch==0.1 is required, found {metadata.version('torch')}; nowhere>=3 is required, found none"
    )
    assert "nothing" not in said and "vllm" not in said
    data = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    for changes in (
        {"generate": {"engine": "vllm"}},
        {"ppo": {**data["ppo"], "rollout": "vllm"}},
        {"methods": {**data["methods"], "salsa": {**data["methods"]["salsa"], "settings": {"rollout": "vllm"}}}},
    ):
        said = message(software.checks(grid("smoke", **changes)), "vllm")
        assert "vllm==99 is required" in said and "pip install -e '.[vllm]'" in said and "torch" not in said
    for section in ("sft", "ppo"):
        changes = {section: {**data[section], "lora": {"bits": 4}}}
        assert "bitsandbytes==99 is required" in message(software.checks(grid("smoke", **changes)), "bitsandbytes")


PROFILE = """
executor: slurm
default-resources: {slurm_partition: cpu, mem_mb: 4000}
set-resources:
  align: {slurm_partition: "gpu,big", gres: "gpu:1"}
  sft: {slurm_partition: gpu, runtime: 60}
"""


@pytest.fixture
def sinfo(tmp_path, monkeypatch):
    """sinfo(shell case text): replaces Slurm's sinfo, with the profile beside it."""
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile/profile.yaml").write_text(PROFILE)

    def put(cases: str) -> list[Check]:
        tool = tmp_path / "bin/sinfo"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f'#!/bin/sh\ncase "$2" in\n{cases}\nesac\n')
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:/bin:/usr/bin")
        return cluster.checks(tmp_path / "profile")

    return put


def test_partitions_of_a_profile(sinfo):
    cases = {"cpu": "up|4|1-00:00:00|(null)", "gpu": "up|2|8:00:00|gpu:h100:8", "big": "down|1|1:00|gpu:1"}
    checks = sinfo(" ".join(f"*={name}) echo '{row}';;" for name, row in cases.items()))
    assert [check.subject for check in checks] == ["executor slurm", "partition cpu", "partition gpu", "partition big"]
    assert message(checks, "partition cpu") == "up, 4 nodes, jobs of up to 1-00:00:00"
    assert message(checks, "partition gpu") == "up, 2 nodes, jobs of up to 8:00:00"
    assert message(checks, "partition big").startswith("FAILED the partition is down: use another")
    checks = sinfo("*=cpu) ;; *) echo 'up|4|1:00|(null)';;")
    assert message(checks, "partition cpu").startswith("FAILED Slurm has no such partition")
    assert message(checks, "partition gpu").startswith("FAILED the partition has no GPUs, but align request them")
    checks = sinfo("*) echo 'slurm_load_partitions: no controller' >&2; exit 1;;")
    assert message(checks, "partition cpu").startswith("FAILED sinfo failed (slurm_load_partitions: no controller)")


def test_missing_or_hanging_slurm(sinfo, monkeypatch):
    checks = sinfo("*) exec sleep 30;;")
    monkeypatch.setattr(cluster, "SINFO_SECONDS", 0.2)
    assert message(checks, "partition cpu").startswith("FAILED sinfo did not answer within 0.2 s")
    monkeypatch.setenv("PATH", "/none")
    assert message(checks, "partition cpu").startswith(
        "FAILED sinfo is not installed here: run this on the cluster's login"
    )


def test_invalid_profiles(tmp_path):
    assert message(cluster.checks(None), "profile").startswith("- jobs run on this machine")
    with pytest.raises(UserError, match=r"--profile \S+: the folder has no profile.yaml"):
        cluster.checks(tmp_path)
    (tmp_path / "profile.yaml").write_text("[broken")
    with pytest.raises(UserError, match=r"--profile \S+/profile.yaml: cannot read the profile \("):
        cluster.checks(tmp_path)
    (tmp_path / "profile.yaml").write_text("executor: nonesuch\n")
    said = message(cluster.checks(tmp_path), "executor nonesuch")
    assert said == (
        "FAILED snakemake-executor-plugin-nonesuch is not installed: pip install snakemake-executor-plugin-nonesuch"
    )
    default = cluster.checks(ROOT / "profiles/default")
    assert message(default, "executor local") == "comes with Snakemake"


def test_executor_in_the_profiles_folder(tmp_path, monkeypatch):
    """As in profiles/kubernetes: Snakemake finds it only through PYTHONPATH, and it may need another plugin."""
    (tmp_path / "profile.yaml").write_text("executor: of-our-own\n")
    module = tmp_path / "snakemake_executor_plugin_of_our_own"
    module.mkdir()
    (module / "__init__.py").write_text("import snakemake_executor_plugin_nonesuch\n")
    said = message(cluster.checks(tmp_path), "executor of-our-own")
    assert said.startswith("FAILED the plugin is in the profile's folder") and said.endswith(
        f"export PYTHONPATH={tmp_path}"
    )
    monkeypatch.syspath_prepend(tmp_path)
    said = message(cluster.checks(tmp_path), "executor of-our-own")
    assert said.startswith("FAILED snakemake-executor-plugin-nonesuch is not installed: pip install snakemake-")
    (module / "__init__.py").write_text("")
    said = message(cluster.checks(tmp_path), "executor of-our-own")
    assert said == "snakemake_executor_plugin_of_our_own, from the profile's folder"


def doctor(capsys, monkeypatch, *arguments: object) -> tuple[int, str, str]:
    from salsa.__main__ import COMMANDS
    from salsa.runtime.command import main

    monkeypatch.setattr(sys, "argv", ["salsa", "doctor", *map(str, arguments)])
    status = main("salsa", COMMANDS)
    said = capsys.readouterr()
    return status, said.out, said.err


def test_mini_grid_passes_and_no_files_are_left(capsys, monkeypatch):
    monkeypatch.setattr(devices, "visible_gpus", list)
    monkeypatch.setenv("PATH", "/none")
    status, out, err = doctor(capsys, monkeypatch, "--config", ROOT / "config/mini.yaml")
    assert (status, err) == (0, "")
    assert {line.split()[0] for line in out.splitlines()} == {"ok", "-"}
    topics = {line.split()[1] for line in out.splitlines()}
    assert topics == {"software", "judge", "folder", "disk", "memory", "gpu", "cluster"}
    assert not [path for path in Path.cwd().iterdir() if path.name != "none"]


def test_papers_grid_without_a_network_reports_everything_at_once(capsys, monkeypatch):
    """Names do not resolve, keys are missing, and no GPU is named."""
    import socket

    def resolve(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(devices, "visible_gpus", list)
    monkeypatch.setenv("PATH", "/none")
    huggingface_hub.close_session()
    before = time.monotonic()
    status, out, err = doctor(capsys, monkeypatch, "--config", ROOT / "config/paper.yaml")
    assert status == 1 and time.monotonic() - before < 30
    text = " ".join(out.split())
    for said in (
        "FAILED model meta-llama/Llama-2-7b-hf@01c7f73, model mistralai/Mistral-7B-v0.1@27d67f1, model google/gemma",
        "cannot reach https://huggingface.co ([Errno -2] Name or service not known): repair the network, or run snake",
        "cannot reach raw.githubusercontent.com",
        "the environment variable OPENAI_API_KEY is not set",
    ):
        assert said in text
    assert err.endswith("checks failed: follow their instructions, then run this again\n")


def test_model_of_unknown_size_is_one_finding(capsys, monkeypatch):
    monkeypatch.setattr(devices, "visible_gpus", list)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    data = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    model = {"id": "org/base", "revision": Hub.REVISION, "chat_template": TEMPLATE, "pad_token": "<unk>"}
    Path("own.yaml").write_text(yaml.safe_dump({**data, "models": {"m": {"hub": model}}}))
    status, out, _ = doctor(capsys, monkeypatch, "--config", "own.yaml", "--device", "l40s")
    assert status == 1
    assert "FAILED plan sizes models.m: its size is unknown" in " ".join(out.split())
    assert "can be written and locked" in out and " gpu cuda " in " ".join(out.split()), "all other checks still report"


def test_lines_are_folded_and_equal_ones_merged():
    checks = [Check("model", name, str) for name in ("a", "b")]
    said = "it is not there and " * 5 + "that is that"
    text = eval.checks.doctor.format_outcomes([(checks[0], ("FAILED", said)), (checks[1], ("FAILED", said))], 60)
    assert text[1] == "FAILED  model a, model b" and max(map(len, text)) <= 60
    assert " ".join(line.strip() for line in text[2:]) == said


@pytest.mark.parametrize("name", ["paper", "smollm2"])
def test_each_model_data_set_and_file_has_a_check(name):
    config = grid(name)
    whats = [check.subject for check in (*hub.checks(config), *files.checks(config))]
    wanted = {"token", "config/chat_templates/turns.jinja"} | ({config.assumptions} - {None})
    wanted |= {f"{model.hub.id}@{model.hub.revision[:7]}" for model in config.models.values()}
    wanted |= {
        f"{source.hub}@{source.revision[:7]}"
        for source in (config.sft.train, config.reward.train, config.ppo.prompts, config.alpha.prompts)
    }
    wanted |= {path for benchmark in config.benchmarks.values() for path in benchmark.download}
    assert len(whats) == len(set(whats)) and wanted <= set(whats)
