"""What all tests share: one torch thread, so that they are quick beside one another."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
