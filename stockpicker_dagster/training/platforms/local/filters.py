"""The part of JSONPath by which a batch transform chooses columns of CSV: `$`, `$[1]`, `$[0,2]`, `$[1:]`, `$[-1]`."""

import re

from stockpicker_dagster.errors import InvalidInput

_FORM = re.compile(r"\$(\[(-?\d+(?:,-?\d+)*|-?\d*:-?\d*)\])?")


class ColumnFilter:
    """Chooses columns of a line of CSV.

    >>> ColumnFilter("$[1:]").choose(["id", "one", "two"])
    ['one', 'two']
    >>> ColumnFilter("$[0,-1]").choose(["id", "one", "score"])
    ['id', 'score']
    """

    def __init__(self, path: str) -> None:
        """Raises `InvalidInput` for a path of another form."""
        read = _FORM.fullmatch(path.replace(" ", ""))
        if not read:
            raise InvalidInput(f"the filter {path!r} is not read; allowed: $, $[1], $[0,2], $[1:], $[:2], $[-1]")
        self.everything = read[1] is None
        self._places = read[2] or ":"

    def choose(self, cells: list[str]) -> list[str]:
        """The chosen cells; `InvalidInput` if the line has too few."""
        if ":" in self._places:
            first, _, last = self._places.partition(":")
            return cells[int(first) if first else None : int(last) if last else None]
        try:
            return [cells[int(place)] for place in self._places.split(",")]
        except IndexError:
            raise InvalidInput(f"the filter $[{self._places}] asks for more than the {len(cells)} columns") from None
