"""Answers of an unfinished run of `generate`, beside the file to be: what is there is not generated again.

A line a batch, {seed: [token_ids, ended]}: the seed names a question's turn. A batch is kept whole or not at all, so
that the others are the same batches in the run that goes on.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from salsa.models.sampling import Answer
from salsa.runtime.errors import UserError


class Kept:
    """`run` is the run's id: other settings, policies or seeds keep nothing for each other."""

    def __init__(self, path: Path, run: str):
        self.folder, self.name = path.parent, path.stem
        self.path = path.with_name(f".{path.stem}.{run}.answers.jsonl")
        self.found: dict[int, Answer] = {}
        data = self.path.read_bytes() if self.path.exists() else b""
        self.whole = data.rfind(b"\n") + 1
        for line in data[: self.whole].splitlines():
            self._take(json.loads(line))

    def _take(self, batch: dict[str, tuple[list[int], bool]]) -> None:
        self.found |= {int(seed): Answer(token_ids, ended) for seed, (token_ids, ended) in batch.items()}

    def get(self, seeds: Sequence[int]) -> list[Answer] | None:
        """A batch's answers, if it is kept."""
        return [self.found[seed] for seed in seeds] if all(seed in self.found for seed in seeds) else None

    def add(self, seeds: Sequence[int], answers: Sequence[Answer]) -> None:
        """On disk when this returns; a line that a killed run has torn is overwritten."""
        batch = {str(seed): (answer.token_ids, answer.ended) for seed, answer in zip(seeds, answers, strict=True)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.truncate(self.whole)
                self.whole += file.write(json.dumps(batch).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}: mend that and run again, it goes on from here") from None
        self._take(batch)

    def remove(self) -> None:
        """When the file is there: also what other runs have left."""
        for path in self.folder.glob(f".{self.name}.*.answers.jsonl"):
            path.unlink(missing_ok=True)
