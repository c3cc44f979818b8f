"""Files without a name that another process of this machine can open."""

import os
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Offered:
    """An open file of this process: where others find it, and how they know that it is this one."""

    place: str
    name: str

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """An offer of an open file. Raises OSError on other systems than Linux."""
        place = f"/proc/{os.getpid()}/fd/{descriptor}"
        return cls(place, os.readlink(place))

    def found(self) -> bool:
        """Whether it is in its place: in another container, another file may be there."""
        try:
            return os.readlink(self.place) == self.name
        except OSError:
            return False
