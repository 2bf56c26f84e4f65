"""A key/value cache whose rows are the running sequences, each at its own position.

transformers' DynamicCache copies everything at every step and has no way to let one row end and another begin, so a batch could
only live and die as a whole. Here each layer owns one buffer of (rows, heads, tokens, dim); a forward pass writes in place
at each row's own positions and reads a view. Rows in use are 0 to n-1, so that the view needs no gather; whoever ends a row moves
the last one into its place.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

GROWTH = 256
"""Tokens by which the buffers grow at least: growing copies everything."""

KEPT = 1024
"""Tokens a row that an idle engine keeps allocated."""


class _Window:
    """Which rows and positions the next forward pass writes; shared by all layers."""

    first: int
    last: int
    rows: Tensor
    positions: Tensor
    width: int
    """Tokens that the pass may look at: the highest position plus one."""


class _RowLayer(CacheLayerMixin):  # type: ignore[misc] # transformers is not typed for us
    is_sliding = False

    def __init__(self, window: _Window) -> None:
        super().__init__()
        self.window = window

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        _, heads, _, dim = key_states.shape
        self.keys = key_states.new_zeros((0, heads, 0, dim))
        self.values = value_states.new_zeros((0, value_states.shape[1], 0, value_states.shape[3]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window = self.window
        self.keys = _grown(self.keys, window.last, window.width)
        self.values = _grown(self.values, window.last, window.width)
        self.keys[window.rows, :, window.positions] = key_states.transpose(1, 2)
        self.values[window.rows, :, window.positions] = value_states.transpose(1, 2)
        view = (slice(window.first, window.last), slice(None), slice(0, window.width))
        return self.keys[view], self.values[view]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.window.width, 0

    def get_seq_length(self) -> int:
        return self.window.width

    def get_max_length(self) -> int:
        return -1


class RowCache(Cache):  # type: ignore[misc]
    """The cache of all layers."""

    def __init__(self, layers: int) -> None:
        self._window = _Window()
        super().__init__(layers=[_RowLayer(self._window) for _ in range(layers)])

    def aim(self, first: int, positions: Tensor) -> Tensor:
        """Sets what the next pass writes: rows from ``first`` on, (rows, tokens) of ``positions``; returns the attention mask."""
        window = self._window
        window.first, window.last = first, first + len(positions)
        window.rows = torch.arange(window.first, window.last).unsqueeze(1)
        window.positions = positions
        window.width = int(positions.max()) + 1
        return torch.arange(window.width) <= positions[:, None, :, None]

    def move(self, source: int, target: int) -> None:
        """Copies one row over another."""
        for layer in self.layers:
            layer.keys[target] = layer.keys[source]
            layer.values[target] = layer.values[source]

    def rest(self) -> None:
        """Gives the memory of an empty cache back, unless it is little."""
        for layer in self.layers:
            if layer.is_initialized and layer.keys.shape[2] > KEPT:
                layer.lazy_initialization(layer.keys, layer.values)


def _grown(buffer: Tensor, rows: int, tokens: int) -> Tensor:
    have_rows, heads, have_tokens, dim = buffer.shape
    if rows <= have_rows and tokens <= have_tokens:
        return buffer
    tokens = have_tokens if tokens <= have_tokens else max(tokens, have_tokens + GROWTH)
    grown = buffer.new_zeros((max(rows, have_rows), heads, tokens, dim))
    grown[:have_rows, :, :have_tokens] = buffer
    return grown
