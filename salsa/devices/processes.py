"""Data-parallel processes of one run, one device each: split rows, gather results.

accelerate's launcher starts them (docs/howto-gpus.md). All processes have to call these functions in the same order.
With a single process each function is the identity or a plain call.
"""

import contextlib
import gc
import heapq
import logging
import math
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
    """A new Accelerator, configured by the launcher. Each trained model needs its own."""
    new = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)])
    if new.distributed_type == DistributedType.DEEPSPEED:
        load_models_unsharded()
    if new.mixed_precision != "no":
        raise UserError(
            f"accelerate: mixed_precision is {new.mixed_precision}: set it to no; the stage's dtype decides the "
            "precision, on one device and on many"
        )
    return new


def load_models_unsharded() -> None:
    """Make transformers load complete models under ZeRO-3. Frozen models stay complete; trained ones shard later."""
    unset_hf_deepspeed_config()


@contextlib.contextmanager
def process_group() -> Iterator[contextlib.ExitStack]:
    """Join the process group of the run; only the main process logs progress.

    Yields an ExitStack of clean-up work. It runs before the group is left, if the run finished or if all processes
    stopped together (Interrupted). After any other error the process just ends and the launcher kills the others:
    leaving the group would wait for processes that wait for this one.
    """
    accelerator()
    if not is_main():
        log.setLevel(logging.ERROR)
    cleanup, stop = contextlib.ExitStack(), None
    try:
        yield cleanup
    except Interrupted as error:
        stop = error
    cleanup.close()
    # Free the models first. If DDP's reducer held the last reference to the process group, it would wait for gloo's
    # thread, which waits for the GIL that the reducer holds (torch 2.13).
    if stop is not None:
        traceback.clear_frames(stop.__traceback__)
    gc.collect()
    PartialState().destroy_process_group()
    if stop is not None:
        raise stop


def use_fsdp2() -> bool:
    """Whether the launcher asks for sharded models (FSDP2)."""
    return bool(accelerator().distributed_type == DistributedType.FSDP)


def use_deepspeed() -> bool:
    """Whether the launcher asks for DeepSpeed."""
    return bool(accelerator().distributed_type == DistributedType.DEEPSPEED)


def count() -> int:
    return int(PartialState().num_processes)


def is_main() -> bool:
    return bool(PartialState().is_main_process)


def name() -> str:
    """For example "0 of 8"."""
    return f"{PartialState().process_index} of {count()}"


def even_rows(rows: int) -> range:
    """Indices of this process's rows: every `count()`-th of `rows`."""
    return range(PartialState().process_index, rows, count())


def balanced_batches(lengths: Sequence[int], size: int | None, tokens: int | None) -> list[list[int]]:
    """Indices of this process's rows, in batches for its forward passes.

    A batch has at most `size` rows and `tokens` tokens; a longer row is a batch of its own. Rows are dealt out by
    length, so processes get equal work, and each gets as many batches: under FSDP all make their passes together.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    shares = [order[process :: count()] for process in range(count())]
    local_rows = shares[PartialState().process_index]
    if tokens is None:
        size = size or len(local_rows)
        return [local_rows[begin : begin + size] for begin in range(0, len(local_rows), size)]

    def within(batch: list[int]) -> bool:
        return len(batch) == 1 or (
            sum(lengths[row] for row in batch) <= tokens and (size is None or len(batch) <= size)
        )

    number = max(1, *(math.ceil(sum(lengths[row] for row in share) / tokens) for share in shares))
    while not all(within(batch) for share in shares for batch in spread(share, lengths, number)):
        number += 1
    return spread(local_rows, lengths, number)


def spread(rows: Sequence[int], lengths: Sequence[int], number: int) -> list[list[int]]:
    """Divide rows into at most so many batches of similar length in total: each row goes to the shortest one."""
    batches: list[tuple[int, int, list[int]]] = [(0, place, []) for place in range(min(number, len(rows)))]
    for row in rows:
        total, place, batch = heapq.heappop(batches)
        heapq.heappush(batches, (total + lengths[row], place, [*batch, row]))
    return [batch for _, _, batch in sorted(batches, key=lambda entry: entry[1])]


def gather_rows(local: Mapping[int, T]) -> list[T]:
    """Collect per-row results from all processes, in row order. Each process gives {row: result} for its rows."""
    results = {row: result for part in gather_object([dict(local)]) for row, result in part.items()}
    return [results[row] for row in sorted(results)]


def sum_over_processes(figures: Mapping[str, float]) -> dict[str, float]:
    """Sum each figure over all processes."""
    parts = gather_object([dict(figures)])
    return {name: sum(part[name] for part in parts) for name in figures}


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return any(gather_object([flag]))


def run_on_main(action: Callable[[], T]) -> T:
    """Run `action` on the main process only. Every process returns its result, or raises its exception."""
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
