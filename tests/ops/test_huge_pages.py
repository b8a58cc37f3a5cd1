"""Large buffers: the same tensors, whatever the kernel makes of the advice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from pipeline.ops import huge_pages


@pytest.mark.parametrize("rows", [1, 3, huge_pages.SMALLEST // 4096, huge_pages.SMALLEST // 4096 + 1, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_buffer_is_an_ordinary_tensor(rows: int, dtype: torch.dtype) -> None:
    buffer = huge_pages.empty((rows, 1024), torch.empty(0, dtype=dtype))
    assert buffer.shape == (rows, 1024) and buffer.dtype == dtype and buffer.is_contiguous()
    buffer.fill_(1)
    assert float(buffer.sum(dtype=torch.float64)) == rows * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="madvise is Linux's")
def test_the_kernel_is_asked_for_whole_large_pages_inside_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(huge_pages, "_advise", lambda: lambda *given: asked.append(given) or 0)
    buffer = huge_pages.empty((huge_pages.SMALLEST + 5000,), torch.empty(0, dtype=torch.uint8))
    ((start, length, advice),) = asked
    assert start % huge_pages.PAGE == 0 and length % huge_pages.PAGE == 0 and advice == 14
    assert buffer.data_ptr() <= start and start + length <= buffer.data_ptr() + buffer.nbytes
    huge_pages.empty((huge_pages.SMALLEST - 1,), torch.empty(0, dtype=torch.uint8))
    assert len(asked) == 1


def test_a_system_without_it_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages.sys, "platform", "sunos")
    huge_pages._advise.cache_clear()
    try:
        assert huge_pages.empty((huge_pages.SMALLEST,), torch.empty(0)).fill_(2)[-1] == 2
    finally:
        huge_pages._advise.cache_clear()


def test_advice_is_taken_where_the_system_allows_it() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("no large pages here")
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    huge_pages.empty((128 << 20,), torch.empty(0, dtype=torch.uint8)).fill_(1)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < (128 << 20) // 4096
