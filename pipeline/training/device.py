"""Set up a training or an evaluation: device, threads, deterministic arithmetic, and the state of random generators."""

from __future__ import annotations

import os
import socket

import torch

from pipeline.learners.parallel import rank_suffix
from pipeline.ops.onednn_matmul import use_faster_products
from pipeline.storage.allocator import keep_freed_memory
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key


def prepare(threads: int, device: str) -> torch.device:
    """Set threads and deterministic arithmetic for this process, and return the device for auto, cpu or cuda.

    Operations without a deterministic implementation run with a warning. Raises UserError for cuda without a GPU.
    """
    keep_freed_memory()
    use_faster_products()
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("warn")  # like use_deterministic_algorithms, which takes seconds to import torch's compiler
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cudnn.benchmark = False
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("runtime.device: got cuda, but torch finds no GPU; expected auto or cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # makes cuBLAS deterministic; read at its first use
    if "LOCAL_RANK" in os.environ:
        _choose_gpu(int(os.environ["LOCAL_RANK"]), torch.cuda.device_count())
    return torch.device("cuda")


def _choose_gpu(process: int, gpus: int) -> None:
    """Select the GPU of a local rank."""
    if process >= gpus:
        raise UserError(f"runtime.device: found {gpus} GPUs on {socket.gethostname()}, expected one for each of its processes")
    torch.cuda.set_device(process)


def seed_everything(seed: int) -> None:
    """Seed torch's global generators, which dropout uses, differently on each rank; weights and data have generators of their own."""
    high, low, *_ = derive_key("torch", seed, *rank_suffix())
    torch.manual_seed(high << 31 | low >> 1)


def generator_state() -> dict[str, torch.Tensor]:
    """Return the state of torch's global generators on the CPU and the current GPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_generators(state: dict[str, torch.Tensor]) -> None:
    """Restore torch's global generators; the GPU's is ignored on a machine without one."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
