import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from salsa.checkpoints import floats
from salsa.runtime.command import main
from salsa.runtime.errors import UserError
from salsa.soups import averaging
from salsa.soups.soup import parse_ingredients, parse_size, soup

SHAPES = {"a.weight": (33, 7), "b.weight": (401,), "c.weight": (), "d.weight": (0, 4), "e.weight": (64, 64)}


def checkpoint(folder: Path, seed: int, dtype: torch.dtype, **tensors: torch.Tensor) -> Path:
    """Random tensors, with odd sizes, scalars and empty ones, in one safetensors file with a config."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}
    save_file({**made, **tensors}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "hidden_size": 64, "_name_or_path": str(seed)})
    )
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "padding": seed}))
    return folder


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))


def make(out: Path, ingredients: dict[Path, float], **options) -> dict[str, torch.Tensor]:
    out.mkdir()
    soup(ingredients, out, **options)
    return tensors_of(out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_average_equals_torch(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(floats, "PIECE", 64)  # several pieces a tensor, the last one of odd length
    weights = [0.5, 0.3, 0.2]
    folders = [checkpoint(tmp_path / str(seed), seed, dtype) for seed in range(3)]
    found = make(tmp_path / "soup", dict(zip(folders, weights, strict=True)))
    wide = torch.promote_types(dtype, torch.float32)
    for name in SHAPES:
        expected = sum(w * tensors_of(folder)[name].to(wide) for w, folder in zip(weights, folders, strict=True))
        assert same_bits(found[name], expected.to(dtype)), name


def test_soups_of_whole_models_do_not_wait_for_torch():
    code = "import sys, salsa.soups.soup; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_processes_share_the_tensors_and_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(averaging, "BATCH", 2)
    one, two = (checkpoint(tmp_path / str(seed), seed, torch.bfloat16) for seed in range(2))
    for count in (1, 2):
        make(tmp_path / f"soup-{count}", {one: 0.5, two: 0.5}, shard_size="1KB", processes=count)
    files = sorted(path.name for path in (tmp_path / "soup-1").iterdir())
    assert "model-00003-of-00003.safetensors" in files
    for name in files:
        assert (tmp_path / "soup-1" / name).read_bytes() == (tmp_path / "soup-2" / name).read_bytes(), name
    broken = checkpoint(
        tmp_path / "broken", 3, torch.bfloat16, **{"b.weight": torch.full((401,), torch.inf).bfloat16()}
    )
    with pytest.raises(UserError, match="/broken: tensor b.weight holds inf .element 0, "):
        make(tmp_path / "soup", {one: 0.5, broken: 0.5}, processes=2)


WAITING = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from salsa.soups.averaging import end_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


def test_processes_end_with_a_killed_soup(tmp_path):
    """Its output ends when no process holds it any more."""
    (tmp_path / "waiting.py").write_text(WAITING)
    with subprocess.Popen([sys.executable, tmp_path / "waiting.py"], stdout=subprocess.PIPE, text=True) as stage:
        assert int(stage.stdout.readline()) != stage.pid
        stage.kill()
        stage.communicate(timeout=20)


def test_rounding_to_bfloat16_equals_torch_on_hard_values(tmp_path):
    """Ties, subnormals, the largest numbers: every finite one averaged with a neighbour."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    every = bits.view(torch.bfloat16)
    every = every[every.isfinite()]
    next_one = every.roll(1)
    one = checkpoint(tmp_path / "1", 1, torch.bfloat16, every=every)
    two = checkpoint(tmp_path / "2", 2, torch.bfloat16, every=next_one.contiguous())
    found = make(tmp_path / "soup", {one: 0.5, two: 0.5})["every"]
    assert same_bits(found, (0.5 * every.float() + 0.5 * next_one.float()).bfloat16())


TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("weights", [(0.5, 0.5), (1.0,), (1.5, -0.5)])
def test_nan_and_infinity_are_refused_with_tensor_and_checkpoint(tmp_path, value, name, weights):
    values = torch.zeros(70_000, dtype=TYPES[name])  # more than one piece
    one = checkpoint(tmp_path / "1", 1, TYPES[name], last=values)
    two = checkpoint(tmp_path / "2", 2, TYPES[name], last=values.index_fill(0, torch.tensor([69_999]), value))
    with pytest.raises(UserError, match=f"/2: tensor last holds {value} .element 69999, in model.safetensors.: the"):
        make(tmp_path / "soup", dict(zip([two, one], weights, strict=False)))


@pytest.mark.parametrize("name", ["F16", "BF16", "F32"])
def test_overflowing_average_is_refused(tmp_path, name):
    large = torch.full((3,), torch.finfo(TYPES[name]).max, dtype=TYPES[name])
    folders = [checkpoint(tmp_path / str(n), n, TYPES[name], large=large) for n in (1, 2)]
    assert same_bits(make(tmp_path / "soup", dict.fromkeys(folders, 0.5))["large"], large)
    with pytest.raises(UserError, match=f"tensor large: the average is too large for {name}"):
        make(tmp_path / "soup2", dict.fromkeys(folders, 0.75), allow_any_sum=True)


@pytest.mark.parametrize("first", TYPES)
@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16"])
def test_dtypes_may_differ_and_the_sum_is_rounded_once(tmp_path, monkeypatch, first, dtype):
    """Compared with an independent sum in torch; the soup's config and run.json record the dtypes."""
    monkeypatch.setattr(floats, "PIECE", 64)
    order = [first, *(name for name in TYPES if name != first)]
    folders = [checkpoint(tmp_path / name, number, TYPES[name]) for number, name in enumerate(order)]
    weights = dict(zip(folders, (0.4, 0.3, 0.2, 0.1), strict=True))
    (tmp_path / "soup").mkdir()
    facts = soup(weights, tmp_path / "soup", dtype=dtype)
    target = getattr(torch, dtype) if dtype else TYPES[first]
    found = tensors_of(tmp_path / "soup")
    for name in SHAPES:
        total = sum(weight * tensors_of(folder)[name].double() for folder, weight in weights.items())
        assert found[name].dtype == target
        assert torch.allclose(found[name].double(), total, rtol=2 * torch.finfo(target).eps, atol=1e-6)
    code = next(name for name, one in TYPES.items() if one == target)
    assert facts["dtypes_read"] == {str(folder): [name] for folder, name in zip(folders, order, strict=True)}
    assert facts["dtypes_written"] == [code] and facts["left_out"] == {}
    assert json.loads((tmp_path / "soup/config.json").read_text()).get("dtype") == dtype


def store_also(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    replace_tensors(folder, lambda there: there.update(tensors))


@pytest.mark.parametrize("says", [True, False])
def test_stored_tied_head_is_left_out(tmp_path, make_checkpoint, caplog, says):
    """Gemma's class ties by default, even if its config does not say so."""
    from transformers import AutoModelForCausalLM

    folders = [make_checkpoint(tmp_path / str(seed), "gemma", seed=seed) for seed in (1, 2)]
    for folder in folders:
        edit(
            folder / "config.json",
            lambda d: d.update(tie_word_embeddings=True) if says else d.pop("tie_word_embeddings", 0),
        )
    plain = make(tmp_path / "plain", dict.fromkeys(folders, 0.5))
    embedding = tensors_of(folders[1])["model.embed_tokens.weight"]
    store_also(folders[1], {"lm_head.weight": embedding.clone()})
    found = make(tmp_path / "soup", dict.fromkeys(folders, 0.5))
    assert found.keys() == plain.keys() and all(same_bits(found[name], plain[name]) for name in plain)
    assert (
        f"{folders[1]}: tensors left out of the soup because the model does not load them: lm_head.weight"
        in caplog.text
    )
    AutoModelForCausalLM.from_pretrained(tmp_path / "soup")
    store_also(folders[1], {"lm_head.weight": embedding + 1})
    with pytest.raises(UserError, match="2: config.json ties lm_head.weight to model.embed_tokens.weight, but"):
        make(tmp_path / "other", dict.fromkeys(folders, 0.5))


def test_old_rotary_buffers_are_left_out_and_other_differences_are_errors(tmp_path, llamas):
    folders = [shutil.copytree(llama, tmp_path / str(number)) for number, llama in enumerate(llamas)]
    plain = make(tmp_path / "plain", dict.fromkeys(folders, 0.5))
    store_also(folders[0], {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.full((4,), float("nan"))})
    (tmp_path / "soup").mkdir()
    facts = soup(dict.fromkeys(folders, 0.5), tmp_path / "soup")
    assert facts["left_out"] == {str(folders[0]): ["model.layers.0.self_attn.rotary_emb.inv_freq"]}
    found = tensors_of(tmp_path / "soup")
    assert found.keys() == plain.keys() and all(same_bits(found[name], plain[name]) for name in plain)
    store_also(folders[0], {"model.layers.0.self_attn.extra": torch.ones(4)})
    with pytest.raises(UserError, match="1: no tensor model.layers.0.self_attn.extra"):
        make(tmp_path / "other", dict.fromkeys(folders, 0.5))


@pytest.mark.parametrize("rest", [{}, {"2": 0.0}])
def test_weight_1_copies_bit_for_bit(tmp_path, rest):
    special = torch.tensor([-0.0, 1e-45, 3.0, torch.finfo(torch.float32).max])
    one = checkpoint(tmp_path / "1", 1, torch.float32, special=special)
    two = checkpoint(tmp_path / "2", 2, torch.float32, special=special)
    found = make(tmp_path / "soup", {one: 1.0, **({two: 0.0} if rest else {})})
    assert all(same_bits(found[name], tensor) for name, tensor in tensors_of(one).items())


def test_equal_integers_are_copied(tmp_path):
    ones = [
        checkpoint(tmp_path / s, 1, torch.float32, ids=torch.tensor([1, 2**40]), on=torch.tensor([True])) for s in "ab"
    ]
    found = make(tmp_path / "soup", dict.fromkeys(ones, 0.5))
    assert found["ids"].tolist() == [1, 2**40] and found["on"].tolist() == [True]
    other = checkpoint(tmp_path / "c", 1, torch.float32, ids=torch.tensor([1, 3]), on=torch.tensor([True]))
    with pytest.raises(UserError, match="tensor ids .I64. differs"):
        make(tmp_path / "soup2", {ones[0]: 0.5, other: 0.5})


def test_shard_layout_does_not_matter(tmp_path, llamas):
    """A transformers checkpoint saved again in shards gives the same soup, which transformers loads."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(llamas[1])
    model.save_pretrained(tmp_path / "again", max_shard_size="20KB")
    for file in llamas[1].glob("*token*"):
        shutil.copy(file, tmp_path / "again")
    shutil.copy(llamas[1] / "chat_template.jinja", tmp_path / "again")
    assert len(list((tmp_path / "again").glob("*.safetensors"))) > 1
    whole = make(tmp_path / "whole", {llamas[0]: 0.5, llamas[1]: 0.5})
    shards = make(tmp_path / "shards", {llamas[0]: 0.5, tmp_path / "again": 0.5}, shard_size="20KB")
    assert not (tmp_path / "whole" / "model.safetensors.index.json").exists()
    assert len(list((tmp_path / "shards").glob("model-0*.safetensors"))) > 1
    assert whole.keys() == shards.keys() and all(same_bits(whole[name], shards[name]) for name in whole)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "shards").state_dict()
    assert all(torch.equal(loaded[name], whole[name]) for name in whole)


def test_tied_embeddings_are_averaged_once(tmp_path, make_checkpoint):
    from transformers import AutoModelForCausalLM

    folders = [make_checkpoint(tmp_path / str(seed), "gemma", seed=seed) for seed in (1, 2)]
    found = make(tmp_path / "soup", dict.fromkeys(folders, 0.5))
    assert "lm_head.weight" not in found
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "soup")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, found["model.embed_tokens.weight"])


def pair(tmp_path: Path) -> list[Path]:
    return [checkpoint(tmp_path / str(seed), seed, torch.float32) for seed in (1, 2)]


def replace_tensors(folder: Path, change) -> None:
    tensors = tensors_of(folder)
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def edit(file: Path, change) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


MISTAKES = {
    "2: no tensor b.weight, which .*1 has": lambda two: replace_tensors(two, lambda t: t.pop("b.weight")),
    r"tensor a.weight: shape \[33, 7\] in .*1, \[7, 33\]": lambda two: replace_tensors(
        two, lambda t: t.update({"a.weight": t["a.weight"].T.contiguous()})
    ),
    "tensor b.weight: dtype F32 in .*1, I32 in": lambda two: replace_tensors(
        two, lambda t: t.update({"b.weight": t["b.weight"].int()})
    ),
    "config.json: hidden_size is 64 in .*1, 65 in .*2": lambda two: edit(
        two / "config.json", lambda d: d.update(hidden_size=65)
    ),
    "tokenizer.json: model.vocab.b is 1 in .*1, absent in .*2.*one tokenizer": lambda two: edit(
        two / "tokenizer.json", lambda d: d["model"]["vocab"].pop("b")
    ),
    "chat_template.jinja differs": lambda two: (two / "chat_template.jinja").write_text("{{ messages }}"),
    "truncated within tensor": lambda two: (two / "model.safetensors").write_bytes(
        (two / "model.safetensors").read_bytes()[:-8]
    ),
    "2/model.safetensors: this shard is missing": lambda two: (two / "model.safetensors").unlink(),
    "2: no such checkpoint folder": shutil.rmtree,
}


@pytest.mark.parametrize("message", MISTAKES)
def test_first_difference_is_named(tmp_path, message):
    one, two = pair(tmp_path)
    MISTAKES[message](two)
    with pytest.raises(UserError, match=message) as error:
        make(tmp_path / "soup", {one: 0.5, two: 0.5})
    assert "\n" not in str(error.value)


def test_missing_shard_of_an_index_is_named(tmp_path):
    one, two = pair(tmp_path)
    index = {
        "weight_map": {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
    }
    (two / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.move(two / "model.safetensors", two / "model-00001-of-00002.safetensors")
    with pytest.raises(UserError, match="2/model-00002-of-00002.safetensors: this shard is missing"):
        make(tmp_path / "soup", {one: 0.5, two: 0.5})
    shutil.copy(one / "model.safetensors", two / "model-00002-of-00002.safetensors")
    index["weight_map"]["z.weight"] = "model-00002-of-00002.safetensors"
    (two / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="is missing, which the index names"):
        make(tmp_path / "soup2", {one: 0.5, two: 0.5})


def test_command_writes_a_complete_folder_or_none(tmp_path, monkeypatch, capsys):
    one, two = pair(tmp_path)
    out = tmp_path / "out" / "soup"

    def command(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["salsa", "soup", "--out", str(out), *arguments])
        return main("salsa", {"soup": ("salsa.soups.soup", "")})

    assert command("--ingredient", f"{one}=0.5", "--ingredient", f"{two}=0.6") == 1
    assert "sum to 1.1, not 1" in capsys.readouterr().err
    assert not out.exists()
    assert command("--ingredient", f"{one}=0.5", "--ingredient", f"{two}=0.6", "--allow-any-sum") == 0
    expected = 0.5 * tensors_of(one)["b.weight"] + 0.6 * tensors_of(two)["b.weight"]
    assert torch.allclose(tensors_of(out)["b.weight"], expected)
    assert {file.name for file in out.iterdir()} == {"model.safetensors", "config.json", "tokenizer.json", "run.json"}
    assert json.loads((out / "run.json").read_text())["settings"]["weights"] == [0.5, 0.6]


def test_arguments():
    assert parse_ingredients(["a/b=0.5", "c=d=1"]) == {Path("a/b"): 0.5, Path("c=d"): 1.0}
    assert (parse_size("4GB"), parse_size("1.5 KiB"), parse_size("7")) == (4 * 10**9, 1536, 7)
    for wrong in (["a"], ["a=x"], ["=1"], ["a=nan"], ["a=0.5", "a=0.5"]):
        with pytest.raises(UserError, match="--ingredient"):
            parse_ingredients(wrong)
    with pytest.raises(UserError, match="shard_size"):
        parse_size("many")
