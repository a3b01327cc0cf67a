"""The processes that share a run, each on a device of its own: who takes which rows, and how all know the same.

accelerate's launcher starts them (docs/howto-gpus.md). All of them make the calls here in the same order; with one
process each call is the plain thing itself.
"""

import contextlib
import gc
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, broadcast_object_list, gather_object
from transformers.integrations import unset_hf_deepspeed_config

from salsa.runtime.errors import Interrupted, UserError
from salsa.runtime.log import log

T = TypeVar("T")


def accelerator() -> Accelerator:
    """accelerate's view of this process, from what its launcher said. Each model in training needs one of its own."""
    found = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)])
    if found.distributed_type == DistributedType.DEEPSPEED:
        plain_loading()
    if found.mixed_precision != "no":
        raise UserError(
            f"accelerate: mixed_precision is {found.mixed_precision}: set it to no; the stage's setting dtype says "
            "what to compute in, on one device and on many"
        )
    return found


def plain_loading() -> None:
    """Lets transformers load models whole under ZeRO-3: the frozen ones stay so, and the others are spread later."""
    unset_hf_deepspeed_config()


@contextlib.contextmanager
def joined() -> Iterator[contextlib.ExitStack]:
    """Among the other processes, on this one's device; only the main one says how the run goes. Gives a stack of what
    is to be done before it leaves them, after a run that is done or that all processes stopped together.

    After any other error a process just ends, and the launcher ends the others: to take leave of them it would have to
    wait for those that wait for it.
    """
    accelerator()
    if not is_main():
        log.setLevel(logging.ERROR)
    before_leaving, stop = contextlib.ExitStack(), None
    try:
        yield before_leaving
    except Interrupted as error:
        stop = error
    before_leaving.close()
    # The models have to go first. As the last to hold the process group, DDP's reducer would wait for gloo's thread,
    # which waits for the interpreter's lock that the reducer holds (torch 2.13).
    if stop is not None:
        traceback.clear_frames(stop.__traceback__)
    gc.collect()
    PartialState().destroy_process_group()
    if stop is not None:
        raise stop


def count() -> int:
    return int(PartialState().num_processes)


def is_main() -> bool:
    return bool(PartialState().is_main_process)


def name() -> str:
    """This process's, among so many."""
    return f"{PartialState().process_index} of {count()}"


def share(rows: int) -> range:
    """Of so many rows, those of this process."""
    return range(PartialState().process_index, rows, count())


def dealt(lengths: Sequence[int]) -> list[int]:
    """Of rows with these lengths, those of this process, the longest first: dealt out so that all have equal work."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[place] for place in share(len(order))]


def gathered(found: Mapping[int, T]) -> list[T]:
    """Each row's, in the rows' order, of what every process found for those it took."""
    everything = {row: one for part in gather_object([dict(found)]) for row, one in part.items()}
    return [everything[row] for row in sorted(everything)]


def total(figures: Mapping[str, float]) -> dict[str, float]:
    """The sums of the processes' figures."""
    parts = gather_object([dict(figures)])
    return {name: sum(part[name] for part in parts) for name in figures}


def any_says(flag: bool) -> bool:
    """Whether it is so in any of the processes."""
    return any(gather_object([flag]))


def on_main(action: Callable[[], T]) -> T:
    """What the main process alone does: all of them return what it returns, or raise what it raises."""
    if count() == 1:
        return action()
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = action()
        except Exception as error:
            outcome[1] = error
    result, failure = broadcast_object_list(outcome)
    if failure is not None:
        raise failure
    return cast(T, result)
