"""Who is asking: the user, its roles, and until when that holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

Role: TypeAlias = Literal["anonymous", "viewer", "producer", "admin"]
ROLES: Final[tuple[Role, ...]] = ("anonymous", "viewer", "producer", "admin")


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. `user` is the token's sub (None: anonymous); `expires_ms` is UTC epoch ms (None: does not expire)."""

    user: str | None = None
    roles: frozenset[str] = field(default_factory=frozenset)
    expires_ms: int | None = None
    team: str | None = None

    def has(self, role: Role) -> bool:
        """Everyone is anonymous, every token is a viewer's, an admin is everything."""
        if role == "anonymous":
            return True
        if role == "viewer":
            return self.user is not None
        return role in self.roles or "admin" in self.roles

    @property
    def admin(self) -> bool:
        """May this caller do everything?"""
        return "admin" in self.roles


ANONYMOUS: Final = Identity()
