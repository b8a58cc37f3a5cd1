"""Zero-copy conversions between numpy and Arrow. pyarrow's own import pandas, which takes over a CPU second."""

from __future__ import annotations

from pipeline.storage.lazy import np, pa


def to_numpy(array: pa.Array) -> np.ndarray:
    """View an Arrow array of numbers without nulls as a read-only numpy array over the same memory."""
    return np.from_dlpack(array)


def from_numpy(values: np.ndarray) -> pa.Array:
    """Wrap a numpy array of numbers in an Arrow array; a contiguous one is not copied."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def list_array(values: pa.Array, lengths: np.ndarray) -> pa.Array:
    """Build a list array without nulls from the concatenated values and the lists' lengths."""
    ends = np.cumsum(lengths, dtype=np.int64)
    assert not len(ends) or ends[-1] < 2**31, "an Arrow array of lists holds fewer than 2^31 values"
    item = pa.field("element", values.type, nullable=False)
    return pa.ListArray.from_arrays(from_numpy(np.concatenate([[0], ends]).astype(np.int32)), values, type=pa.list_(item))


def fixed_size_list_array(values: pa.Array, length: int) -> pa.Array:
    """Build a fixed-size list array without nulls from the concatenated values."""
    return pa.FixedSizeListArray.from_arrays(values, type=pa.list_(pa.field("element", values.type, nullable=False), length))


def binary_array(distinct: list[bytes], index: np.ndarray) -> pa.Array:
    """Build a binary array whose item i is `distinct[index[i]]`."""
    ends = np.cumsum([0, *(len(text) for text in distinct)]).astype(np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(distinct))]
    dictionary = pa.Array.from_buffers(pa.binary(), len(distinct), buffers)
    return pa.DictionaryArray.from_arrays(from_numpy(index.astype(np.int32)), dictionary).dictionary_decode()
