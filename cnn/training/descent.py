"""From gradients to new weights: clipping, and a step of the optimizer."""

from torch import nn
from torch.optim import Optimizer


class Descent:
    """The descent of a worker that holds all weights and their gradients: alone, or with DDP."""

    def step(self, network: nn.Module, optimizer: Optimizer, clip: float) -> None:
        """Update the weights; `clip` is the largest norm of all gradients together."""
        nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()

    def gather(self, optimizer: Optimizer) -> None:
        """Complete the optimizer's state on rank 0; all workers call this together."""
