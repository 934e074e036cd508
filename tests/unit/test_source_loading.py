"""Sources of installed distributions: how they are found, what they are given, and what is said of bad ones."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from consumer_service.settings import ConsumerProcessSettings
from consumer_service.sources import INTERFACE_VERSION, MessageSource, SourceFailed
from consumer_service.sources.loading import ENTRY_POINT_GROUP, find_source
from libaggregator.commands import print_settings
from libaggregator.settings import SettingsError, load

Install = Callable[[str, str], None]

GOOD = """
    from dataclasses import dataclass
    from consumer_service.sources import Secret, SettingsError, setting

    @dataclass(frozen=True)
    class Own:
        name: str = setting("", "a name")
        number: int = setting(5, "a number", 1, 10)
        password: Secret = setting(Secret(""), "a password")

    class Good:
        interface_version = 1
        exhausted = True

        def __init__(self, settings):
            self.settings = settings
            self.own = settings.read(Own)

        def nothing(self, *arguments):
            return ()

        poll = keep_alive = commit = send_dead_letters = progress = problem = close = nothing
    """


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what installs a distribution with one source `pigeons`, from the text of its module and its object."""

    def write(module: str, names: str) -> None:
        (tmp_path / "pigeon_post.py").write_text(dedent(module))
        metadata = tmp_path / "pigeon_post-1.5.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon-post\nVersion: 1.5\n")
        (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\npigeons = pigeon_post:{names}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(__import__("sys").modules, "pigeon_post", raising=False)

    return write


def made(environment: dict[str, str] | None = None) -> MessageSource:
    settings = load(ConsumerProcessSettings, None, environment or {}).settings
    return find_source("pigeons")(settings)


def plugin_of(source: MessageSource) -> Any:
    """Return what the distribution made."""
    return source._source  # type: ignore[attr-defined]


def problems(environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        made(environment)
    return raised.value.problems


class TestFinding:
    def test_a_source_that_is_installed_is_found_and_named_beside_the_others(self, install: Install) -> None:
        install(GOOD, "Good")

        assert type(plugin_of(made())).__name__ == "Good"
        with pytest.raises(SettingsError, match="no source named 'owls'; installed: file, kafka, pigeons, redis"):
            find_source("owls")

    def test_what_it_returns_is_checked_under_its_name(self, install: Install) -> None:
        install(GOOD.replace("return ()", "return None"), "Good")

        with pytest.raises(SourceFailed, match=r"^source 'pigeons' of pigeon-post 1\.5: poll returned None"):
            made().poll(0, 1)

    def test_a_source_that_is_built_in_is_not_replaced(self, install: Install, tmp_path: Path) -> None:
        install(GOOD, "Good")
        entries = tmp_path / "pigeon_post-1.5.dist-info" / "entry_points.txt"
        entries.write_text(entries.read_text().replace("pigeons", "file"))

        assert find_source("file").__module__ == "consumer_service.sources.file"

    @pytest.mark.parametrize(
        ("module", "expected"),
        [
            (
                "import nowhere_at_all",
                "can't be loaded: ModuleNotFoundError: No module named 'nowhere_at_all'",
            ),
            ("1 / 0", "can't be loaded: ZeroDivisionError: division by zero"),
            ("if", "can't be loaded: SyntaxError: invalid syntax (pigeon_post.py, line 1)"),
            ("", "can't be loaded: AttributeError: module 'pigeon_post' has no attribute 'Good'"),
            ("class Good: pass", f"is for no version of the interface, expected {INTERFACE_VERSION}"),
            (
                "class Good:\n    interface_version = 2",
                f"is for version 2 of the interface, expected {INTERFACE_VERSION}",
            ),
            (
                "class Good:\n    interface_version = 1\n    def __init__(self, settings): raise OSError('no\\nwings')",
                "can't be made: OSError: no wings",
            ),
            ("import sys\nsys.exit('no\\nwings')", "can't be loaded: SystemExit: no wings"),
            (
                "class Good:\n    interface_version = 1\n    def __init__(self, settings): raise SystemExit(3)",
                "can't be made: SystemExit: 3",
            ),
            (GOOD.replace("keep_alive = commit = ", ""), "lacks the methods keep_alive, commit"),
            (GOOD + "\n        close = True", "lacks the methods close"),
            (GOOD.replace("exhausted", "x"), "lacks exhausted, which is no method"),
            (GOOD + "\n        exhausted = nothing", "lacks exhausted, which is no method"),
        ],
    )
    def test_one_that_can_not_be_used_is_named_in_one_line(self, install: Install, module: str, expected: str) -> None:
        install(module, "Good")

        assert problems() == [f"consumer.source: 'pigeons' of pigeon-post 1.5 {expected}"]


class TestSettings:
    def test_are_the_section_plugin_in_the_types_of_its_fields(self, install: Install) -> None:
        install(GOOD, "Good")
        environment = {"AGGREGATOR_PLUGIN__NUMBER": "7", "AGGREGATOR_PLUGIN__PASSWORD": "s3cr3t"}

        source = plugin_of(made({**environment, "AGGREGATOR_CONSUMER__MAX_MESSAGE_BYTES": "99"}))

        own = source.own
        assert (own.name, own.number, own.password.reveal()) == ("", 7, "s3cr3t")
        assert source.settings.max_message_bytes == 99

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("NUMBER", "eleven", "plugin.number: expected an integer from 1 to 10, got 'eleven'"),
            ("NUMBR", "7", "plugin.numbr: unknown setting"),
            ("A__B", "7", "plugin.a.b: unknown setting"),
        ],
    )
    def test_that_can_not_be_used_are_named(self, install: Install, name: str, value: str, expected: str) -> None:
        install(GOOD, "Good")

        assert problems({f"AGGREGATOR_PLUGIN__{name}": value}) == [expected]

    def test_of_a_plugin_are_shown_nowhere_but_by_name(
        self, install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(GOOD, "Good")
        toml, secrets = tmp_path / "settings.toml", tmp_path / "secrets"
        toml.write_text('[plugin]\nname = "s3cr3t"\nnumber = 7\n')
        secrets.mkdir()
        (secrets / "plugin.password").write_text("s3cr3t\n")
        environment = {"AGGREGATOR_SECRETS_DIR": str(secrets)}

        loaded = load(ConsumerProcessSettings, toml, environment)
        print_settings(ConsumerProcessSettings, loaded)

        shown = capsys.readouterr().out
        source = plugin_of(find_source("pigeons")(loaded.settings))
        assert source.own.password.reveal() == "s3cr3t"
        everything = shown + repr(loaded) + repr(source.settings) + repr(source.own.password)
        assert "s3cr3t" not in everything
        lines = [line.split("  # ") for line in shown.partition("[plugin]\n")[2].splitlines()]
        assert [(line.strip(), origin) for line, origin in lines] == [
            ("name = '***'", str(toml)),
            ("number = '***'", str(toml)),
            ("password = '***'", str(secrets / "plugin.password")),
        ]

    def test_a_section_that_is_no_table_is_refused(self, tmp_path: Path) -> None:
        toml = tmp_path / "settings.toml"
        toml.write_text("plugin = 3\n")

        with pytest.raises(SettingsError, match="plugin: unknown setting"):
            load(ConsumerProcessSettings, toml, {})
