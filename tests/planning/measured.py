"""Run training passes for real and measure them: what autograd saves, and the most that is held at one time."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from components.models.artist import Grid
from components.models.flow import flow_matching_loss
from components.models.lora import LoraSettings
from components.models.published import Configurations, build_critic, build_transformer
from tests.planning.small import small

MIDDLE = small(depth=6, heads=8)
MIDDLE_GRID, MIDDLE_TEXT = Grid(24, 32), 100
LORA = LoraSettings(rank=8, alpha=16)


def transformer_pass(configurations: Configurations, grid: Grid, text: int):
    """A transformer with an adapter, and a function that computes its loss on random input."""
    model = build_transformer(configurations, LORA)
    channels = configurations.transformer["in_channels"]

    def run() -> Tensor:
        noisy, source = torch.randn(2, 1, grid.tokens, channels)
        shape = (1, grid.height, grid.width)
        velocity = model(
            hidden_states=torch.cat([noisy, source], dim=1),
            encoder_hidden_states=torch.randn(1, text, configurations.transformer["joint_attention_dim"]),
            timestep=torch.rand(1),
            img_shapes=[[shape, shape]],
            return_dict=False,
        )[0][:, : grid.tokens]
        return flow_matching_loss(velocity, noisy, source).mean()

    return model, run


def critic_pass(configurations: Configurations, tokens: int, completion: int):
    """A language model with an adapter, and a function that computes the cross-entropy of its last tokens."""
    model = build_critic(configurations, LORA)
    base, width = model.get_base_model(), configurations.critic["text_config"]["hidden_size"]
    mask = torch.ones(tokens, tokens, dtype=torch.bool).tril()[None, None]

    def run() -> Tensor:
        hidden = base.model.language_model(
            inputs_embeds=torch.randn(1, tokens, width), attention_mask={"full_attention": mask}, use_cache=False
        ).last_hidden_state
        scores = base.lm_head(hidden[:, -completion:]).index_fill(-1, torch.tensor([5, 6]), -1e9)
        return functional.cross_entropy(scores.flatten(0, 1).clone(), torch.zeros(completion, dtype=torch.long))

    return model, run


def saved_bytes(model: nn.Module, run) -> int:
    """Bytes of the different storages that autograd saves for the backward pass, the model's own left out."""
    own = [*model.parameters(), *model.buffers()]
    own += [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    addresses = {tensor.untyped_storage().data_ptr() for tensor in own}
    sizes: dict[int, int] = {}
    kept = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in addresses:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(storage)  # or its address could be given out again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(sizes.values())


def peak_bytes(run) -> int:
    """The most bytes that PyTorch's allocator held at one time in the forward and backward pass of a loss.

    Every allocation is counted, so that the figure is the same on every machine and at any load.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run().backward()
    events = recorded.profiler.kineto_results.events()
    sizes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    return max(itertools.accumulate(size for _, size in sorted(sizes, key=lambda timed: timed[0])))
