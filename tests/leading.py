"""A lead without a lease, for one process alone."""

from server.batching.parts import Lead


def leading(leads: bool = True) -> Lead:
    """This process leads, or nobody does."""

    async def no_fence(connection: object) -> int:
        return 1

    return Lead(lambda: leads, lambda: "test" if leads else None, no_fence)
