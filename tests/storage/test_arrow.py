"""Conversions between numpy and Arrow."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pipeline.storage.arrow import binary_array, fixed_size_list_array, from_numpy, list_array, to_numpy


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.int64, np.float32])
def test_number_arrays_round_trip(kind: type[np.generic]) -> None:
    values = np.arange(10).astype(kind)
    array = from_numpy(values[::3])
    assert array.to_pylist() == [0, 3, 6, 9]
    assert to_numpy(array[1:3]).tolist() == [3, 6]
    assert to_numpy(array[1:3]).dtype == kind
    assert len(to_numpy(from_numpy(values[:0]))) == 0


def test_list_arrays_have_no_nulls() -> None:
    values = from_numpy(np.arange(6, dtype=np.uint16))
    ragged, even = list_array(values, np.array([0, 1, 5])), fixed_size_list_array(values, 3)
    assert ragged.to_pylist() == [[], [0], [1, 2, 3, 4, 5]]
    assert even.to_pylist() == [[0, 1, 2], [3, 4, 5]]
    assert not ragged.type.value_field.nullable and not even.type.value_field.nullable


def test_binary_arrays_repeat_their_distinct_values() -> None:
    assert binary_array([b"ab", b"", b"c"], np.array([2, 0, 0, 1])).to_pylist() == [b"c", b"ab", b"ab", b""]
    assert binary_array([b"x"], np.array([], np.int64)).to_pylist() == []


def test_reading_and_writing_never_import_pandas() -> None:
    code = (
        "import sys, pathlib, tempfile\n"
        "from tests.storage.datasets import make_dataset\n"
        "from pipeline.storage.loader import open_rows\n"
        "import numpy as np\n"
        "with tempfile.TemporaryDirectory() as place:\n"
        "    sample = make_dataset(pathlib.Path(place), [3, 2])\n"
        "    for mode in ('memory', 'row_groups'): open_rows(sample.folder, mode).gather(np.arange(5))\n"
        "print(sorted({'pandas', 'torch', 'matplotlib'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
