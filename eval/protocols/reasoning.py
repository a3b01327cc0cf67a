"""Reasoning that a model writes into its reply, and the reply without it.

A server with a reasoning parser moves the reasoning into a field of its own, which nothing here reads. Without one the
reasoning arrives inside the text, between marks of the model's family. Reasoning weighs verdicts and rejects them: a
verdict may be read only from what follows it.
"""

import re
from typing import NamedTuple

VLLM = "vLLM, vllm/reasoning"
OPEN_WEBUI = "Open WebUI, default reasoning_tags"


class Marks(NamedTuple):
    """Regular expressions that begin and end a family's reasoning; `source` says who documents them."""

    families: str
    begin: str
    end: str
    source: str


MARKS = (
    Marks(
        "DeepSeek R1 and V3.1, Qwen3, QwQ, GLM 4.5, Kimi K2, MiniMax M2, Step 3, Hunyuan, OLMo 3, SmolLM3, EXAONE 4",
        "<think>",
        "</think>",
        VLLM,
    ),
    Marks("EXAONE Deep", "<thought>", "</thought>", OPEN_WEBUI),
    Marks("prompted models", "<(?:thinking|reason|reasoning)>", "</(?:thinking|reason|reasoning)>", OPEN_WEBUI),
    Marks("OpenThinker, Sky-T1", r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>", OPEN_WEBUI),
    Marks("Seed-OSS", "<seed:think>", "</seed:think>", VLLM),
    Marks("MiniMax M3", "<mm:think>", "</mm:think>", VLLM),
    Marks("Magistral", r"\[THINK\]", r"\[/THINK\]", f"{VLLM}; mistral-common, SpecialTokens"),
    Marks("Kimi-VL Thinking", "◁think▷", "◁/think▷", "llama.cpp, pull request 16364"),
    Marks("Kimi K3", r"<\|open\|>\s*think\s*<\|sep\|>", r"<\|close\|>\s*think\s*<\|sep\|>", VLLM),
    Marks("Command A Reasoning", r"<\|START_THINKING\|>", r"<\|END_THINKING\|>", VLLM),
    Marks("Gemma 4", r"<\|channel>thought\b", r"<channel\|>", VLLM),
    Marks("Apertus", r"<\|inner_prefix\|>", r"<\|inner_suffix\|>", VLLM),
    Marks("openPangu", r"\[unused16\]", r"\[unused17\]", VLLM),
    Marks("Solar Open", r"<\|think\|>", r"<\|content\|>", "text-generation-webui, modules/reasoning.py"),
    Marks(
        "gpt-oss (harmony)",
        r"<\|channel\|>\s*(?:analysis|commentary)\b",
        r"<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>",
        VLLM,
    ),
    # A server that drops special tokens leaves the names of the channels.
    Marks("gpt-oss without its special tokens", r"\Aanalysis(?=[A-Z\"'“‘])", r"assistantfinal(?=\S)", VLLM),
    Marks("Granite 3.2", r"\A\s*Here(?:['’]s| is) my thought process:", r"Here(?:['’]s| is) my response:", VLLM),
)
# Alternatives that all begin with a literal are searched several times as fast: those that only the start of a text
# matches are apart.
AT_START = re.compile("|".join(marks.begin for marks in MARKS if marks.begin.startswith(r"\A")))
BEGIN = re.compile("|".join(marks.begin for marks in MARKS if not marks.begin.startswith(r"\A")))
END = re.compile("|".join(marks.end for marks in MARKS))


def without_reasoning(text: str) -> str:
    """What follows the last end of reasoning in a reply; nothing where reasoning begins after it and never ends.

    An end without a beginning counts: many chat templates write the beginning into the prompt. Applied twice it changes
    nothing more.
    """
    ends = [match.end() for match in END.finditer(text)]
    rest = text[ends[-1] :] if ends else text
    return "" if AT_START.match(rest) or BEGIN.search(rest) else rest
