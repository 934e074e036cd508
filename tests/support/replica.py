"""A replica of a PostgreSQL server that follows it by streaming, as the API reads from one."""

import subprocess

from tests.support.postgresql import PostgresqlServer


class PostgresqlReplica(PostgresqlServer):
    """A server of its own with a copy of another one; it can be started and stopped like any other."""

    def __init__(self, primary: PostgresqlServer, options: dict[str, str] | None = None) -> None:
        super().__init__(options)
        self._primary = primary

    def _make_data_folder(self) -> None:
        command = [str(self._programs / "pg_basebackup"), "--pgdata", str(self._data), "--write-recovery-conf"]
        command += ["--host=127.0.0.1", f"--port={self._primary.port}", "--username=postgres"]
        command += ["--checkpoint=fast", "--wal-method=stream", "--no-sync"]
        result = subprocess.run(command, capture_output=True, text=True, check=False, **self._as_user())
        assert result.returncode == 0, f"pg_basebackup failed:\n{result.stdout}{result.stderr}"
