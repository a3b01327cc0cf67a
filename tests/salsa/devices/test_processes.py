"""How rows are divided into forward passes."""

import pytest

from salsa.devices import processes

LENGTHS = [700, 60, 50, 50, 40, 400, 300, 30, 20, 20, 10, 90]


def batches_by_process(monkeypatch, count: int, size: int | None, tokens: int | None) -> list[list[list[int]]]:
    """The batches of each of `count` processes."""
    monkeypatch.setattr(processes, "count", lambda: count)
    found = []
    for index in range(count):
        monkeypatch.setattr(processes, "PartialState", lambda index=index: type("State", (), {"process_index": index}))
        found.append(processes.balanced_batches(LENGTHS, size, tokens))
    return found


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("size", "tokens"), [(None, None), (2, None), (None, 500), (None, 110), (2, 500), (1, 10_000)])
def test_processes_make_as_many_passes_within_the_limits(monkeypatch, count, size, tokens):
    found = batches_by_process(monkeypatch, count, size, tokens)
    assert sorted(row for share in found for batch in share for row in batch) == list(range(len(LENGTHS)))
    assert len({len(share) for share in found}) == 1, "FSDP's processes gather each layer together"
    for batch in (batch for share in found for batch in share):
        assert batch and len(batch) <= (size or len(batch))
        assert tokens is None or len(batch) == 1 or sum(LENGTHS[row] for row in batch) <= tokens


def test_a_limit_of_tokens_takes_few_passes(monkeypatch):
    [batches] = batches_by_process(monkeypatch, 1, None, 700)
    assert len(batches) == 3, "1,770 tokens fill two and a half"
    assert batches[0] == [0], "a row as long as the limit"
