"""Partial answers of an interrupted `generate` run. A restarted run reads them and generates only the rest.

One line per batch: {seed: [token_ids, ended]}, where the seed identifies a question's turn. A batch is stored
completely or not at all, so the restarted run uses the same batches.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from salsa.models.sampling import Answer
from salsa.runtime.errors import UserError


class PartialAnswers:
    """Answers stored beside the output file. The run's id is in the name, so other settings do not share them."""

    def __init__(self, path: Path, run: str):
        self.folder, self.name = path.parent, path.stem
        self.path = path.with_name(f".{path.stem}.{run}.answers.jsonl")
        self.answers: dict[int, Answer] = {}
        data = self.path.read_bytes() if self.path.exists() else b""
        self.whole = data.rfind(b"\n") + 1
        for line in data[: self.whole].splitlines():
            self._store(json.loads(line))

    def _store(self, batch: dict[str, tuple[list[int], bool]]) -> None:
        self.answers |= {int(seed): Answer(token_ids, ended) for seed, (token_ids, ended) in batch.items()}

    def get(self, seeds: Sequence[int]) -> list[Answer] | None:
        """The answers of a batch, if all are stored."""
        return [self.answers[seed] for seed in seeds] if all(seed in self.answers for seed in seeds) else None

    def add(self, seeds: Sequence[int], answers: Sequence[Answer]) -> None:
        """Store a batch; it is on disk when this returns. Overwrites an incomplete line that a killed run left."""
        batch = {str(seed): (answer.token_ids, answer.ended) for seed, answer in zip(seeds, answers, strict=True)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.truncate(self.whole)
                self.whole += file.write(json.dumps(batch).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}: fix this and rerun; the run resumes from here") from None
        self._store(batch)

    def remove(self) -> None:
        """Remove the partial answers once the output exists, also those of other runs."""
        for path in self.folder.glob(f".{self.name}.*.answers.jsonl"):
            path.unlink(missing_ok=True)
