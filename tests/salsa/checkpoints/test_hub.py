"""Load from the hub with the real client libraries: a repository on loopback, a data set's files in a folder."""

import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from salsa.checkpoints.loading import load_causal, load_tokenizer, render
from salsa.config.config import parse_config
from salsa.config.sections import DataSource
from salsa.data.rows import conversation, convert_rows, demonstration, load_rows, preference
from salsa.runtime.errors import UserError

ROOT = Path(__file__).parents[3]
REVISION = "01c7f73d771dfac7d292323805ebc428287df4f9"


def handler(repository: Path, asked: list[str], stall: threading.Event | None = None) -> type[BaseHTTPRequestHandler]:
    """The hub's answers about one model repository at one revision.

    With `stall` it sends part of the first requested weights, then sets the event.
    """

    names = sorted(repository.iterdir())

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self, body: bool = True):
            asked.append(self.path)
            if self.path.split("?")[0] == f"/api/models/org/base/tree/{REVISION}":
                files = [{"type": "file", "path": f.name, "oid": "0" * 40, "size": f.stat().st_size} for f in names]
                return self._send(json.dumps(files).encode(), body)
            if self.path.split("?")[0] == f"/api/models/org/base/revision/{REVISION}":
                return self._send(json.dumps({"id": "org/base", "sha": REVISION}).encode(), body)
            file = repository / self.path.rpartition("/")[2]
            if self.path.startswith(f"/org/base/resolve/{REVISION}/") and file.exists():
                data = file.read_bytes()
                if body and stall is not None and file.name == "model.safetensors" and not stall.is_set():
                    return self._stop_on_the_way(data)
                return self._send(data, body)
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HEAD(self):
            self.do_GET(body=False)

        def _stop_on_the_way(self, data: bytes):
            """Send two thirds of the file, then nothing until the client has gone."""
            self._head(data)
            asked.append(f"sent {self.path}")
            self.wfile.write(data[: len(data) * 2 // 3])
            self.wfile.flush()
            stall.set()
            with contextlib.suppress(ConnectionError):
                self.connection.recv(1)
            self.close_connection = True

        def _send(self, data: bytes, body: bool):
            self._head(data)
            if body:
                asked.append(f"sent {self.path}")
                self.wfile.write(data)

        def _head(self, data: bytes):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()

        def log_message(self, *_):
            pass

    return Hub


@pytest.fixture
def repository(tmp_path, llamas) -> Path:
    """Like Llama-2's and Mistral's: <unk>, no pad token, no chat template, and files that must not be fetched."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((llamas[0] / name).read_bytes())
    words = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    for name in ("pytorch_model.bin", "modeling_evil.py", "README.md"):
        (folder / name).write_text("not asked for")
    return folder


@pytest.fixture
def hub(repository, tmp_path):
    """(environment of a process that uses the hub, the requested paths)"""
    with serving(repository, tmp_path) as found:
        yield found


@contextlib.contextmanager
def serving(repository: Path, tmp_path: Path, stall: threading.Event | None = None):
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(repository, asked, stall))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}", "HF_HOME": str(tmp_path / "home")}
    yield environment, asked
    server.shutdown()
    server.server_close()


def base_command(out: Path, **keys) -> list[str]:
    template = str(ROOT / "config/chat_templates/turns.jinja")
    model = {"id": "org/base", "revision": REVISION, "chat_template": template, "pad_token": "<unk>", **keys}
    arguments = ["--model", "m", "--settings", json.dumps({"model": {"hub": model}}), "--seed", "1", "--out", str(out)]
    return [sys.executable, "-m", "salsa", "base", *arguments]


def base(environment, out: Path, **keys) -> subprocess.CompletedProcess:
    command = base_command(out, **keys)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_base_checkpoint_is_fetched_at_its_revision_and_prepared_for_chat(hub, tmp_path, llamas):
    environment, asked = hub
    done = base(environment, tmp_path / "base")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "base"
    assert not any(name in path for path in asked for name in (".bin", ".py", "README"))
    assert (folder / "model.safetensors").read_bytes() == (llamas[0] / "model.safetensors").read_bytes()
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.pad_token_id) == ("<unk>", "</s>", 0)
    assert load_causal(folder).config.pad_token_id == 0
    ids = render(tokenizer, [{"role": "user", "content": "hi"}], add_generation_prompt=True)
    assert tokenizer.decode(ids) == "<s>### User:\nhi\n### Assistant:\n"
    assert not [path.name for path in folder.iterdir() if path.is_dir()], "the client's bookkeeping is removed"
    assert json.loads((folder / "run.json").read_text())["revision"] == REVISION


REFUSED = [  # keys of a hub model, and how its error begins
    ({"pad_token": "<pad>"}, "models: org/base: <pad> cannot be the pad token: name one of its vocabulary, not EOS"),
    ({"pad_token": "</s>"}, "models: org/base: </s> cannot be the pad token: name one of its vocabulary, not EOS"),
    ({"revision": "0" * 40}, f"org/base@{'0' * 40}: cannot download it ("),
    ({"chat_template": "none.jinja"}, "chat_template none.jinja: cannot read it: No such file or directory"),
]
RUN_EACH = """
import json, sys
from salsa.__main__ import COMMANDS
from salsa.runtime.command import run_command

for words in json.load(sys.stdin):
    print("status", run_command("salsa base", COMMANDS["base"][0], "", words), file=sys.stderr)
"""


def test_failed_fetch_is_one_line(hub, tmp_path):
    """All in one process, because each takes seconds to start."""
    commands = [base_command(tmp_path / "base", **keys)[4:] for keys, _ in REFUSED]
    given = {"input": json.dumps(commands), "cwd": ROOT, "env": hub[0]}
    done = subprocess.run([sys.executable, "-c", RUN_EACH], capture_output=True, text=True, timeout=120, **given)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith(("error:", "status"))]
    assert len(said) == 2 * len(REFUSED)
    for line, status, (_, expected) in zip(said[::2], said[1::2], REFUSED, strict=True):
        assert line.startswith(f"error: {expected}") and status == "status 1"
    assert not (tmp_path / "base").exists()


def test_killed_download_keeps_complete_files(repository, tmp_path):
    """huggingface_hub restarts a partial file and keeps complete ones."""
    (repository / "more.safetensors").write_bytes(random.Random(1).randbytes(3000))
    stall = threading.Event()
    with serving(repository, tmp_path, stall) as (environment, asked):
        process = subprocess.Popen(
            base_command(tmp_path / "base"), cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )
        assert stall.wait(60)
        unfinished = tmp_path / f".base.{REVISION}.download"
        deadline = time.monotonic() + 30
        while not all((unfinished / name).exists() for name in ("more.safetensors", "config.json")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert not (tmp_path / "base").exists()
        done = base(environment, tmp_path / "base")
    assert done.returncode == 0, done.stderr
    sent = [path.rpartition("/")[2] for path in asked if path.startswith("sent ")]
    assert sent.count("model.safetensors") == 2 and sent.count("more.safetensors") == 1 == sent.count("config.json")
    for name in ("model.safetensors", "more.safetensors"):
        assert (tmp_path / "base" / name).read_bytes() == (repository / name).read_bytes()
    assert not unfinished.exists()


def test_pad_tokens_of_the_paper_grid_are_not_eos():
    import yaml

    config = parse_config(yaml.safe_load((ROOT / "config/paper.yaml").read_text()), "config/paper.yaml")
    assert {model.hub.pad_token for model in config.models.values()} == {"<unk>", "<pad>"}


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.fixture
def data_set(tmp_path, monkeypatch) -> Path:
    """UltraFeedback's columns and split names, as Parquet files of a hub repository."""
    import datasets

    folder = tmp_path / "ultrafeedback"
    (folder / "data").mkdir(parents=True)
    common = {"prompt": ["a", "b"], "prompt_id": ["1", "2"]}
    common |= {"chosen": [talk("a", "x"), talk("b", "y")], "rejected": [talk("a", "z"), talk("b", "")]}
    scores = {"score_chosen": [8.0, 7.0], "score_rejected": [3.0, 7.0]}
    for split, messages in {
        "train_prefs": [talk("a", "x"), talk("b", "y")],
        "train_gen": [talk("a"), talk("b")],
    }.items():
        rows = datasets.Dataset.from_dict({**common, "messages": messages, **scores})
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    splits = [{"split": split, "path": f"data/{split}-*"} for split in ("train_prefs", "train_gen")]
    card = {"configs": [{"config_name": "default", "data_files": splits}]}
    (folder / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return folder


def test_hub_data_set_is_read_by_split(data_set):
    source = DataSource(hub=str(data_set), revision=REVISION, split="train_prefs")
    rows = load_rows(source, 1)
    assert [row["prompt_id"] for row in rows] == ["1", "2"]
    pair, blank = convert_rows(preference, rows)
    assert pair == (talk("a", "x"), talk("a", "z")) and blank.reason == "empty"
    assert demonstration(rows[0]) == talk("a", "x")
    generation = load_rows(source.model_copy(update={"split": "train_gen"}), 1)
    assert [conversation(row) for row in generation] == [talk("a"), talk("b")]


def test_missing_split_is_one_line(data_set):
    with pytest.raises(UserError, match="split train_other: cannot load it"):
        load_rows(DataSource(hub=str(data_set), revision=REVISION, split="train_other"), 1)


def options(source: dict[str, str]) -> list[str]:
    return [part for key, value in source.items() for part in (f"--{key}", value)]


def test_fetched_file_equals_the_split(data_set, tmp_path, command):
    source = {"hub": str(data_set), "revision": REVISION, "split": "train_prefs"}
    out = tmp_path / "train_prefs.jsonl"
    assert command("salsa", "fetch", *options(source), "--out", out)[0] == 0
    assert load_rows(DataSource(path=str(out)), 1) == load_rows(DataSource(**source), 1)
    assert json.loads(out.with_suffix(".run.json").read_text())["settings"] == source
    wrong = {**source, "revision": "main"}
    status, said = command("salsa", "fetch", *options(wrong), "--out", tmp_path / "x.jsonl")
    assert status == 1 and f"error: {data_set}: revision: " in said and not (tmp_path / "x.jsonl").exists()


def local(command, path: Path, out: Path, **keys) -> tuple[int, str]:
    template = str(ROOT / "config/chat_templates/turns.jinja")
    model = {"path": str(path), "chat_template": template, "pad_token": "<unk>", **keys}
    settings = json.dumps({"model": {"local": model}})
    return command("salsa", "base", "--model", "m", "--settings", settings, "--seed", 1, "--out", out)


def test_folder_serves_as_base_model_without_copying_weights(repository, tmp_path, command, llamas):
    assert local(command, repository, tmp_path / "base")[0] == 0
    assert (tmp_path / "base/model.safetensors").is_symlink()
    assert not (tmp_path / "base/pytorch_model.bin").exists() and not (tmp_path / "base/modeling_evil.py").exists()
    weights = load_causal(tmp_path / "base").state_dict()
    assert all(weights[name].equal(weight) for name, weight in load_causal(llamas[0]).state_dict().items())
    assert load_tokenizer(tmp_path / "base").pad_token == "<unk>"
    assert (repository / "config.json").read_bytes() == (llamas[0] / "config.json").read_bytes(), (
        "the source folder is unchanged"
    )
    assert json.loads((tmp_path / "base/run.json").read_text())["inputs"]["checkpoint"]["id"].startswith("sha256:")


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("model.safetensors", r"no \*\.safetensors there: save the checkpoint in that format"),
        ("config.json", r"no config\.json there: name a folder with a checkpoint and its tokenizer"),
    ],
)
def test_folder_without_checkpoint_is_one_line(repository, tmp_path, command, missing, expected):
    (repository / missing).unlink()
    status, said = local(command, repository, tmp_path / "base")
    assert status == 1 and re.fullmatch(rf"error: models: \S+/repository: {expected}\n", said)
    assert not (tmp_path / "base").exists()


def test_tokenizer_model_without_tokenizer_json_is_refused(repository, tmp_path, command):
    """Beside tokenizer.json it does no harm."""
    (repository / "tokenizer.model").write_bytes(b"pieces and their scores")
    assert local(command, repository, tmp_path / "base")[0] == 0
    (repository / "tokenizer.json").unlink()
    status, said = local(command, repository, tmp_path / "other")
    assert status == 1 and said.count("\n") == 1
    assert "repository: tokenizer.model without tokenizer.json" in said and "transformers 4" in said
    with serving(repository, tmp_path) as (environment, _):
        fetched = base(environment, tmp_path / "fetched")
    assert fetched.returncode == 1 and "error: models: org/base: tokenizer.model without" in fetched.stderr


def test_tokenizer_and_model_must_share_eos(repository, tmp_path, command):
    config = json.loads((repository / "config.json").read_text())
    (repository / "config.json").write_text(json.dumps({**config, "eos_token_id": 7}))
    status, said = local(command, repository, tmp_path / "base")
    assert status == 1
    assert "EOS is </s> (id 2) in its tokenizer and 7 in its config.json: correct the wrong one" in said
    (repository / "config.json").write_text(json.dumps({**config, "eos_token_id": [7, 2]}))
    assert local(command, repository, tmp_path / "base")[0] == 0


def test_chat_templates_mark_assistant_text(repository):
    """A dialogue without its last answer is a prefix of the dialogue with it; the marked text is the answers."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(repository)
    messages = talk("hi", " hello ", "and?", "so")
    for path in sorted((ROOT / "config/chat_templates").iterdir()):
        tokenizer.chat_template = path.read_text()
        found = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        marked = [i for i, mark in zip(found["input_ids"], found["assistant_masks"], strict=True) if mark]
        assert tokenizer.decode(marked) == "hello</s>so</s>", path.name
        prompt = render(tokenizer, messages[:-1], add_generation_prompt=True)
        assert found["input_ids"][: len(prompt)] == prompt, path.name
