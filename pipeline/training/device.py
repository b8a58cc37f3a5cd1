"""The machine a training or an evaluation runs on: device, threads, and arithmetic that repeats."""

from __future__ import annotations

import os
import socket

import torch

from pipeline.learners.parallel import ordinal
from pipeline.ops.onednn_matmul import use_faster_products
from pipeline.storage.allocator import keep_freed_memory
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key


def prepare(threads: int, device: str) -> torch.device:
    """Set threads and deterministic arithmetic for this process, and choose the device: auto, cpu or cuda.

    Operations without a deterministic form run anyway, with a warning. Raises UserError when cuda is asked for and not there.
    """
    keep_freed_memory()
    use_faster_products()
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("warn")  # the same as use_deterministic_algorithms, which imports torch's compiler: seconds
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cudnn.benchmark = False
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("runtime.device: cuda asked for, but torch finds no GPU; expected auto or cpu here")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic; read at its first use
    if "LOCAL_RANK" in os.environ:
        _choose_gpu(int(os.environ["LOCAL_RANK"]), torch.cuda.device_count())
    return torch.device("cuda")


def _choose_gpu(process: int, gpus: int) -> None:
    """The GPU of one of the processes that share a training on this machine."""
    if process >= gpus:
        raise UserError(f"runtime.device: found {gpus} GPUs on {socket.gethostname()}, expected one for each of its processes")
    torch.cuda.set_device(process)


def seed_everything(seed: int) -> None:
    """Seed torch's global generators, which dropout draws from, on a stream of their own: weights and data use the seed elsewhere.

    Each of several processes has a stream to itself.
    """
    high, low, *_ = derive_key("torch", seed, *ordinal())
    torch.manual_seed(high << 31 | low >> 1)


def generator_state() -> dict[str, torch.Tensor]:
    """State of torch's global generators, of the CPU and of the GPU in use."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_generators(state: dict[str, torch.Tensor]) -> None:
    """Put torch's global generators back; a GPU's state is passed over on a machine without one."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
