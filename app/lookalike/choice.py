"""Which method answers in each category, as chosen after an experiment: a JSON file.

    {"default":"behaviour","categories":{"1":"image","2":"behaviour"}}

`lookalike-build report --choose` writes it, and ``/related`` follows it. Ids are text, also where they
are integers in the release. Further keys are for people.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from lookalike.errors import LookalikeError
from lookalike.release.ids import Id

Answering = Literal["behaviour", "image"]

ANSWERING: Final[tuple[Answering, ...]] = ("behaviour", "image")


class ChoiceError(LookalikeError):
    """The file of a choice cannot be used; the text says why."""


class Choice(msgspec.Struct, frozen=True):
    """The method of each category, and that of all others."""

    default: Answering
    categories: dict[str, Answering]

    @classmethod
    def read(cls, path: Path) -> "Choice":
        """The choice in the file at `path`; ChoiceError names the file."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise ChoiceError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise ChoiceError(f"{path} is no choice of `report --choose`: {error}") from None

    def by_id(self) -> Mapping[Id, Answering]:
        """The method by category id, as releases have these: text, or the integer that it writes."""
        ids: dict[Id, Answering] = dict(self.categories.items())
        return ids | {int(each): ids[each] for each in self.categories if _is_int(each)}


def _is_int(text: str) -> bool:
    return text.isascii() and text.isdigit() and str(int(text[:19])) == text
