"""Training the weights of a model's blocks themselves instead of an adapter: `trainable: full`.

An adapter stays on the model and as it is, so that whoever reads the result finds what adapters bring, and the weights
beside it in a file that replaces those of the base model. A later stage may train an adapter on top of them; the file
is then handed on.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safetensors.torch import load_file, save_file
from torch import nn

from components.parallel.ranks import is_main
from components.parallel.sharding import on_main

if TYPE_CHECKING:
    from peft import PeftModel

Trainable = Literal["lora", "full"]
WEIGHTS_FILE = "block_weights.safetensors"


def train_weights(model: "PeftModel", blocks: nn.Module) -> None:
    """From now on train the weights of `blocks`, a part of the model, and no adapter."""
    model.requires_grad_(False)
    for name, parameter in blocks.named_parameters():
        parameter.requires_grad_("lora_" not in name)


def load_weights(model: nn.Module, folder: Path | None) -> Path | None:
    """Replace a base model's weights by those that a stage left in `folder`, if it did; returns their file.

    Raises:
        ValueError: the file holds a weight that the model does not have.
    """
    file = folder and folder / WEIGHTS_FILE
    if file is None or not file.exists():
        return None
    unknown = model.load_state_dict(load_file(file), strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"{file}: weights of another model: {unknown[0]} is no weight of {type(model).__name__}")
    return file


def save_weights(model: "PeftModel", out: Path, loaded: Path | None) -> None:
    """Write the weights that were trained, or hand on those that were loaded; every rank must call it."""
    weights = {
        name.replace(".base_layer.", "."): on_main(parameter.detach())
        for name, parameter in model.get_base_model().named_parameters()
        if parameter.requires_grad and "lora_" not in name
    }
    if not is_main():
        return
    if weights:
        save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, out / WEIGHTS_FILE)
    elif loaded is not None:
        shutil.copyfile(loaded, out / WEIGHTS_FILE)
