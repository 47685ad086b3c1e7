"""What a defense has to keep, rule by rule: `RULES` is the list."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench import registry
from bench.api import Recipe
from bench.data.base import FAMILY_OF_SHAPE
from bench.errors import UsageError
from bench.models.ambient import plain_torch
from bench.models.checkpoints import weights_digest
from bench.models.weights import tensors_of
from bench.testing.conformance import NotApplicableError, Rule, read_back
from bench.testing.defense_subject import (
    CLASSES,
    ODD,
    DefenseSubject,
    ask,
    differing,
    mostly,
    randomised,
)


def _name(subject: DefenseSubject) -> str | None:
    return read_back(registry.defenses, subject.plugin)


def _build(subject: DefenseSubject) -> str | None:
    module = subject.build()
    return None if isinstance(module, nn.Module) else f"build() returned {type(module).__name__}"


def _output(subject: DefenseSubject) -> str | None:
    for x in (subject.inputs, subject.inputs[:1]):
        logits = ask(subject.module, x)
        if not isinstance(logits, Tensor) or logits.shape != (len(x), CLASSES):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            return f"{got} for {len(x)} inputs and {CLASSES} classes"
        if logits.dtype != torch.float32:
            return f"logits are {logits.dtype}"
        if not bool(logits.isfinite().all()):
            return f"{int((~logits.isfinite()).any(dim=1).sum())} inputs get NaN or infinity"
    return None


def _eval_mode(subject: DefenseSubject) -> str | None:
    module = subject.build()
    ask(module, subject.inputs)
    woken = [name or "the module itself" for name, m in module.named_modules() if m.training]
    return f"in training mode after a forward pass: {', '.join(woken[:3])}" if woken else None


def _input_unchanged(subject: DefenseSubject) -> str | None:
    x = subject.inputs.clone()
    ask(subject.module, x)
    changed = int((x != subject.inputs).flatten(1).any(dim=1).sum())
    return f"{changed} of {len(x)} inputs are changed in place" if changed else None


def _same_seed(subject: DefenseSubject) -> str | None:
    first, second = (ask(subject.module, subject.inputs) for _ in range(2))
    count = differing(first, second)
    return f"{count} inputs get other logits when asked again with the same seed" if count else None


def _no_state(subject: DefenseSubject) -> str | None:
    module = subject.build()
    before, first = weights_digest(module), ask(module, subject.inputs)
    ask(module, 1 - subject.inputs)
    if weights_digest(module) != before:
        return "a forward pass changes parameters or buffers"
    count = differing(first, ask(module, subject.inputs))
    return f"{count} inputs get other logits after the model saw others" if count else None


def _batch_mates(subject: DefenseSubject) -> str | None:
    if randomised(subject):
        raise NotApplicableError("it is randomised: an answer differs in the same batch already")
    whole = ask(subject.module, subject.inputs)
    alone = torch.cat([ask(subject.module, x[None]) for x in subject.inputs])
    return mostly(alone, whole, "alone than in a batch")


def slope(module: nn.Module, x: Tensor) -> Tensor | None:
    """The gradient of the difference of the two largest logits; None where there is none."""
    x = x.clone().requires_grad_()
    with plain_torch(seed=0), torch.enable_grad():
        top = module(x).topk(2, dim=1).values
        difference = (top[:, 0] - top[:, 1]).sum()
        if not difference.requires_grad:
            return None
        (gradient,) = torch.autograd.grad(difference, x, allow_unused=True)
    return gradient if isinstance(gradient, Tensor) else None


def _useless(module: nn.Module, x: Tensor) -> str | None:
    """What is wrong with a gradient that nothing can be done with."""
    gradient = slope(module, x)
    if gradient is None:
        return "cannot be computed"
    if not bool(gradient.isfinite().all()):
        return "is not finite"
    flat = int((gradient == 0).flatten(1).all(dim=1).sum())
    return f"is zero on {flat} of {len(x)} inputs" if 2 * flat > len(x) else None


def _gradient(subject: DefenseSubject) -> str | None:
    noise = subject.inputs[2:]
    own = _useless(subject.module, noise)
    if own is None:
        return None
    if not subject.surrogates:
        return f"the gradient {own}, and no surrogates are declared"
    theirs = {name: _useless(module, noise) for name, module in subject.surrogates.items()}
    if all(theirs.values()):
        name, fault = next(iter(theirs.items()))
        return f"the gradient {own}, and that of the surrogate {name!r} {fault}"
    return None


def _surrogates(subject: DefenseSubject) -> str | None:
    declared = subject.plugin.surrogates(
        network=subject.network, shape=subject.shape, classes=CLASSES
    )
    if not declared:
        raise NotApplicableError("it declares none")
    own = ask(subject.module, subject.inputs)
    for name, module in declared.items():
        if misfit := _misfit(module, subject.module):
            return f"the weights of the model do not fit the surrogate {name!r}: {misfit}"
        other = ask(subject.surrogates[name], subject.inputs)
        if not torch.equal(own, other):
            far = float((own - other).abs().max())
            return f"logits of the surrogate {name!r} differ from the model's by up to {far:.3g}"
    return None


def _misfit(module: nn.Module, other: nn.Module) -> str:
    """Where the names and shapes of two modules' weights differ."""
    mine = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    theirs = {name: tuple(t.shape) for name, t in other.state_dict().items()}
    odd = sorted(set(mine.items()) ^ set(theirs.items()))
    return f"{odd[0][0]} {odd[0][1]}" if odd else ""


def _dtype(subject: DefenseSubject) -> str | None:
    module = subject.build().double()
    logits = ask(module, subject.inputs.double())
    if logits.dtype != torch.float64:
        return f"a module in float64 answers in {logits.dtype}"
    return mostly(logits, ask(subject.module, subject.inputs), "in float64")


def _device(subject: DefenseSubject) -> str | None:
    for where, module in subject.module.named_modules():
        loose = [key for key, value in vars(module).items() if isinstance(value, Tensor)]
        if loose:
            return f"{where or 'the module itself'} holds the plain tensor {loose[0]!r}"
    if torch.cuda.is_available():
        module = subject.build().cuda()
        logits = ask(module, subject.inputs.cuda())
        if not logits.is_cuda:
            return f"a module on the GPU answers on {logits.device}"
    return None


def _channels_last(subject: DefenseSubject) -> str | None:
    if randomised(subject):
        raise NotApplicableError("it is randomised")
    own = ask(subject.module, subject.inputs)
    last = subject.inputs.contiguous(memory_format=torch.channels_last)
    turned = subject.inputs.mT.contiguous().mT  # of one channel: columns before rows
    return mostly(ask(subject.module, last), own, "when channels lie last") or mostly(
        ask(subject.module, turned), own, "when columns lie before rows"
    )


def _save_load(subject: DefenseSubject) -> str | None:
    from safetensors.torch import load, save

    other = subject.build(seed=1)
    other.load_state_dict(load(save(tensors_of(subject.module))), strict=True)
    count = differing(ask(other, subject.inputs), ask(subject.module, subject.inputs))
    return f"{count} inputs get other logits after weights were saved and loaded" if count else None


def _twin(subject: DefenseSubject) -> str | None:
    if subject.plugin.twin is None:
        raise NotApplicableError("it names no twin")
    twin = registry.defenses.create(subject.plugin.twin)
    if twin.name != subject.plugin.twin:
        return f"{subject.plugin.twin!r} is not canonical; its name is {twin.name!r}"
    if twin.name == subject.plugin.name:
        return "it names itself"
    twin.network(shape=subject.shape)
    return None


def _weights_of(subject: DefenseSubject) -> str | None:
    if subject.plugin.weights_of is None:
        raise NotApplicableError("it takes nobody's weights")
    other = registry.defenses.create(subject.plugin.weights_of)
    module = other.build(network=subject.network, shape=subject.shape, classes=CLASSES)
    misfit = _misfit(module, subject.module)
    return f"weights of {other.name} do not fit: {misfit}" if misfit else None


def _odd_shape(subject: DefenseSubject) -> str | None:
    try:
        network = subject.plugin.network(shape=ODD)
        module = subject.plugin.build(network=network, shape=ODD, classes=CLASSES)
    except UsageError:
        return None
    module = module.to(subject.device).eval()
    logits = ask(module, torch.rand(2, *ODD).to(subject.device))
    return None if logits.shape == (2, CLASSES) else f"logits of shape {tuple(logits.shape)}"


def _recipe(subject: DefenseSubject) -> str | None:
    family = FAMILY_OF_SHAPE.get(subject.shape)
    if family is None:
        raise NotApplicableError(f"no family of data has inputs of shape {subject.shape}")
    recipe: object = subject.plugin.recipe(family)
    if recipe is None:
        raise NotApplicableError("it has none: its weights come from --checkpoint")
    if not isinstance(recipe, Recipe):
        return f"recipe({family!r}) returned {type(recipe).__name__}"
    try:
        recipe.describe()
    except Exception as error:  # noqa: BLE001 - anybody's code
        return f"describe() raised {type(error).__name__}: {error}"
    return None


RULES: tuple[Rule[DefenseSubject], ...] = (
    Rule("name", "Its name, and each option written out, is read back as the same defense",
        "give every parameter of __init__ a type, and a default that can be written", _name),
    Rule("build", "build() makes an nn.Module for the network that network() names",
        "return a torch.nn.Module from build(network=…, shape=…, classes=…)", _build),
    Rule("output", "Logits are finite float32 of shape (N, classes), for one input as for many",
        "end the module in one logit per class, and divide by nothing that can be 0", _output),
    Rule("eval-mode", "The module stays in eval mode",
        "do not call train() in forward, and leave dropout and batch norm to the mode", _eval_mode),
    Rule("input-unchanged", "The input is left as it is",
        "replace x += …, x[…] = … and functions ending in _ by ones that return", _input_unchanged),
    Rule("same-seed", "With the same seed the same input gets the same logits",
        "draw random numbers from torch's, numpy's or random's global generator alone", _same_seed),
    Rule("keeps-no-state", "An answer depends on the input alone, not on earlier ones",
        "keep nothing in self in forward; put what is learnt into training", _no_state),
    Rule("batch-mates", "An answer does not depend on the inputs beside it",
        "take no statistics over dim 0; put batch norm in eval mode", _batch_mates),
    Rule("gradient", "The logits have a gradient, or surrogates that have one are declared",
        "replace what has none (round, argmax, detach) in surrogates(): BPDA", _gradient),
    Rule("surrogates", "Each surrogate takes the same weights and answers bit for bit alike",
        "y.detach() + (x - x.detach()) has the value y and the gradient of x", _surrogates),
    Rule("dtype", "In float64 it answers alike, in float64",
        "make constants with x.new_tensor(…) or register_buffer", _dtype),
    Rule("device", "It moves to another device as a whole",
        "register tensors with register_buffer(name, tensor)", _device),
    Rule("channels-last", "The layout of the input in memory does not matter",
        "use reshape in place of view, and no strides", _channels_last),
    Rule("save-load", "The state_dict is all that it learnt",
        "hold what training sets in parameters and buffers", _save_load),
    Rule("twin", "The twin is a defense with a network for the same inputs, canonically named",
        "name a registered defense (python -m bench list), such as twin = \"relu\"", _twin),
    Rule("weights-of", "The weights of the defense that it names fit",
        "keep the names of the network's weights, or train it and delete weights_of", _weights_of),
    Rule("odd-shape", "Inputs of a shape it cannot take are refused by a UsageError",
        "raise bench.errors.UsageError in network(), saying which shapes it takes", _odd_shape),
    Rule("recipe", "recipe() returns a bench.api.Recipe that describes itself, or None",
        "return one of bench.defenses.recipes, or a subclass of bench.api.Recipe", _recipe),
)  # fmt: skip
