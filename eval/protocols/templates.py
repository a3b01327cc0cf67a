"""Judge prompt templates: load them, fill them in."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl

OWN = Path(__file__).with_name("judge_prompts.yaml")
PLACE = re.compile(r"\{((?:question|answer|answer_a|answer_b|ref_answer)(?:_\d+)?)\}")
OURS, BENCHMARKS = "ours", "the benchmark's own"
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Template:
    """System and user prompt; `source` names the file it comes from."""

    system: str
    user: str
    source: str = OURS


@dataclass(frozen=True)
class Templates:
    """Templates by name, and a hash of their texts for provenance."""

    named: Mapping[str, Template]
    sha256: str

    def full_name(self, name: str) -> str:
        """SOURCE:NAME, for stored rows."""
        return f"{self.named[name].source}:{name}" if name in self.named else name

    def messages(self, name: str, values: Mapping[str, str], judged: Sequence[str] = ()) -> Messages:
        """Fill a template; returns the judge's messages. One pass, so placeholders inside texts are not filled.

        Raises a UserError if the template needs a value that is missing, or has no place for a value in `judged`.
        """
        template = self.named.get(name)
        if template is None:
            raise UserError(f"no judge template {name}: add it to the benchmark's templates or to judge_prompts")
        places = set(PLACE.findall(template.user))
        for missing in sorted(places - values.keys()):
            raise UserError(
                f"judge template {name} ({template.source}): no value for {{{missing}}}: fix the template, or let the "
                "benchmark name another"
            )
        for missing in sorted(set(judged) - places):
            raise UserError(
                f"judge template {name} ({template.source}): no place for {{{missing}}}, the answer to judge: fix the "
                "template, or let the benchmark name another"
            )
        user = PLACE.sub(lambda match: values[match[1]], template.user)
        system = [{"role": "system", "content": template.system}] if template.system else []
        return [*system, {"role": "user", "content": user}]


def load_templates(path: str | None, more: Mapping[str, Template] | None = None) -> Templates:
    """Load our templates and a benchmark's (`more`); those in FastChat's judge_prompts.jsonl at `path` replace them."""
    named = {name: Template(**texts) for name, texts in yaml.safe_load(OWN.read_text(encoding="utf-8")).items()}
    named |= {name: replace(template, source=BENCHMARKS) for name, template in (more or {}).items()}
    if path is not None:
        for number, row in enumerate(read_jsonl(Path(path)), 1):
            try:
                named[row["name"]] = Template(row["system_prompt"], row["prompt_template"], Path(path).name)
            except KeyError as error:
                raise UserError(f"{path}:{number}: no {error.args[0]}: fix the line") from None
    texts = json.dumps({name: [template.system, template.user] for name, template in sorted(named.items())})
    return Templates(named, hashlib.sha256(texts.encode()).hexdigest())
