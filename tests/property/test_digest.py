"""Digests of parts combine to those of the whole."""

from __future__ import annotations

import pytest
import xxhash
from fastcrc import crc64
from hypothesis import given
from hypothesis import strategies as st

from fastdl.combine import crc64_combine, crc64_of_parts
from fastdl.digest import Digest, Hasher
from fastdl.fetch import Tally
from fastdl.plan import Plan, Run

data_and_part_size = st.tuples(st.binary(min_size=1, max_size=2000), st.integers(1, 300))


@given(st.binary(max_size=500), st.binary(max_size=500))
def test_combining_two_is_hashing_both(first: bytes, second: bytes) -> None:
    """For any split, the empty ones included."""
    assert crc64_combine(crc64.xz(first), crc64.xz(second), len(second)) == crc64.xz(first + second)


@given(data_and_part_size)
def test_the_parts_crcs_give_that_of_the_whole(case: tuple[bytes, int]) -> None:
    """For any part size, whatever the length of the last part."""
    data, part_size = case
    parts = [data[at : at + part_size] for at in range(0, len(data), part_size)]
    assert crc64_of_parts(map(crc64.xz, parts), part_size, len(parts[-1])) == crc64.xz(data)


@given(data_and_part_size)
def test_parts_that_changed_places_are_noticed(case: tuple[bytes, int]) -> None:
    """The CRC of the whole depends on the order of its parts."""
    data, part_size = case
    full = [data[at : at + part_size] for at in range(0, len(data) - part_size, part_size)]
    if len(full) > 1 and full[0] != full[1]:
        swapped = [full[1], full[0], *full[2:]]
        assert crc64_of_parts(map(crc64.xz, swapped), part_size, part_size) != crc64.xz(b"".join(full))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**48), st.integers(0, 2**48))
def test_combining_does_not_depend_on_the_brackets(first: int, second: int, nbytes: int, more: int) -> None:
    """(A B) C is A (B C), for lengths that no test could write out."""
    third = first ^ second
    left = crc64_combine(crc64_combine(first, second, nbytes), third, more)
    assert left == crc64_combine(first, crc64_combine(second, third, more), nbytes + more)


@given(st.binary(max_size=3000), st.lists(st.integers(1, 400), max_size=20), st.integers(0, 2**24))
def test_windows_do_not_show_in_a_digest(data: bytes, windows: list[int], index: int) -> None:
    """However the bytes arrive, the record is that of the part."""
    hasher, rest = Hasher(index), memoryview(data)
    for window in windows:
        hasher.update(rest[:window])
        rest = rest[window:]
    hasher.update(rest)
    digest = hasher.digest()
    assert (digest.xxh3, digest.crc64) == (xxhash.xxh3_64_intdigest(data, seed=index), crc64.xz(data))


@given(data_and_part_size, st.data())
def test_a_tally_cuts_any_windows_into_the_parts(case: tuple[bytes, int], draws: st.DataObject) -> None:
    """Each part is told once, in order, with its own digest, however windows and parts overlap."""
    data, part_size = case
    plan = Plan(len(data), part_size)
    first = draws.draw(st.integers(0, plan.count - 1))
    run = Run(first, draws.draw(st.integers(first + 1, plan.count)))
    tally = Tally(plan, run)
    told: list[Digest] = []
    while tally.offset < tally.stop:
        count = draws.draw(st.integers(1, tally.stop - tally.offset))
        index, digests = tally.feed(memoryview(data)[tally.offset : tally.offset + count])
        assert index == run.first + len(told) or not digests
        told.extend(digests)
    for index, digest in enumerate(told, run.first):
        part = plan.part(index)
        assert digest.xxh3 == xxhash.xxh3_64_intdigest(data[part.start : part.stop], seed=index)
    assert len(told) == len(run)


@pytest.mark.parametrize("nbytes", [0, 1, 2**20, 2**40])
def test_a_single_wrong_bit_is_always_noticed(nbytes: int) -> None:
    """Whatever follows a flipped bit, the CRC of the whole differs."""
    zeros = crc64_combine(0, 0, nbytes)
    for bit in range(64):
        assert crc64_combine(1 << bit, zeros, nbytes) != zeros
