"""The pages tell of every command, setting and metric, and what they show works."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_service.cli import main as api
from api_service.metrics import METRICS as API_METRICS
from api_service.settings import ApiProcessSettings
from consumer_service.cli import main as consumer
from consumer_service.metrics import METRICS as CONSUMER_METRICS
from consumer_service.settings import ConsumerProcessSettings
from libaggregator.settings import load, options_of

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("libaggregator", "consumer_service", "api_service")
FILES = ("crt", "db", "env", "json", "md", "py", "toml", "txt", "yaml")
"""How names end that look like settings and are files."""

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])


def _page(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("settings", [ConsumerProcessSettings, ApiProcessSettings])
def test_every_setting_is_documented(settings: type) -> None:
    page = _page("docs/settings.md")
    assert [name for name in options_of(settings) if f"`{name}`" not in page] == []


def test_every_metric_is_documented() -> None:
    page = _page("docs/metrics.md")
    assert [metric.name for metric in (*CONSUMER_METRICS, *API_METRICS) if f"`{metric.name}`" not in page] == []


def test_every_command_is_in_the_readme() -> None:
    commands = {f"aggregator-consumer {name}" for name in consumer.commands}
    commands |= {f"aggregator-api {name}" for name in api.commands}
    assert set(re.findall(r"^\| `(aggregator-[a-z]+ [a-z]+)` \|", _page("README.md"), re.MULTILINE)) == commands


@pytest.mark.parametrize("settings", [ConsumerProcessSettings, ApiProcessSettings])
def test_the_example_of_a_settings_file_can_be_loaded_by_both(settings: type) -> None:
    loaded = load(settings, REPOSITORY / "deploy" / "aggregator.toml", {})
    assert loaded.origins["database.url"].endswith("aggregator.toml")


def test_every_warning_and_error_of_the_log_is_explained() -> None:
    page = _page("docs/troubleshooting.md")
    lines = {line for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py") for line in _warnings(file)}
    assert len(lines) > 10
    assert {line for line in lines if line not in page} == set()


def _warnings(file: Path) -> Iterator[str]:
    """Yield the fixed text of each call that logs a warning or an error."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("log"), attr="warning" | "error" | "exception")):
                event = node.args[0]
                parts = event.values if isinstance(event, ast.JoinedStr) else [event]
                yield from (str(part.value) for part in parts if isinstance(part, ast.Constant))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    unknown = []
    for program, name, options in re.findall(
        r"aggregator-(consumer|api) ([a-z]+)(?![\w-])((?: --[a-z-]+(?: [A-Z]+)?)*)", "\n".join(_code(page))
    ):
        command = {"consumer": consumer, "api": api}[program].commands.get(name)
        known = {option for parameter in command.params for option in parameter.opts} if command else set()
        if not command or not set(re.findall(r"--[a-z-]+", options)) <= {*known, "--help"}:
            unknown.append(f"{program} {name}{options}")
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    settings = options_of(ConsumerProcessSettings) | options_of(ApiProcessSettings)
    sections = "|".join({name.partition(".")[0] for name in settings})
    words = re.findall(rf"(?<![\w./-])(?:{sections})\.[a-z_]+(?![\w./*])", "\n".join(_code(page)))
    assert [word for word in words if word not in settings and word.partition(".")[2] not in FILES] == []


def _code(page: Path) -> list[str]:
    """Return what a page shows as code: lines and spans."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("    ")] + re.findall(r"`([^`\n]+)`", "\n".join(lines))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_a_heading_find_it(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    assert [
        f"{name}#{anchor}" for name, anchor in targets if anchor not in _anchors(page.parent / name if name else page)
    ] == []


def _anchors(page: Path) -> set[str]:
    """Return what the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
