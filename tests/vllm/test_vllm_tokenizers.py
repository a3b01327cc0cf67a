"""Mistral-7B's tokenizer and one of Gemma's kind, with the chat template of the paper's grid.

These tests run in vLLM's environment, because mistral-common, a requirement of vLLM, contains the file.
"""

import json
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer, GemmaTokenizer, LlamaConfig, LlamaForCausalLM, LlamaTokenizer
from transformers.convert_slow_tokenizer import generate_merges

from salsa.checkpoints.adopt import from_folder
from salsa.checkpoints.loading import load_tokenizer, render
from salsa.config.sections import LocalModel
from salsa.data.token_cache import IGNORED, demonstrations
from salsa.runtime.jsonl import read_jsonl
from salsa.runtime.provenance import Run
from tests import SHARED_DATA

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "config/chat_templates/turns.jinja"
ROLES = ("user", "assistant")
PIECES = sentencepiece.SentencePieceProcessor(
    model_file=str(resources.files("mistral_common") / "data/tokenizer.model.v1")
)


def like_mistrals(folder: Path, legacy: bool) -> None:
    """Mistral-7B-v0.1's tokenizer with tokenizer.json as on the hub: merges in the order of their scores."""
    scores = [(PIECES.id_to_piece(i), PIECES.get_score(i)) for i in range(len(PIECES))]
    vocabulary = {piece: number for number, (piece, _) in enumerate(scores)}
    merges = generate_merges(vocabulary, scores)
    LlamaTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "legacy": legacy}))


def like_gemmas(folder: Path) -> None:
    """Mistral's vocabulary in Gemma's class: no space before a text, other special tokens, its own pad token."""
    like_mistrals(folder, legacy=False)
    own = json.loads(AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str())["model"]
    names = {"<s>": "<bos>", "</s>": "<eos>"}
    vocabulary = {names.get(token, token): number for token, number in own["vocab"].items()}
    vocabulary |= {token: len(vocabulary) + number for number, token in enumerate(("<pad>", "<mask>"))}
    GemmaTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in own["merges"]]).save_pretrained(folder)


KINDS = {
    "mistral": (lambda folder: like_mistrals(folder, legacy=False), "<unk>"),
    "mistral, legacy": (lambda folder: like_mistrals(folder, legacy=True), "<unk>"),
    "gemma": (like_gemmas, "<pad>"),
}
ANSWERS = ("Hello there", "1. One\n2. Two", "  def f(x):\n    return x  # é, 東京, 🙂", "A < B > C & <b>d</b>")


@pytest.fixture(scope="module", params=KINDS)
def base(request, tmp_path_factory):
    """A base checkpoint that the stage made from a folder, with the template and pad token of the paper's grid."""
    kind, pad = KINDS[request.param]
    hub = tmp_path_factory.mktemp("hub")
    kind(hub)
    plain = AutoTokenizer.from_pretrained(hub)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    ends = {"bos_token_id": plain.bos_token_id, "eos_token_id": plain.eos_token_id}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(plain), **sizes, **ends)).save_pretrained(hub)
    out = tmp_path_factory.mktemp("made") / "base"
    local = {"path": str(hub), "chat_template": str(TEMPLATE), "pad_token": pad}
    from_folder(LocalModel.model_validate(local), out, Run("base", {}, {}, {}))
    load_tokenizer(out).save_pretrained(out)  # as each stage does that makes another checkpoint of it
    tokenizer = load_tokenizer(out)
    return tokenizer, plain


def dialogues() -> list[list[dict[str, str]]]:
    """Dialogues of two turns: our questions, and the real ones if they are available."""
    asked = [f"  Say {answer} \n\tplease. " for answer in ANSWERS]
    file = SHARED_DATA / "mt_bench/question.jsonl"
    asked += [turn for row in (read_jsonl(file) if file.exists() else []) for turn in row["turns"]]
    texts = [(question, ANSWERS[i % len(ANSWERS)]) for i, question in enumerate(asked)]
    return [
        [
            {"role": role, "content": text}
            for turn in (texts[i], texts[i - 1])
            for role, text in zip(ROLES, turn, strict=True)
        ]
        for i in range(len(texts))
    ]


def test_tokens_equal_the_hubs(base):
    tokenizer, plain = base
    for messages in dialogues():
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        assert render(tokenizer, messages) == plain(text, add_special_tokens=False).input_ids


def test_prompt_is_the_beginning_of_its_dialogue(base):
    """Generation asks with exactly what SFT taught to answer, in each turn."""
    tokenizer, _ = base
    for messages in dialogues():
        whole = render(tokenizer, messages)
        for turn in (1, 3):
            prompt = render(tokenizer, messages[:turn], add_generation_prompt=True)
            assert whole[: len(prompt)] == prompt
            assert render(tokenizer, messages[: turn + 1]) == whole[: len(render(tokenizer, messages[: turn + 1]))]


def test_one_bos_one_eos_per_turn_and_no_pad(base):
    tokenizer, _ = base
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for messages in dialogues():
        counted = Counter(render(tokenizer, messages))
        specials = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        assert [counted[token] for token in specials] == [1, 2, 0]


def test_only_answers_and_their_eos_carry_loss(base):
    tokenizer, _ = base
    for messages in dialogues():
        (row,) = demonstrations([{"messages": messages}], tokenizer, 10**6)
        taught = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED]
        assert taught == [token for token in row["labels"] if token != IGNORED]
        answers = [
            message["content"].strip() + tokenizer.eos_token for message in messages if message["role"] == ROLES[1]
        ]
        assert tokenizer.decode(taught) == "".join(answers)


def test_prompt_ids_equal_sentencepieces(tmp_path):
    """Google's library on the same file and text. After the first EOS the libraries differ by a space."""
    like_mistrals(tmp_path, legacy=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = TEMPLATE.read_text()
    for messages in dialogues():
        text = tokenizer.apply_chat_template(messages[:2], tokenize=False).removeprefix("<s>")
        first, _, rest = text.partition("</s>")
        assert rest == "\n"
        ids = render(tokenizer, messages[:2])
        assert ids[: ids.index(2) + 1] == [1, *PIECES.encode(first), 2]
