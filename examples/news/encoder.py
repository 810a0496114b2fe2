"""A small encoder of headlines: a bag of hashed words and pieces of words, and a layer on its mean.

It needs no vocabulary, so a word that first appears in June has a place from the start. It is drawn, not pretrained.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

LONGEST = 128  #: pieces of a headline that are looked at
_WORD = re.compile(r"\w+")


def encode(frame: Any) -> torch.Tensor:
    """Numbers of each headline's pieces, shape (n, LONGEST), filled up with 0."""
    out = torch.zeros(len(frame), LONGEST, dtype=torch.int64)
    for row, title in zip(out, frame["title"], strict=True):
        found = pieces(str(title))[:LONGEST]
        row[: len(found)] = torch.tensor(found, dtype=torch.int64)
    return out


@lru_cache(maxsize=100_000)
def pieces(title: str) -> list[int]:
    """Numbers, from 1 on, of words, of pairs of neighbours, and of runs of four letters within words."""
    words = _WORD.findall(title.lower())
    pairs = [f"{a} {b}" for a, b in pairwise(words)]
    runs = [f"#{word[i : i + 4]}" for word in (f"<{w}>" for w in words if len(w) > 4) for i in range(len(word) - 3)]
    return [1 + zlib.crc32(piece.encode()) for piece in [*words, *pairs, *runs]]


class Encoder(nn.Module):
    """The mean of a headline's pieces, and a layer on it.

    Parameters
    ----------
    width : int
        Of what it gives for a headline.
    places : int
        How many vectors there are; pieces share them by their numbers. The first stands for nothing.
    """

    def __init__(self, width: int = 48, places: int = 1 << 14) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(places, width, mode="mean", padding_idx=0)
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Dropout(0.2), nn.Linear(width, width), nn.ReLU())
        nn.init.normal_(self.bag.weight, std=0.1)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """What a headline is about, shape (n, width)."""
        shared = 1 + (numbers - 1) % (self.bag.num_embeddings - 1)
        return self.layers(self.bag(torch.where(numbers > 0, shared, 0)))

    def self_supervised_loss(self, numbers: torch.Tensor) -> torch.Tensor:
        """Of two random halves of each headline: how badly one finds the other among those of the same step.

        The loss of Oord, Li and Vinyals (2018), Representation learning with contrastive predictive coding, with the
        halves as the two views.
        """
        first = torch.rand(numbers.shape) < 0.5
        one, other = (functional.normalize(self(numbers * half), dim=1) for half in (first, ~first))
        return functional.cross_entropy(one @ other.T / 0.1, torch.arange(len(numbers)))
