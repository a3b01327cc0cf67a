"""What a judge is asked: templates by name, filled in a single pass."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from eval.benchmarks import Question
from salsa.errors import UserError
from salsa.stage import read_jsonl

OWN = Path(__file__).parent / "templates" / "judge_prompts.yaml"
PLACE = re.compile(r"\{([a-z_0-9]+)\}")
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Template:
    system: str
    user: str


@dataclass(frozen=True)
class Templates:
    """The templates by name, and a hash of their texts for the record."""

    named: Mapping[str, Template]
    sha256: str

    def messages(self, name: str, values: Mapping[str, str]) -> Messages:
        """The judge's conversation. Texts that look like places to fill stay as they are: there is one pass."""
        template = self.named[name]
        user = PLACE.sub(lambda found: values[found[1]] if found[1] in values else found[0], template.user)
        system = [{"role": "system", "content": template.system}] if template.system else []
        return [*system, {"role": "user", "content": user}]


def load_templates(path: str | None) -> Templates:
    """Our own templates; of those, the ones that FastChat's judge_prompts.jsonl at `path` has, from there."""
    named = {name: Template(**texts) for name, texts in yaml.safe_load(OWN.read_text(encoding="utf-8")).items()}
    if path is not None:
        for number, row in enumerate(read_jsonl(Path(path)), 1):
            try:
                named[row["name"]] = Template(row["system_prompt"], row["prompt_template"])
            except KeyError as error:
                raise UserError(f"{path}:{number}: no {error.args[0]}: mend the line") from None
    texts = json.dumps({name: [template.system, template.user] for name, template in sorted(named.items())})
    return Templates(named, hashlib.sha256(texts.encode()).hexdigest())


def references(question: Question) -> dict[str, str]:
    return {f"ref_answer_{n}": text for n, text in enumerate(question.reference or (), 1)}


def pair_messages(
    templates: Templates, kind: str, question: Question, turn: int, first: list[str], second: list[str]
) -> Messages:
    """What is asked about two policies' answers up to and with `turn` (1 or 2); `first` is shown as assistant A."""
    if kind == "arena_hard":
        return templates.messages(
            "arena-hard", {"question": question.turns[0], "answer_a": first[0], "answer_b": second[0]}
        )
    name = "pair-math-v1" if question.reference else "pair-v2"
    values = references(question)
    if turn == 1:
        values |= {"question": question.turns[0], "answer_a": first[0], "answer_b": second[0]}
        return templates.messages(name, values)
    values |= {f"question_{n}": text for n, text in enumerate(question.turns, 1)}
    values |= {f"answer_a_{n}": text for n, text in enumerate(first, 1)}
    values |= {f"answer_b_{n}": text for n, text in enumerate(second, 1)}
    return templates.messages(f"{name}-multi-turn", values)


def single_messages(templates: Templates, question: Question, turn: int, answers: list[str]) -> Messages:
    """What is asked about one policy's answers up to and with `turn`."""
    name = "single-math-v1" if question.reference else "single-v1"
    values = references(question)
    if turn == 1:
        return templates.messages(name, values | {"question": question.turns[0], "answer": answers[0]})
    values |= {f"question_{n}": text for n, text in enumerate(question.turns, 1)}
    values |= {f"answer_{n}": text for n, text in enumerate(answers, 1)}
    return templates.messages(f"{name}-multi-turn", values)
