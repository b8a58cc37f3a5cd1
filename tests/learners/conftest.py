"""One thread: tests run side by side, and threads that wait for each other only burn time."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
