"""What a judge is asked: templates by name, filled in a single pass."""

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
    """`source` is the name of the file that it comes from."""

    system: str
    user: str
    source: str = OURS


@dataclass(frozen=True)
class Templates:
    """The templates by name, and a hash of their texts for the record."""

    named: Mapping[str, Template]
    sha256: str

    def named_in_full(self, name: str) -> str:
        """SOURCE:NAME, for what is stored."""
        return f"{self.named[name].source}:{name}" if name in self.named else name

    def messages(self, name: str, values: Mapping[str, str], judged: Sequence[str] = ()) -> Messages:
        """The judge's conversation. Texts that look like places to fill stay as they are: there is one pass.

        A template that leaves out what is `judged`, or asks for what there is not, is refused: its verdicts would be
        about something else.
        """
        template = self.named.get(name)
        if template is None:
            raise UserError(f"no judge template is called {name}: add it to the benchmark's templates or judge_prompts")
        places = set(PLACE.findall(template.user))
        for missing in sorted(places - values.keys()):
            raise UserError(
                f"judge template {name} ({template.source}): nothing is there to fill {{{missing}}} with: mend the "
                "template, or let the benchmark name another"
            )
        for missing in sorted(set(judged) - places):
            raise UserError(
                f"judge template {name} ({template.source}): it has no place for {{{missing}}}, the answer that is "
                "judged: mend the template, or let the benchmark name another"
            )
        user = PLACE.sub(lambda found: values[found[1]], template.user)
        system = [{"role": "system", "content": template.system}] if template.system else []
        return [*system, {"role": "user", "content": user}]


def load_templates(path: str | None, more: Mapping[str, Template] | None = None) -> Templates:
    """Our own templates and a benchmark's; of those, the ones that FastChat's judge_prompts.jsonl has, from there."""
    named = {name: Template(**texts) for name, texts in yaml.safe_load(OWN.read_text(encoding="utf-8")).items()}
    named |= {name: replace(template, source=BENCHMARKS) for name, template in (more or {}).items()}
    if path is not None:
        for number, row in enumerate(read_jsonl(Path(path)), 1):
            try:
                named[row["name"]] = Template(row["system_prompt"], row["prompt_template"], Path(path).name)
            except KeyError as error:
                raise UserError(f"{path}:{number}: no {error.args[0]}: mend the line") from None
    texts = json.dumps({name: [template.system, template.user] for name, template in sorted(named.items())})
    return Templates(named, hashlib.sha256(texts.encode()).hexdigest())
