"""A training task with two parameters."""

import math

import numpy as np
import torch
from torch import nn


class Line:
    """Learns a and b of y = a x + b. The number of an example determines its point."""

    def __init__(self, inputs=1, broken_at=None):
        self.network = nn.Linear(inputs, 1)
        nn.init.zeros_(self.network.weight)
        nn.init.zeros_(self.network.bias)
        self.broken_at, self.taken, self.weights = broken_at, [], []

    def parameter_groups(self):
        return [{"params": [self.network.weight], "scale": 1.0}, {"params": [self.network.bias], "scale": 0.5}]

    def loss(self, network, example_numbers, progress):
        self.taken.append(example_numbers)
        self.weights.append(self.network.weight.item())
        x = torch.tensor([[np.random.default_rng(number).normal()] for number in example_numbers]).float()
        found = network(x.expand(-1, self.network.in_features))
        loss = (found.float() - 3 * x - 2).square().mean()
        return {
            "loss": loss * (math.nan if self.broken_at in example_numbers else 1),
            "progress": torch.tensor(progress),
        }

    def evaluate(self, network):
        return {"AP": network.weight.item()}
