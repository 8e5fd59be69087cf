"""A job's source is the one it names, opened with the key that its credential holds now."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from server.batching.imports.plan import Job
from server.batching.imports.provider import Provider, Terms
from server.batching.imports.sources import Sources
from server.batching.imports.vault import Sealer, Vault
from server.core.identity import Identity
from server.core.member import AuthFailed, Unusable
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from tests.doubles.members import FORBIDDEN, GOOD, Members

ADA = Identity("ada")
KEY = SecretStr("a key of the environment, long enough")


async def test_a_job_of_a_provider_pages_with_its_credentials_present_key(db: Database, tmp_path: Path) -> None:
    vault = Vault(db, Sealer.of(KEY))
    kept = (await vault.add(ADA, "biz_7", "whop", FORBIDDEN)).credential
    async with Members(members=30) as double:
        provider = await Provider.open(Terms(url=double.url), SystemClock())
        try:
            sources = Sources(provider, vault, tmp_path)
            job = Job(1, 1, account="biz_7", credential_id=kept.id)
            with pytest.raises(AuthFailed):
                await (await sources(job)).page(None)
            await vault.rotate(ADA, kept.id, GOOD)
            assert len((await (await sources(job)).page(None)).members) == 7
        finally:
            await provider.close()


async def test_a_job_of_a_file_reads_it_from_the_folder_of_this_host(db: Database, tmp_path: Path) -> None:
    provider = await Provider.open(Terms(), SystemClock())
    (tmp_path / "7.csv").write_text("email\nada@x.y\n")
    (tmp_path / "7.json").write_text("[]")
    sources = Sources(provider, Vault(db, None), tmp_path)
    source = await sources(Job(1, 1, source="file", file="7.csv"))
    assert [member.email for member in (await source.page(None)).members] == ["ada@x.y"]
    for name in ("../7.csv", "/etc/passwd", "7.json", "7", ""):
        with pytest.raises(Unusable):
            await sources(Job(1, 1, source="file", file=name))
    with pytest.raises(AuthFailed, match="no credential"):
        await sources(Job(1, 1))
    await provider.close()
