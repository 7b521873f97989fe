"""Column types that are the same on every store."""

from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Dialect, Integer, String, Text
from sqlalchemy.types import TypeDecorator

from app.core.clock import from_milliseconds, to_milliseconds
from app.core.errors import StoreDamaged

# SQLite numbers rows by INTEGER PRIMARY KEY alone; BIGINT would not be the row id.
RowId = BigInteger().with_variant(Integer(), "sqlite")


class Moment(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as whole milliseconds since the epoch: the same number on every store."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_milliseconds(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        try:
            return None if value is None else from_milliseconds(value)
        except (TypeError, OverflowError):
            raise StoreDamaged("there is a moment that is none") from None


Words = TypeVar("Words", bound=StrEnum)


class Word(TypeDecorator[Words]):
    """A member of a string enumeration, stored as its word."""

    impl = String(16)
    cache_ok = True

    def __init__(self, words: type[Words]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: Any | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Words | None:
        try:
            return None if value is None else self.words(value)
        except ValueError:
            raise StoreDamaged(f"there is no {self.words.__name__} {value!r}") from None


class Names(TypeDecorator[tuple[str, ...]]):
    """A tuple of names (`[A-Za-z0-9._:-]+`), stored as `|a|b|` so that `|a|` finds one name anywhere."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:
        return join_names(value) if value is not None else None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> tuple[str, ...]:
        try:
            return tuple(name for name in (value or "").split("|") if name)
        except AttributeError:
            raise StoreDamaged("there are names that are none") from None


def join_names(names: tuple[str, ...]) -> str:
    """How `Names` are stored; empty for none."""
    return f"|{'|'.join(names)}|" if names else ""
