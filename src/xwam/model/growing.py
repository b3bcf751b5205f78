"""A video prior grown to a world action model.

A prior is a network of video alone, such as Wan2.2's: its weights are the trunk. What it lacks begins like this:

    depth blocks and head            copies of the trunk's last blocks and of its head
    view embedding                   0: all views look to the trunk as its one view did
    action and proprio coders        new, as the network makes them; what they decode is 0 at first

Right after growing, video alone gives bit for bit the prior's answer. Once action and proprio tokens are in the
sequence, video tokens attend to them as well, and the answer moves; training begins there.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from xwam.model.config import TransformerConfig
from xwam.model.transformer import WorldActionTransformer
from xwam.model.weights import ADDED, load_transformer

VIEWS = "view_embedding.weight"


def grow(prior: Mapping[str, Tensor], config: TransformerConfig) -> WorldActionTransformer:
    """A network of these sizes that begins with a prior's weights, under our names, as `xwam.model.weights` gives them.

    Raises ValueError if a weight of the trunk is missing or has another shape.
    """
    network = WorldActionTransformer(config)
    views = views_for(network, prior.get(VIEWS))
    load_transformer(network, {**prior, VIEWS: views})
    return network


def parts_to_grow(network: nn.Module, names: Iterable[str]) -> tuple[str, ...]:
    """Beginnings of the names of what the network has and a prior with weights of these names lacks."""
    names, own = tuple(names), tuple(network.state_dict())
    has = lambda held, part: any(name.startswith(part) for name in held)  # noqa: E731
    return tuple(part for part in ADDED if has(own, part) and not has(names, part))


def views_for(network: nn.Module, prior: Tensor | None) -> Tensor:
    """The embeddings of the network's views: the prior's where it knows a view, 0 beyond."""
    count, width = network.view_embedding.weight.shape
    views = torch.zeros(count, width)
    if prior is not None:
        if prior.shape[1] != width:
            raise ValueError(f"the prior has width {prior.shape[1]}, the network {width}: give it the prior's sizes")
        views[: len(prior)] = prior[:count]
    return views
