import torch

from salsa.checkpoints.loading import load_causal
from salsa.soups.soup import soup


def parameters(folder):
    return {name: parameter.detach() for name, parameter in load_causal(folder).named_parameters()}


def perturbed(command, tmp_path, llamas, name, draw):
    if not (tmp_path / "soup").exists():
        (tmp_path / "soup").mkdir()
        soup(dict.fromkeys(llamas, 0.5), tmp_path / "soup")
    options = ("--of", llamas[0], "--like", tmp_path / "soup", "--seed", 1, "--draw", draw, "--out", tmp_path / name)
    assert command("salsa", "perturb", *options) == (0, "")
    return parameters(tmp_path / name)


def test_each_tensor_moves_as_far_as_the_soup_in_another_direction(command, tmp_path, llamas):
    found = perturbed(command, tmp_path, llamas, "a", 1)
    start, target = parameters(llamas[0]), parameters(tmp_path / "soup")
    for name, tensor in found.items():
        moved, meant = (tensor - start[name]).flatten(), (target[name] - start[name]).flatten()
        assert torch.allclose(moved.norm(), meant.norm(), rtol=1e-4, atol=1e-6), name
        if len(moved) > 1000:
            assert abs(torch.cosine_similarity(moved, meant, 0)) < 0.15, name


def test_draws_repeat_and_differ(command, tmp_path, llamas):
    perturbed(command, tmp_path, llamas, "a", 1)
    perturbed(command, tmp_path, llamas, "b", 1)
    perturbed(command, tmp_path, llamas, "c", 2)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_incompatible_checkpoints_are_one_line(command, tmp_path, llamas, reward_model):
    status, said = command(
        "salsa", "perturb", "--of", llamas[0], "--like", reward_model, "--seed", 1, "--out", tmp_path / "x"
    )
    assert status == 1 and said.startswith("error: ") and said.count("\n") == 1
    assert not (tmp_path / "x").exists()
