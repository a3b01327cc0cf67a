"""Where PPO's frozen models should stay: what each place takes on the planned devices, and which is cheapest."""

from dataclasses import dataclass
from typing import get_args

from eval.costs.assumed import Device
from eval.costs.sizes import Sizes
from eval.costs.stage_costs import Costs
from eval.costs.work import GIGABYTE
from eval.planning.jobs import Job
from eval.planning.schedule import Run, place
from salsa.config.algorithms import Grpo, Ppo, Rl, Rloo
from salsa.config.config import Config, algorithm_settings
from salsa.config.sections import FrozenPlace
from salsa.runtime.texts import counted

PLACES: tuple[FrozenPlace, ...] = get_args(FrozenPlace)
ALIKE = 1.15  # a plan does not tell device hours apart that differ by less


@dataclass(frozen=True)
class Choice:
    """A model's PPO runs with their frozen models at a place; `runs` has one for each method."""

    model: str
    place: FrozenPlace
    runs: tuple[Run, ...]
    host: float  # bytes in the host's memory for each device

    @property
    def largest(self) -> Run:
        return max(self.runs, key=lambda run: (run.count, run.memory))

    @property
    def hours(self) -> float:
        """Mean device hours of a run."""
        return sum(run.device_seconds for run in self.runs) / len(self.runs) / 3600

    def fits(self, device: Device, count: int) -> bool:
        room = (device.host_memory or 0.0) * GIGABYTE
        return all(run.fits and run.count <= count for run in self.runs) and self.host <= room


def rl_settings(config: Config, model: str) -> dict[str, Rl]:
    """The settings of a model's methods whose algorithm samples responses."""
    names = [name for name, method in config.methods.items() if method.algorithm != "none"]
    settings = {name: algorithm_settings(config, model, name) for name in names}
    return {name: one for name, one in settings.items() if isinstance(one, Ppo | Rloo | Grpo)}


def choices(sizes: Sizes, model: str, device: Device) -> list[Choice]:
    """The model's PPO runs with their frozen models at each place."""
    costs, settings = Costs(sizes, model), rl_settings(sizes.local, model)

    def at(where: FrozenPlace) -> Choice:
        placed = {name: one.model_copy(update={"frozen_models": where}) for name, one in settings.items()}
        runs = [place(Job("align", name, model, (), costs.rl(one, name)), device) for name, one in placed.items()]
        host = max(costs.frozen_bytes(one, name) for name, one in placed.items()) if where == "host" else 0.0
        return Choice(model, where, tuple(runs), host)

    return [at(where) for where in PLACES] if settings else []


def best(options: list[Choice], configured: set[FrozenPlace], device: Device, count: int) -> Choice | None:
    """The place with the fewest device hours among those that fit; None if none does.

    Of places that are equally good, the configured one, else the first.
    """
    fitting = [choice for choice in options if choice.fits(device, count)]
    least = min((choice.hours for choice in fitting), default=0.0)
    good = [choice for choice in fitting if choice.hours <= ALIKE * least]
    return next((choice for choice in good if {choice.place} == configured), next(iter(good), None))


def frozen_lines(config: Config, device: Device, count: int) -> list[str]:
    """For each model the best place of its frozen models, and what the others would take; none for a plan on CPUs."""
    sizes, lines = Sizes(config), []
    for model in config.models if device.memory else ():
        options = choices(sizes, model, device)
        costs, settings = Costs(sizes, model), rl_settings(config, model)
        # With LoRA all frozen models may be on the policy's base.
        if not any(costs.frozen_bytes(one, name) for name, one in settings.items()):
            continue
        configured = {settings.frozen_models for settings in rl_settings(config, model).values()}
        cheapest = best(options, configured, device, count)
        others = [one for one in options if one is not cheapest and one.place in (*configured, "auto", "host")]
        texts = [described(choice, device, count) for choice in ([cheapest] if cheapest else []) + others]
        lines.append(f"           {model}  {'; '.join(texts)}")
        if cheapest and configured != {cheapest.place}:
            lines.append(f"           {model}  set models.{model}.settings.ppo.frozen_models: {cheapest.place}")
    head = "frozen     what PPO takes by ppo.frozen_models, with device hours per run; the first place is the best"
    return [head, *lines] if lines else []


def described(choice: Choice, device: Device, count: int) -> str:
    """What a place takes, in words."""
    run = choice.largest
    devices = counted(run.count, "device")
    if not run.fits:
        return f"{choice.place} does not fit: {run.memory / GIGABYTE:.0f} GB on {devices}"
    host = f" and {choice.host / GIGABYTE:.0f} GB of host memory for each" if choice.host else ""
    short = "" if choice.fits(device, count) else ", too much here"
    return f"{choice.place}: {run.memory / GIGABYTE:.0f} GB on {devices}{host}, {choice.hours:.1f} h{short}"
