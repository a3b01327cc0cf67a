"""Adapters in a model's linear layers (peft), several side by side; a forward pass uses those that are active."""

import contextlib
import warnings
from collections.abc import Collection, Iterator, Mapping

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor
from transformers import PreTrainedModel

from salsa.config.sections import Lora
from salsa.runtime.errors import UserError
from salsa.runtime.seeds import derive_seed

Pairs = Mapping[str, tuple[Tensor, Tensor]]


def lora_layers(model: PreTrainedModel) -> dict[str, LoraLayer]:
    """The layers with adapters, by the names that they have in a checkpoint."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def linear_layers(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    """The linear layers below the head, by their names in a checkpoint."""
    decoder = model.base_model
    names = {module: name for name, module in model.named_modules()}
    prefix = f"{names[decoder]}."
    layers = {}
    for name, module in decoder.named_modules():
        layer = module.base_layer if isinstance(module, LoraLayer) else module
        if isinstance(layer, torch.nn.Linear) and not name.endswith(".base_layer") and ".lora_" not in name:
            layers[prefix + name] = layer
    return layers


def targets(model: PreTrainedModel, settings: Lora) -> list[str]:
    """Names of the layers that get an adapter. A UserError names a target that the model does not have."""
    names = list(linear_layers(model))
    if settings.targets == "all-linear":
        return names
    last = {name.rpartition(".")[2] for name in names}
    if missing := sorted(set(settings.targets) - last):
        raise UserError(
            f"lora.targets: the model has no linear layers {missing[0]}: name some of {', '.join(sorted(last))}"
        )
    return [name for name in names if name.rpartition(".")[2] in settings.targets]


def insert(model: PreTrainedModel, adapter: str, pairs: Pairs, scale: float = 1.0) -> None:
    """Insert an adapter called `adapter`: each named layer then computes W x + scale B A x while it is active.

    `pairs` holds A [r, in] and B [out, r]. The parameters are float32 on the model's device, and frozen. Which adapters
    are active does not change.
    """
    ranks = {name: len(a) for name, (a, _) in pairs.items()}
    config = LoraConfig(
        r=max(ranks.values()),
        lora_alpha=max(ranks.values()),
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules=sorted(ranks),
        init_lora_weights=False,
    )
    with unchanged(model), warnings.catch_warnings():
        # Several adapters are the purpose.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, model, adapter)
    layers = lora_layers(model)
    for name, (a, b) in pairs.items():
        layer, place = layers[name], layers[name].get_base_layer().weight.device
        layer.scaling[adapter] = scale
        for module, values in ((layer.lora_A[adapter], a), (layer.lora_B[adapter], b)):
            module.weight = torch.nn.Parameter(values.to(place, torch.float32), requires_grad=False)


def insert_new(model: PreTrainedModel, adapter: str, settings: Lora, seed: int) -> None:
    """Insert an adapter to train. At first it changes nothing: B is 0, and A uniform in ± 1 / sqrt(in)."""
    layers, pairs = linear_layers(model), {}
    for name in targets(model, settings):
        generator = torch.Generator().manual_seed(derive_seed(seed, "lora", name))
        width = layers[name].in_features
        a = (2 * torch.rand(settings.rank, width, generator=generator) - 1) / width**0.5
        pairs[name] = (a, torch.zeros(layers[name].out_features, settings.rank))
    insert(model, adapter, pairs, settings.alpha / settings.rank)


def activate(model: PreTrainedModel, adapters: Collection[str], trained: str | None = None) -> None:
    """Use these adapters, and no others, from now on. Only the parameters of `trained` get gradients."""
    for layer in lora_layers(model).values():
        layer.set_adapter(list(adapters), inference_mode=True)
    for parameter in parameters_of(model, trained) if trained else ():
        parameter.requires_grad_(True)


@contextlib.contextmanager
def unchanged(model: PreTrainedModel) -> Iterator[None]:
    """After the context the adapters are active, and get gradients, as before it."""
    layers = list(lora_layers(model).values())
    before = list(layers[0].active_adapters) if layers else []
    parts = [part for layer in layers for part in (*layer.lora_A.values(), *layer.lora_B.values())]
    trained = [part.weight for part in parts if part.weight.requires_grad]
    try:
        yield
    finally:
        activate(model, before)
        for parameter in trained:
            parameter.requires_grad_(True)


def parameters_of(model: PreTrainedModel, adapter: str) -> Iterator[torch.nn.Parameter]:
    """Yield an adapter's parameters A and B, layer by layer."""
    for layer in lora_layers(model).values():
        if adapter in layer.lora_A:
            yield layer.lora_A[adapter].weight
            yield layer.lora_B[adapter].weight


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the model's weights with the changes of its active adapters, by their names in a checkpoint, one at a time.

    They come in the order of a model without adapters. Changed weights are float32, as are those of a base in 4 bits.
    """
    changes, seen = active_pairs(model), set()
    for module_name, module in model.named_modules():
        if ".lora_" in module_name:
            continue
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            layer = module_name.removesuffix(".base_layer")
            weight = dequantize_module_weight(module) if key == "weight" else parameter
            if key == "weight" and layer in changes:
                a, b = changes[layer]
                weight = weight.float() + b @ a
            yield f"{layer}.{key}", weight.detach()


def active_pairs(model: PreTrainedModel) -> dict[str, tuple[Tensor, Tensor]]:
    """The sum of the active adapters as one: A and B stacked, with the scale in B. New tensors, on the device."""
    pairs = {}
    for name, layer in lora_layers(model).items():
        having = [adapter for adapter in layer.active_adapters if adapter in layer.lora_A]
        if having:
            a = torch.cat([layer.lora_A[adapter].weight.detach() for adapter in having])
            scaled = [layer.scaling[adapter] * layer.lora_B[adapter].weight.detach() for adapter in having]
            pairs[name] = (a, torch.cat(scaled, 1))
    return pairs
