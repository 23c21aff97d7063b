"""Which requests many ranges need: every wanted byte once, in pieces and batches of bounded size."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fastdl.joining import HEADER, Piece, Span, batches, behind, divide, join

SPANS = st.lists(st.builds(Span, st.integers(0, 300), st.integers(0, 60)), max_size=30)
GAPS = st.integers(0, 20)
LONGEST = st.integers(1, 80)


def wanted(spans: list[Span]) -> set[int]:
    """Return every byte that is asked for."""
    return {at for span in spans for at in range(span.offset, span.stop)}


def check_tiling(pieces: list[Piece], spans: list[Span], longest: int) -> None:
    """Check what holds of all pieces: in order, not empty, not too long, each with the members that it has bytes of."""
    assert all(first.stop <= second.start for first, second in itertools.pairwise(pieces))
    for piece in pieces:
        assert 0 < piece.size <= longest
        touching = [i for i, s in enumerate(spans) if s.length and s.offset < piece.stop and s.stop > piece.start]
        assert sorted(piece.members) == touching
        bounds = [at for i in touching for at in (max(piece.start, spans[i].offset), min(piece.stop, spans[i].stop))]
        assert (piece.start, piece.stop) == (min(bounds), max(bounds))


def covered(pieces: list[Piece]) -> set[int]:
    """Return every byte that is fetched."""
    return {at for piece in pieces for at in range(piece.start, piece.stop)}


@given(SPANS, GAPS, LONGEST)
def test_every_wanted_byte_is_in_one_piece(spans: list[Span], gap: int, longest: int) -> None:
    """And what is fetched beside them lies in gaps that are not longer than allowed."""
    pieces = list(divide(join(spans, gap, longest), spans, longest))
    check_tiling(pieces, spans, longest)
    assert wanted(spans) <= covered(pieces)
    needless = covered(pieces) - wanted(spans)
    runs = [at for at in needless if at - 1 not in needless]
    assert all(not set(range(at, at + gap + 1)) <= needless for at in runs)


@given(SPANS, GAPS)
def test_without_a_bound_the_pieces_are_the_naive_ones(spans: list[Span], gap: int) -> None:
    """Joined are exactly those bytes between which at most the gap lies."""
    bytes_wanted = sorted(wanted(spans))
    starts = [at for i, at in enumerate(bytes_wanted) if not i or at - bytes_wanted[i - 1] > gap + 1]
    assert [piece.start for piece in join(spans, gap, 10**6)] == starts


@given(SPANS, GAPS, LONGEST, LONGEST)
def test_pieces_divided_are_the_same_bytes(spans: list[Span], gap: int, longest: int, shorter: int) -> None:
    """Dividing makes them shorter, loses nothing and fetches nothing more."""
    pieces = join(spans, gap, longest)
    parts = list(divide(pieces, spans, shorter))
    check_tiling(parts, spans, shorter)
    assert wanted(spans) <= covered(parts) <= covered(pieces)


@given(SPANS, GAPS, LONGEST, st.integers(0, 380))
def test_what_is_behind_a_byte(spans: list[Span], gap: int, longest: int, at: int) -> None:
    """The rest behind a first answer has every byte that this one does not have."""
    rest = behind(join(spans, gap, longest), spans, at)
    check_tiling(rest, spans, 400)
    assert {each for each in wanted(spans) if each >= at} <= covered(rest)
    assert all(piece.start >= at for piece in rest)


@given(SPANS, LONGEST, st.integers(1, 200), st.integers(1, 8))
def test_batches_keep_order_and_bounds(spans: list[Span], longest: int, share: int, most: int) -> None:
    """A batch has no more bytes and ranges than it may, unless it is one piece, and no neighbours."""
    pieces = join(spans, 0, longest)
    groups = list(batches(pieces, share, most))
    assert [piece for group in groups for piece in group] == pieces
    for group in groups:
        assert len(group) == 1 or sum(piece.size for piece in group) <= share
        assert 1 <= len(group) <= most
        assert all(first.stop < second.start for first, second in itertools.pairwise(group))


def test_a_header_is_never_too_long() -> None:
    """However large the offsets are."""
    pieces = [Piece(10**18 + 9 * at, 10**18 + 9 * at + 5, (at,)) for at in range(500)]
    groups = list(batches(pieces, 10**9, 10**9))
    for group in groups:
        assert len(",".join(f"{piece.start}-{piece.stop - 1}" for piece in group)) <= HEADER
    assert len(groups) == -(-500 * 40 // HEADER)


def test_a_long_range_is_cut_evenly() -> None:
    """So that the connections that share it end together."""
    spans = [Span(7, 1000)]
    assert [piece.size for piece in divide(join(spans, 0), spans, 300)] == [250] * 4


def test_a_range_of_any_length_is_cut_as_late_as_it_is_wanted() -> None:
    """Before the object's size is known one may ask for more than there is."""
    spans = [Span(0, 1 << 62), Span(1 << 62, 5)]
    assert next(batches(divide(join(spans, 0), spans, 1000), 1000))[0].size <= 1000


def test_nothing_is_asked_for_nothing() -> None:
    """Empty ranges need no request."""
    assert join([Span(5, 0), Span(0, 0)], 10) == []
    assert list(batches([], 100)) == []
