"""Credentials are renewed once for all orders that carry the old ones, and never twice in a row for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from fastdl.errors import AccessDenied, Archived, NetworkError, NotFound, Refused
from fastdl.renewal import Renewal

if TYPE_CHECKING:
    from fastdl.errors import FastdlError
    from fastdl.sources import Source

REFUSED = Refused("refused", 403, {}, b"")


class Store:
    """A source whose refusals mean ``meaning``; it learns from the first ``lessons`` of them."""

    def __init__(self, meaning: FastdlError, *, lessons: int = 0, renewable: bool = True) -> None:
        self.meaning, self.lessons, self.renewable = meaning, lessons, renewable
        self.renewals = 0

    def adapt(self, _: Refused) -> bool:
        """Learn."""
        self.lessons -= 1
        return self.lessons >= 0

    def explain(self, _: Refused) -> FastdlError:
        """Give the refusal its meaning."""
        return self.meaning

    def renew(self) -> bool:
        """Count."""
        self.renewals += 1
        return self.renewable


def renewal_of(store: Store) -> Renewal:
    """Tie them together."""
    return Renewal(cast("Source", store))  # the three methods that matter


def test_one_renewal_serves_all_orders_given_before() -> None:
    """Three orders come back denied: credentials are renewed for the first, the others are simply given again."""
    store = Store(AccessDenied("denied"))
    renewal = renewal_of(store)
    assert [renewal.judge(number, REFUSED, 7)[1] for number in (3, 5, 7)] == [True, True, True]
    assert store.renewals == 1


def test_new_credentials_that_are_refused_end_it() -> None:
    """Unless they were accepted in between, nothing newer can be had."""
    store = Store(AccessDenied("denied"))
    renewal = renewal_of(store)
    assert renewal.judge(1, REFUSED, 1) == (store.meaning, True)
    assert renewal.judge(2, REFUSED, 2) == (store.meaning, False)
    renewal.accepted(3)
    assert renewal.judge(4, REFUSED, 4)[1]
    assert store.renewals == 2


def test_an_order_of_old_credentials_proves_nothing_of_new_ones() -> None:
    """Its answer may have begun before they were renewed."""
    store = Store(AccessDenied("denied"))
    renewal = renewal_of(store)
    assert renewal.judge(1, REFUSED, 5)[1]
    renewal.accepted(5)
    assert not renewal.judge(6, REFUSED, 6)[1]


def test_where_nothing_can_be_renewed() -> None:
    """The denial is the end."""
    assert renewal_of(Store(AccessDenied("denied"), renewable=False)).judge(1, REFUSED, 1)[1] is False


def test_what_a_source_learns_is_worth_another_request() -> None:
    """A clock that was set, whatever the refusal means: the order is given again, and no credentials are renewed."""
    store = Store(NotFound("gone"), lessons=1)
    renewal = renewal_of(store)
    assert [renewal.judge(number, REFUSED, number)[1] for number in (1, 2)] == [True, False]
    assert store.renewals == 0


def test_what_no_credentials_change() -> None:
    """Archived objects, and failures that are no refusals, are handed on as they are."""
    store = Store(Archived("cold"))
    assert renewal_of(store).judge(1, REFUSED, 1) == (store.meaning, False)
    broken = NetworkError("broken")
    assert renewal_of(store).judge(1, broken, 1) == (broken, False)
    assert store.renewals == 0
