"""Threads, devices and memory."""

import numpy as np
import torch

from prffn.training.device import SMALL_NETWORK, peak_memory_mb, reset_peak_memory, threads_for


def test_small_networks_train_with_one_thread_and_leave_the_setting_as_it_was():
    torch.set_num_threads(before := 2)
    with threads_for(SMALL_NETWORK - 1) as threads:
        assert threads == torch.get_num_threads() == 1
    with threads_for(SMALL_NETWORK) as threads:
        assert threads == before
    assert torch.get_num_threads() == before
    torch.set_num_threads(1)


def test_peak_memory_sees_what_was_allocated():
    """200 MB written and freed again stay in the peak; a reset starts from what is in use (where Linux allows it)."""
    device = torch.device("cpu")
    reset_peak_memory(device)
    before = peak_memory_mb(device)
    block = np.ones(200_000_000 // 8)
    del block
    assert peak_memory_mb(device) >= before + 100
