"""A PPO run that is interrupted in any way ends with the same bytes as an undisturbed one."""

import contextlib
import json
import os
import signal
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.distributed.checkpoint.api import CheckpointException

from salsa.algorithms import ppo
from salsa.alignment import resume, training
from salsa.alignment.align import load_prompts
from salsa.checkpoints.loading import load_causal
from salsa.checkpoints.saving import kept_checkpoints
from salsa.config.algorithms import Ppo
from salsa.models.sampling import Answer
from salsa.rollouts import samplers
from salsa.rollouts.samplers import TransformersSampler
from salsa.runtime import trackers
from salsa.runtime.errors import RESUBMIT
from salsa.runtime.jsonl import read_jsonl
from tests.salsa.alignment.small_run import load_run, settings, weights
from tests.salsa.launched import Launched, ended

EVERY_STEP = ("--checkpoint-minutes", 0)
EMA = {"ema": {"rate": 0.1}}
STEPS = 4


class Fault(Exception):
    """An exception that no code here catches. For the state on disk it is like a kill."""


@contextlib.contextmanager
def fault(monkeypatch, module, name: str, call: int, after: bool = False) -> Iterator[None]:
    """Inside the context, that call of module.name fails, before or after its work; the call has to happen."""
    plain, calls = getattr(module, name), [0]

    def faulty(*arguments, **options):
        calls[0] += 1
        if calls[0] != call:
            return plain(*arguments, **options)
        if after:
            plain(*arguments, **options)
        raise Fault

    with monkeypatch.context() as patched:
        patched.setattr(module, name, faulty)
        try:
            yield
        except Fault:
            return
        pytest.fail(f"{name} was not called {call} times")


def the_same(tmp_path: Path, name: str, other: str) -> bool:
    metrics = [(tmp_path / f"{run}.jsonl").read_bytes() for run in (name, other)]
    return weights(tmp_path / name) == weights(tmp_path / other) and metrics[0] == metrics[1]


# A step is a rollout and 4 updates; it is saved after each.
FAULTS = [
    *((training, "collect", call, True) for call in (1, 2, STEPS)),
    *((ppo.Ppo, "update", call, True) for call in (1, 4, 7, 4 * STEPS)),
    *((resume.dcp, "save", call, after) for call in (1, 3) for after in (False, True)),
    (resume, "write_jsonl", 3, True),
    (resume.shutil, "rmtree", 2, False),
]


def test_fault_at_any_point_changes_nothing(align, llamas, tmp_path, monkeypatch):
    """With a moving reference, which has the most state."""
    align("whole", llamas[1], strategy=EMA, steps=STEPS)
    for number, where in enumerate(FAULTS):
        with fault(monkeypatch, *where):
            align(str(number), llamas[1], strategy=EMA, steps=STEPS, options=EVERY_STEP)
        align(str(number), llamas[1], strategy=EMA, steps=STEPS, options=EVERY_STEP)
        assert the_same(tmp_path, str(number), "whole"), where
        assert not (tmp_path / f"{number}.training").exists()


def test_saving_states_changes_nothing(align, llamas, reward_model, prompts_file, prepared, tmp_path):
    """Policy and metrics equal those of the training alone, without states on disk."""
    rows = align("saved", llamas[1], options=EVERY_STEP)
    config = Ppo.model_validate(settings(prompts_file))
    models, algorithm = load_run(llamas[0], llamas[1], reward_model, config)
    prompts, _ = load_prompts(config, llamas[0], 1, prepared)
    sampler = TransformersSampler(models.tokenizer, config)
    alone = training.Training(algorithm, models, sampler, prompts, config, seed=1, rl_seed=1, gold=True)
    assert training.train(alone) == rows
    saved = load_causal(tmp_path / "saved").state_dict()
    assert all(torch.equal(weight, saved[name]) for name, weight in models.policy.model.state_dict().items())


def test_kept_checkpoint_is_the_policy_of_a_run_that_ends_there(align, llamas, tmp_path, monkeypatch):
    """With a constant learning rate; keeping it changes nothing of the run, and a resumed run has it, too."""
    align("short", llamas[1], steps=1, schedule="constant")
    align("plain", llamas[1], steps=STEPS, schedule="constant")
    align("kept", llamas[1], steps=STEPS, schedule="constant", checkpoints_at=[1])
    assert the_same(tmp_path, "kept", "plain")
    assert list(kept_checkpoints(tmp_path / "plain")) == []
    assert weights(kept_checkpoints(tmp_path / "kept")[1]) == weights(tmp_path / "short")
    again = {"steps": STEPS, "schedule": "constant", "checkpoints_at": [1], "options": EVERY_STEP}
    with fault(monkeypatch, training, "collect", STEPS, True):
        align("resumed", llamas[1], **again)
    align("resumed", llamas[1], **again)
    assert weights(kept_checkpoints(tmp_path / "resumed")[1]) == weights(tmp_path / "short")


def test_kill_9_changes_nothing(align, launch, llamas, reward_model, prompts_file, tmp_path):
    """A real process is killed again and again, each time after it has written another step's metrics."""

    def start(name: str) -> Launched:
        given = json.dumps(settings(prompts_file, steps=6))
        models = ("--init", llamas[0], "--reference", llamas[1], "--sft", llamas[0], "--reward", reward_model)
        out = ("--out", tmp_path / name, "--settings", given, *EVERY_STEP)
        [started] = launch(None, "align", *models, "--seed", 1, "--gold", *out)
        return started

    def lines() -> int:
        return sum(path.read_bytes().count(b"\n") for path in (tmp_path / "killed.training").glob("*/metrics.jsonl"))

    align("whole", llamas[1], steps=6)
    killed = start("killed")
    for goal in (1, 4):
        while lines() < goal:
            assert killed.process.is_alive(), killed.said
            time.sleep(0.005)
        killed.signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
        assert not (tmp_path / "killed").exists()
        killed = start("killed")
    [said] = ended([killed])
    assert "ppo: resuming after" in said
    assert the_same(tmp_path, "killed", "whole")


def test_sigterm_saves_the_state_and_asks_for_a_rerun(align, llamas, tmp_path, monkeypatch, capsys):
    align("whole", llamas[0], steps=STEPS)
    before = signal.getsignal(signal.SIGTERM)
    plain, calls = training.collect, []

    def signalled(*arguments):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(training, "collect", signalled)
        align("stopped", llamas[0], steps=STEPS, status=RESUBMIT)
    assert "ppo: stopped after 2 steps on SIGTERM; rerun the same command to resume from" in capsys.readouterr().err
    assert len(calls) == 2 and signal.getsignal(signal.SIGTERM) == before
    align("stopped", llamas[0], steps=STEPS)
    assert the_same(tmp_path, "stopped", "whole")


def test_only_the_newest_states_are_kept(align, llamas, monkeypatch):
    kept, plain = [], resume.Checkpoints.save

    def seen(checkpoints, *arguments):
        plain(checkpoints, *arguments)
        kept.append(checkpoints.steps())

    monkeypatch.setattr(resume.Checkpoints, "save", seen)
    align("one", llamas[0], steps=STEPS, options=EVERY_STEP)
    align("two", llamas[0], steps=STEPS, options=(*EVERY_STEP, "--keep-checkpoints", 2))
    align("none", llamas[0], steps=STEPS)
    assert kept == [[1], [2], [3], [4], [1], [1, 2], [2, 3], [3, 4]]


def test_other_settings_ignore_the_state(align, llamas, tmp_path, monkeypatch):
    align("whole", llamas[0], learning_rate=2e-3)
    with fault(monkeypatch, ppo.Ppo, "update", 6):
        align("other", llamas[0], options=EVERY_STEP)
    align("other", llamas[0], learning_rate=2e-3)
    assert the_same(tmp_path, "other", "whole")


def test_unreadable_state_is_named(align, llamas, tmp_path, monkeypatch, capsys):
    with fault(monkeypatch, ppo.Ppo, "update", 10):
        align("torn", llamas[0], steps=STEPS, options=(*EVERY_STEP, "--keep-checkpoints", 2))
    [newest] = (tmp_path / "torn.training").glob("*/step-000002")
    for file in [*newest.glob("*.distcp"), newest / ".metadata"]:
        file.write_bytes(file.read_bytes()[:100])
        align("torn", llamas[0], steps=STEPS, status=1)
        assert f"error: {newest}: cannot read it (" in (said := capsys.readouterr().err)
        assert "remove it to resume from step-000001" in said and "Traceback" not in said


def test_full_disk_stops_the_run_and_keeps_the_last_state(align, llamas, tmp_path, monkeypatch, capsys):
    plain = resume.dcp.save

    def full(*arguments, **options):
        if "step-000003" in str(options["checkpoint_id"]):
            raise CheckpointException("save", {0: (OSError(28, "No space left on device"), None)})
        plain(*arguments, **options)

    align("whole", llamas[0], steps=STEPS)
    with monkeypatch.context() as patched:
        patched.setattr(resume.dcp, "save", full)
        align("full", llamas[0], steps=STEPS, options=EVERY_STEP, status=1)
    said = capsys.readouterr().err
    assert "cannot save it ([Errno 28] No space left on device): make room and rerun" in said
    assert "the run resumes from step-000002" in said and "Traceback" not in said
    align("full", llamas[0], steps=STEPS)
    assert the_same(tmp_path, "full", "whole")


def test_non_finite_loss_stops_the_run(align, llamas, tmp_path, monkeypatch, capsys):
    plain, calls = ppo.policy_losses, []

    def diverging(*arguments):
        calls.append(1)
        losses, clipped = plain(*arguments)
        return (losses * float("nan") if len(calls) == 6 else losses), clipped

    monkeypatch.setattr(ppo, "policy_losses", diverging)
    align("nan", llamas[0], options=EVERY_STEP, status=1)
    said = capsys.readouterr().err
    assert "error: ppo: step 1: loss_policy and grad_norm_policy not finite: lower ppo.learning_rate" in said
    assert f"saved states are in {tmp_path / 'nan.training'}" in said
    [metrics] = (tmp_path / "nan.training").glob("*/step-000001/metrics.jsonl")
    assert [row["step"] for row in read_jsonl(metrics)] == [0]
    assert not (tmp_path / "nan").exists()


def test_run_stops_at_max_kl_and_resumes_with_a_higher_one(align, llamas, tmp_path, capsys):
    kl = [row["kl_ref_k1"] for row in align("whole", llamas[1], steps=STEPS)]
    worst = max(range(STEPS), key=kl.__getitem__)
    align("far", llamas[1], steps=STEPS, max_kl=kl[worst] - 1e-6, options=EVERY_STEP, status=1)
    assert f"error: ppo: step {worst}: the KL to the reference is {kl[worst]:.4g} nats" in capsys.readouterr().err
    align("far", llamas[1], steps=STEPS, max_kl=kl[worst] + 1e-6)
    assert the_same(tmp_path, "far", "whole")


def test_only_empty_responses_stop_the_run(align, llamas, monkeypatch, capsys):
    def silent(model, prompts, temperatures, limit, seeds, eos, pad):
        return [Answer([eos[0]], True, [0.0]) for _ in prompts]

    monkeypatch.setattr(samplers, "sample", silent)
    align("silent", llamas[0], status=1)
    assert "error: ppo: step 0: all responses are empty: lower ppo.learning_rate" in capsys.readouterr().err


def test_tensorboard_equals_the_metrics_file(align, llamas, tmp_path, monkeypatch):
    """Also after an interruption. The default has no tracker."""
    board = ("--report-to", "tensorboard")
    with fault(monkeypatch, training, "collect", 3):
        align("seen", llamas[0], steps=STEPS, options=(*EVERY_STEP, *board))
    rows = align("seen", llamas[0], steps=STEPS, options=(*EVERY_STEP, *board))
    events = EventAccumulator(str(tmp_path / "seen.board" / "salsa"))
    events.Reload()
    for name in ("reward", "kl_ref_k1", "loss_policy"):
        assert [event.step for event in events.Scalars(name)] == list(range(STEPS))
        assert [event.value for event in events.Scalars(name)] == pytest.approx([row[name] for row in rows])
    align("unseen", llamas[0])
    assert not (tmp_path / "unseen.board").exists()


class UsageError(Exception):
    pass


class CommError(Exception):
    pass


@pytest.fixture
def wandb(monkeypatch):
    """A simulated wandb: wandb(when, error) makes its tracker fail at the start, on the way, or at the end."""
    plan = {}

    class Tracker:
        def __init__(self, **keys):
            self.trackers = [self]

        def at(self, when):
            if when in plan:
                raise plan[when]

        def init_trackers(self, *_, **keys):
            self.at("start")

        def log(self, figures, step):
            if step == 1:
                self.at("way")

        def finish(self):
            self.at("end")

    errors = types.SimpleNamespace(UsageError=UsageError, Error=CommError)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(errors=errors))
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["wandb"])
    monkeypatch.setattr(trackers, "Accelerator", Tracker)
    return plan.__setitem__


@pytest.mark.parametrize("when", ["start", "way", "end"])
def test_unreachable_tracker_is_a_warning(align, llamas, wandb, when, caplog):
    wandb(when, CommError("timed out\nand more"))
    rows = align("x", llamas[0], steps=2, options=("--report-to", "wandb"))
    assert [row["step"] for row in rows] == [0, 1]
    assert caplog.text.count("--report-to wandb failed (timed out); training continues without it") == 1


def test_tracker_without_a_key_is_one_line(align, llamas, wandb, capsys):
    wandb("start", UsageError("No API key configured. Use `wandb login` to log in."))
    align("x", llamas[0], options=("--report-to", "wandb"), status=1)
    assert (
        "error: --report-to wandb: No API key configured. Use `wandb login` to log in. Or set WANDB_MODE=offline."
        in (capsys.readouterr().err)
    )


def test_unknown_trackers_are_refused(align, llamas, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        align("x", llamas[0], options=("--report-to", "tensorboard,comet"))
    assert "comet: unknown tracker: choose from tensorboard, wandb, or none" in capsys.readouterr().err
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["wandb"])
    align("x", llamas[0], options=("--report-to", "tensorboard"), status=1)
    assert "error: --report-to tensorboard: not installed: pip install tensorboard" in capsys.readouterr().err
