"""What all tests that train share."""

import pytest


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Draw the same weights in each test, on one thread: several fight for the cores of a busy machine."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(1)
