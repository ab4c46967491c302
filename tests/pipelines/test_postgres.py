"""`make serve` with its state in a PostgreSQL database."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.serving import Toy, free_port, serving

pytestmark = pytest.mark.slow


def program(name: str) -> str | None:
    """Returns the path of a program of PostgreSQL, which Debian does not put into PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture
def database() -> Iterator[str]:
    """The address of an empty database in a new cluster."""
    initdb, server = program("initdb"), program("pg_ctl")
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL here (Debian: apt install postgresql)")
    with tempfile.TemporaryDirectory(prefix="fra-postgres-") as name:
        folder, port = Path(name), free_port()
        user: dict[str, Any] = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses to be
            nobody = pwd.getpwnam("nobody")
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)

        def do(*command: str | Path) -> None:
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, **user)

        cluster = folder / "cluster"
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        do(initdb, "-D", cluster, "-U", "fra", "-A", "trust", "-E", "UTF8")
        do(server, "-D", cluster, "-w", "-l", folder / "log", "-o", options, "start")
        try:
            yield f"postgresql+asyncpg://fra@127.0.0.1:{port}/postgres"
        finally:
            do(server, "-D", cluster, "-m", "immediate", "stop")


def test_run_with_postgresql(toy: Toy, database: str) -> None:
    with serving(toy, FRA_DATABASE_URL=database) as served:
        run = served.launch("run/nightly", targets=["pretrain"])
        assert served.ended(run)["state_name"] == "Completed"
        assert not (toy.folder / ".prefect/prefect.db").exists()
