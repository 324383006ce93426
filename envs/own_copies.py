"""Copies of environments: each plays an episode of its own."""

from __future__ import annotations

import copy
from typing import Self


class OwnCopies:
    """Make ``copy.copy`` the same as ``copy.deepcopy``: two objects that share a simulator would play one episode."""

    def __copy__(self) -> Self:
        return copy.deepcopy(self)
