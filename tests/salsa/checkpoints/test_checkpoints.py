import json
import shutil

import pytest
import torch
from transformers import LlamaTokenizer

from salsa.checkpoints.loading import load_causal, load_reward, load_tokenizer, open_tokenizer, render
from salsa.runtime.errors import UserError


def test_loaded_models_are_ready_to_measure(llamas, reward_model):
    policy = load_causal(llamas[0], "bfloat16")
    assert policy.dtype == torch.bfloat16 and not policy.training
    assert load_causal(llamas[0]).dtype == torch.float32
    assert load_reward(reward_model).score.weight.shape == (1, policy.config.hidden_size)


def test_render_writes_the_special_tokens_once(llamas):
    tokenizer = load_tokenizer(llamas[0])
    talk = [{"role": "user", "content": "hi"}]
    assert tokenizer.decode(render(tokenizer, talk, True)) == "<bos><|user|> hi<|end|><|assistant|>"
    done = render(tokenizer, [*talk, {"role": "assistant", "content": "hello"}])
    assert done[-1] == tokenizer.eos_token_id and done.count(tokenizer.bos_token_id) == 1
    prompt = render(tokenizer, talk, True)
    assert done[: len(prompt)] == prompt, "a training example starts with what generation sees"


@pytest.mark.parametrize("legacy", [False, True])
def test_llama_tokenizer_survives_saving(legacy, tmp_path):
    """transformers 5.17 by itself would change it: no space after a special token."""
    words = ("<unk>", "<s>", "</s>", "▁", "h", "i", "hi", "▁hi")
    vocabulary, merges = {word: i for i, word in enumerate(words)}, [("h", "i"), ("▁", "hi")]
    LlamaTokenizer(vocab=vocabulary, merges=merges).save_pretrained(tmp_path / "0")
    file = tmp_path / "0/tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "legacy": legacy}))
    for saved in (1, 2):
        tokenizer = open_tokenizer(tmp_path / str(saved - 1))
        tokenizer.save_pretrained(tmp_path / str(saved))
        spaced = open_tokenizer(tmp_path / str(saved))("<s>hi</s>hi", add_special_tokens=False).input_ids
        assert spaced == ([1, 7, 2, 7] if legacy else [1, 6, 2, 6])


def copy(llamas, tmp_path):
    return shutil.copytree(llamas[0], tmp_path / "m")


def test_missing_folder_missing_shard_and_truncated_file_are_named(llamas, tmp_path):
    with pytest.raises(UserError, match="nowhere: no such checkpoint folder"):
        load_causal(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nowhere: no tokenizer_config.json"):
        load_tokenizer(tmp_path / "nowhere")
    folder = copy(llamas, tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="model.safetensors: truncated within tensor"):
        load_causal(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="model.safetensors: this shard is missing"):
        load_causal(folder)


def test_index_with_missing_tensors_is_named(llamas, tmp_path):
    folder = copy(llamas, tmp_path)
    index = {"weight_map": {"lm_head.weight": "model.safetensors", "more.weight": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="tensor more.weight is missing, which the index names"):
        load_causal(folder)


def test_unusable_tokenizers_are_refused(llamas, tmp_path):
    folder = copy(llamas, tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        load_tokenizer(folder)
    folder = shutil.copytree(llamas[0], tmp_path / "n")
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "pad_token": settings["eos_token"]}))
    with pytest.raises(UserError, match="pad token other than EOS"):
        load_tokenizer(folder)


def test_chat_template_marks_answers_and_continues_prompts(tokenizer_of_sentences):
    """SFT's text starts with generation's prompt and contains the end of the turn."""
    import copy
    from pathlib import Path

    tokenizer = copy.deepcopy(tokenizer_of_sentences)
    tokenizer.chat_template = (Path(__file__).parents[3] / "config/chat_templates/turns.jinja").read_text()
    talk = [{"role": "user", "content": " hi "}, {"role": "assistant", "content": "hello"}]
    talk += [{"role": "user", "content": "and?"}, {"role": "assistant", "content": "no"}]
    found = tokenizer.apply_chat_template(talk, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    learnt = [token for token, own in zip(found["input_ids"], found["assistant_masks"], strict=True) if own]
    assert "".join(tokenizer.decode(learnt).split()) == "hello<|end|>no<|end|>"
    for turns in (1, 3):
        prompt = tokenizer.apply_chat_template(talk[:turns], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(talk, tokenize=False)
        assert whole.startswith(prompt)
        assert prompt.endswith("### Assistant:\n")
