"""Remove a model's reasoning from its reply.

A server with a reasoning parser returns the reasoning in a separate field, which we ignore. Without a parser it is part
of the text, between markers of the model's family. Reasoning discusses verdicts that it then rejects, so a verdict is
read only from the text after it.
"""

import re
from typing import NamedTuple

VLLM = "vLLM, vllm/reasoning"
OPEN_WEBUI = "Open WebUI, default reasoning_tags"


class Marks(NamedTuple):
    """Regular expressions for the begin and end of a model family's reasoning; `source` documents them."""

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
    # A server that drops special tokens leaves only the channel names.
    Marks("gpt-oss without its special tokens", r"\Aanalysis(?=[A-Z\"'“‘])", r"assistantfinal(?=\S)", VLLM),
    Marks("Granite 3.2", r"\A\s*Here(?:['’]s| is) my thought process:", r"Here(?:['’]s| is) my response:", VLLM),
)
# Patterns anchored at the start are kept apart: alternatives that all begin with a literal are several times faster.
AT_START = re.compile("|".join(marks.begin for marks in MARKS if marks.begin.startswith(r"\A")))
BEGIN = re.compile("|".join(marks.begin for marks in MARKS if not marks.begin.startswith(r"\A")))
END = re.compile("|".join(marks.end for marks in MARKS))


def without_reasoning(text: str) -> str:
    """The text after the last end marker; empty if reasoning begins after it and never ends.

    An end marker without a begin marker counts, because many chat templates put the begin marker into the prompt. The
    function is idempotent.
    """
    ends = [match.end() for match in END.finditer(text)]
    rest = text[ends[-1] :] if ends else text
    return "" if AT_START.match(rest) or BEGIN.search(rest) else rest
