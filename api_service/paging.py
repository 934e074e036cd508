"""Lists of clusters in parts: which part is asked for, and where the next one begins (`docs/rest.md`, section 6.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from api_service.parameters import GivenCluster

Item = TypeVar("Item")

# the largest `bigint`, in which PostgreSQL counts rows
_ALL_ROWS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a list that begins behind the cluster `after` and ends after `limit` clusters, if these are given."""

    limit: int | None = None
    after: GivenCluster | None = None

    @property
    def is_whole_list(self) -> bool:
        """Whether there is no bound at all."""
        return self.limit is None and self.after is None

    @property
    def rows(self) -> int:
        """How many rows to read: the one above the limit tells that there are more."""
        return _ALL_ROWS if self.limit is None else self.limit + 1

    def cut(self, found: list[Item], cluster: Callable[[Item], str]) -> tuple[list[Item], str | None]:
        """Return the items that belong to the page, and the query string of the next one, None if it is the last.

        `found` is what was read, ascending by `cluster`.
        """
        if self.limit is None or len(found) <= self.limit:
            return found, None
        items = found[: self.limit]
        return items, urlencode({"limit": self.limit, "after": cluster(items[-1])})


@dataclass(frozen=True, slots=True)
class PagedAnswer:
    """An answer with a part of a list, and the query string that asks for the next part, None if there is none."""

    answer: msgspec.Struct
    next_query: str | None

    def link(self, path: str) -> str | None:
        """Return the value of the header `Link`, None if there is no next part; `path` is that of the request."""
        return None if self.next_query is None else f'<{quote(path)}?{self.next_query}>; rel="next"'
