"""The folder by which vLLM knows a model."""

from transformers import AutoConfig

from salsa.models.vllm_config import config_folder, model_config


def test_checkpoints_of_one_model_share_a_folder(llamas, make_checkpoint, tmp_path):
    first, second = (config_folder(path, tmp_path / "cache") for path in llamas)
    assert first == second != config_folder(make_checkpoint(tmp_path / "deeper", layers=3), tmp_path / "cache")
    assert [file.name for file in first.iterdir()] == ["config.json"]
    assert model_config(first) == model_config(llamas[0])
    assert AutoConfig.from_pretrained(first).architectures == ["LlamaForCausalLM"]
