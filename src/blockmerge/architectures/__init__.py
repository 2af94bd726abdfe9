"""What is known of models by the names of their tensors: order, layers, blocks, ties, vocabulary.

Orders are data: ``orders.json`` holds those of the model classes of transformers, and ``tools/make_order_tables.py``
makes it. Nothing here needs torch.
"""

from blockmerge.architectures.blocks import Block, block_of, layer_of, stack_of, vocabulary_tensors, with_layer
from blockmerge.architectures.order import (
    Order,
    layers_key,
    missing,
    module_name,
    module_order,
    num_layers,
    prefix_of,
    with_prefix,
)
from blockmerge.architectures.tables import known_architectures, table_version

__all__ = [
    "Block",
    "Order",
    "block_of",
    "known_architectures",
    "layer_of",
    "layers_key",
    "missing",
    "module_name",
    "module_order",
    "num_layers",
    "prefix_of",
    "stack_of",
    "table_version",
    "vocabulary_tensors",
    "with_layer",
    "with_prefix",
]
