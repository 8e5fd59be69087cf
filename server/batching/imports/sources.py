"""What a job reads from: the members of an account at the provider, or a file that was sent to this server.

A file belongs to the host that took it in: `folder` is DATA_DIR/imports there, and a job names a file in it, never a path.
"""

from __future__ import annotations

from pathlib import Path

from server.batching.imports.files import FileMembers
from server.batching.imports.plan import Job
from server.batching.imports.provider import CredentialId, Provider
from server.batching.imports.vault import Vault
from server.core.member import AuthFailed, Source, Unusable
from server.errors import Refused
from server.protocol.intake import format_of


class Sources:
    """Opens the source of a job; raises Unusable or Retryable as a page would."""

    def __init__(self, provider: Provider, vault: Vault, folder: Path) -> None:
        self._provider = provider
        self._vault = vault
        self._folder = folder

    async def __call__(self, job: Job) -> Source:
        """The source, as the job's lanes use it."""
        if job.source == "file":
            return self._file(job.file or "")
        if job.credential_id is None or job.account is None:
            raise AuthFailed("the job names no credential: add one for its account, and ask for the import anew")
        credential = CredentialId(job.credential_id)
        return self._provider.source(credential, job.account, await self._vault.key(credential))

    def _file(self, name: str) -> Source:
        fmt = format_of(name)
        if fmt is None or Path(name).name != name:
            raise Unusable(f"{name[:80]!r} is not the name of a file of members (NAME.csv or NAME.ndjson)")
        try:
            return FileMembers(self._folder / name, fmt)
        except Refused as refused:
            raise Unusable(refused.message) from None
