"""How settings are read, which source wins, and what is said of those that can't be used."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_service.settings import ApiProcessSettings
from consumer_service.settings import ConsumerProcessSettings
from libaggregator.commands import print_settings
from libaggregator.settings import (
    SECTIONS,
    DatabaseSettings,
    LoggingSettings,
    Secret,
    SettingsError,
    load,
    mask_password,
    options_of,
    setting,
    shown,
)

PASSWORD = "s3cr3t"


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """One setting of each type, in a section of a known name."""

    text: str = setting("default", "a text")
    number: int = setting(5, "an integer", 1, 10)
    fraction: float = setting(0.5, "a number", 0)
    free: float = setting(0.0, "a number of any size")
    flag: bool = setting(False, "true or false")
    names: tuple[str, ...] = setting(("a", "b"), "texts")
    choice: Literal["one", "two"] = setting("one", "one of two")
    password: Secret = setting(Secret(""), "a secret")


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    consumer: Section
    database: DatabaseSettings
    logging: LoggingSettings


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    return folder


def problems(config_file: Path | None, environment: Mapping[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        load(Process, config_file, environment)
    return raised.value.problems


def from_environment(**variables: str) -> Section:
    names = {f"AGGREGATOR_CONSUMER__{name.upper()}": value for name, value in variables.items()}
    return load(Process, None, names).settings.consumer


class TestPrecedence:
    def test_defaults_hold_where_nothing_is_set(self) -> None:
        loaded = load(Process, None, {})
        assert loaded.settings.consumer == Section()
        assert set(loaded.origins.values()) == {"default"}
        assert loaded.origins.keys() == options_of(Process).keys()

    def test_file_then_secret_files_then_environment_win_over_what_is_before(self, toml: Path, secrets: Path) -> None:
        toml.write_text('[consumer]\ntext = "file"\nnumber = 2\nfraction = 3.0\n')
        (secrets / "consumer.number").write_text("3")
        (secrets / "consumer.fraction").write_text("4")
        environment = {
            "AGGREGATOR_SECRETS_DIR": str(secrets),
            "AGGREGATOR_CONSUMER__FRACTION": "5",
        }
        loaded = load(Process, toml, environment)
        consumer = loaded.settings.consumer
        assert (consumer.text, consumer.number, consumer.fraction, consumer.flag) == ("file", 3, 5.0, False)
        assert loaded.origins["consumer.text"] == str(toml)
        assert loaded.origins["consumer.number"] == str(secrets / "consumer.number")
        assert loaded.origins["consumer.fraction"] == "environment AGGREGATOR_CONSUMER__FRACTION"
        assert loaded.origins["consumer.flag"] == "default"

    def test_a_bad_value_is_an_error_also_where_another_source_wins(self, toml: Path) -> None:
        toml.write_text("[consumer]\nnumber = 99\n")
        assert len(problems(toml, {"AGGREGATOR_CONSUMER__NUMBER": "5"})) == 1

    def test_the_file_is_named_by_the_environment_or_by_the_command_line_which_wins(
        self, toml: Path, tmp_path: Path
    ) -> None:
        toml.write_text('[consumer]\ntext = "from the environment"\n')
        other = tmp_path / "other.toml"
        other.write_text('[consumer]\ntext = "from the command line"\n')
        environment = {"AGGREGATOR_CONFIG": str(toml)}
        assert load(Process, None, environment).settings.consumer.text == "from the environment"
        assert load(Process, other, environment).settings.consumer.text == "from the command line"

    def test_an_empty_variable_names_no_file_and_no_folder(self) -> None:
        load(Process, None, {"AGGREGATOR_CONFIG": "", "AGGREGATOR_SECRETS_DIR": ""})

    def test_variables_of_others_are_not_read(self) -> None:
        environment = {
            "AGGREGATOR_SERVICE_HOST": "10.0.0.1",
            "AGGREGATOR_PORT": "tcp://10.0.0.1:80",
            "CONSUMER__TEXT": "x",
            "consumer.text": "x",
            "OTHER_AGGREGATOR_CONSUMER__TEXT": "x",
        }
        assert load(Process, None, environment).settings.consumer == Section()

    def test_settings_are_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            load(Process, None, {}).settings.consumer.text = "x"  # type: ignore[misc]


class TestTypes:
    def test_values_of_a_file_have_their_types(self, toml: Path) -> None:
        toml.write_text(
            '[consumer]\ntext = ""\nnumber = 10\nfraction = 1\nflag = true\nnames = ["x", "y,z"]\nchoice = "two"\n'
            'password = "p"\n'
        )
        expected = Section("", 10, 1.0, flag=True, names=("x", "y,z"), choice="two", password=Secret("p"))
        found = load(Process, toml, {}).settings.consumer
        assert found == expected
        assert type(found.fraction) is float

    def test_values_of_the_environment_are_converted(self) -> None:
        found = from_environment(
            text="5", number="10", fraction="1e-3", flag="true", names="x,y", choice="two", password="123"
        )
        assert found == Section("5", 10, 0.001, flag=True, names=("x", "y"), choice="two", password=Secret("123"))

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("one", ("one",)),
            ("one,two", ("one", "two")),
            (" one , two ", ("one", "two")),
            ("one,,two,", ("one", "two")),
            ("one two", ("one two",)),
            ("", ()),
            (" , ", ()),
        ],
    )
    def test_lists_of_the_environment_are_separated_by_commas(self, text: str, names: tuple[str, ...]) -> None:
        assert from_environment(names=text).names == names

    @pytest.mark.parametrize(("text", "flag"), [("true", True), ("false", False), ("1", True), ("0", False)])
    def test_true_and_false_in_the_environment(self, text: str, flag: bool) -> None:
        assert from_environment(flag=text).flag is flag

    @pytest.mark.parametrize("number", [1, 10])
    def test_both_ends_of_a_range_belong_to_it(self, number: int) -> None:
        assert from_environment(number=str(number)).number == number

    def test_real_settings_of_both_processes_can_be_loaded_from_their_own_defaults(self, toml: Path) -> None:
        """Whatever `config` prints of the defaults is accepted again."""
        for settings_class in (ConsumerProcessSettings, ApiProcessSettings):
            sections: dict[str, list[str]] = {}
            for name, option in options_of(settings_class).items():
                section, _, key = name.partition(".")
                default = option.default
                value = default.reveal() if isinstance(default, Secret) else default
                sections.setdefault(section, []).append(f"{key} = {json.dumps(value)}")
            toml.write_text("\n".join(f"[{name}]\n" + "\n".join(lines) for name, lines in sections.items()))
            assert load(settings_class, toml, {}).settings == load(settings_class, None, {}).settings


class TestBadValues:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("number = 0", "consumer.number: expected an integer from 1 to 10, got 0"),
            ("number = 11", "consumer.number: expected an integer from 1 to 10, got 11"),
            ("number = 1.5", "consumer.number: expected an integer from 1 to 10, got 1.5"),
            ("number = true", "consumer.number: expected an integer from 1 to 10, got True"),
            ('number = "many"', "consumer.number: expected an integer from 1 to 10, got 'many'"),
            ("fraction = -0.1", "consumer.fraction: expected a number, at least 0, got -0.1"),
            ("fraction = nan", "consumer.fraction: expected a number, at least 0, got nan"),
            ("fraction = -inf", "consumer.fraction: expected a number, at least 0, got -inf"),
            ("text = 5", "consumer.text: expected a text, got 5"),
            ("text = []", "consumer.text: expected a text, got []"),
            ('flag = "yes"', "consumer.flag: expected true or false, got 'yes'"),
            ("flag = 2", "consumer.flag: expected true or false, got 2"),
            ("names = 5", "consumer.names: expected a list of texts, got 5"),
            ("names = [5]", "consumer.names: expected a list of texts, got [5]"),
            ('choice = "three"', "consumer.choice: expected one of 'one', 'two', got 'three'"),
            ('choice = "ONE"', "consumer.choice: expected one of 'one', 'two', got 'ONE'"),
            ("password = 5", "consumer.password: expected a text, got a value of another type"),
        ],
    )
    def test_each_is_one_line_with_setting_and_value_and_origin(self, toml: Path, line: str, expected: str) -> None:
        toml.write_text(f"[consumer]\n{line}\n")
        assert problems(toml, {}) == [f"{expected} ({toml})"]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("number", "0"),
            ("number", "11"),
            ("number", "5.5"),
            ("number", ""),
            ("number", "five"),
            ("number", "99999999999999999999999"),
            ("fraction", "nan"),
            ("fraction", "-1e-9"),
            ("fraction", "1,5"),
            ("flag", "maybe"),
            ("flag", ""),
            ("choice", ""),
            ("choice", "one,two"),
        ],
    )
    def test_those_of_the_environment_name_the_variable(self, name: str, text: str) -> None:
        variable = f"AGGREGATOR_CONSUMER__{name.upper()}"
        (problem,) = problems(None, {variable: text})
        assert problem.startswith(f"consumer.{name}: expected ")
        assert problem.endswith(f" (environment {variable})")

    @pytest.mark.parametrize("text", ["inf", "-inf", "1e308"])
    @pytest.mark.parametrize(
        ("settings_class", "name"),
        [
            (settings_class, name)
            for settings_class in (ConsumerProcessSettings, ApiProcessSettings)
            for name, option in options_of(settings_class).items()
            if option.type is float
        ],
    )
    def test_no_number_of_seconds_is_accepted_that_can_not_be_waited(
        self, settings_class: type, name: str, text: str
    ) -> None:
        """Far beyond what `timedelta` and waiting take: the process would end in the middle with an OverflowError."""
        option = options_of(settings_class)[name]
        with pytest.raises(SettingsError, match=name):
            load(settings_class, None, {option.variable: text})

    def test_all_of_them_are_told_at_once(self, toml: Path, secrets: Path) -> None:
        toml.write_text('[consumer]\nnumber = 0\nunknown = 1\n[other]\nx = 1\n[logging]\nlevel = "loud"\n')
        (secrets / "consumer.flag").write_text("maybe\n")
        environment = {"AGGREGATOR_SECRETS_DIR": str(secrets), "AGGREGATOR_CONSUMER__CHOICE": "none"}
        found = problems(toml, environment)
        assert [line.split(":")[0] for line in found] == [
            "consumer.number",
            "consumer.unknown",
            "other.x",
            "logging.level",
            "consumer.flag",
            "consumer.choice",
        ]

    def test_the_text_of_the_error_has_all_problems(self) -> None:
        assert str(SettingsError(["one", "two"])) == "one; two"


class TestUnknownNames:
    def test_a_variable_with_one_underscore_too_few_is_named_with_the_right_one(self) -> None:
        with pytest.raises(SettingsError) as raised:
            load(ConsumerProcessSettings, None, {"AGGREGATOR_DATABASE_URL": "postgresql://u:s3cr3t@h/d"})
        assert raised.value.problems == ["AGGREGATOR_DATABASE_URL: unknown variable, expected AGGREGATOR_DATABASE__URL"]

    def test_what_an_orchestrator_says_of_a_service_is_no_misspelt_setting(self) -> None:
        service = {"AGGREGATOR_API_PORT": "tcp://10.0.0.1:8080", "AGGREGATOR_API_SERVICE_HOST": "10.0.0.1"}
        assert load(ApiProcessSettings, None, service).settings.api.port == 8080

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            ("[consumer]\nnumbr = 1\n", "consumer.numbr"),
            ("[consumer]\nNumber = 1\n", "consumer.Number"),
            ("[consumr]\nnumber = 1\n", "consumr.number"),
            ("number = 1\n", "number"),
            ("consumer = 1\n", "consumer"),
            ("[consumer.deeper]\nnumber = 1\n", "consumer.deeper"),
            ("[[consumer]]\nnumber = 1\n", "consumer"),
        ],
    )
    def test_of_a_file_are_errors_that_name_them(self, toml: Path, content: str, named: str) -> None:
        toml.write_text(content)
        assert problems(toml, {}) == [f"{named}: unknown setting ({toml})"]

    @pytest.mark.parametrize(
        ("variable", "named"),
        [
            ("AGGREGATOR_CONSUMER__NUMBR", "consumer.numbr"),
            ("AGGREGATOR_CONSUMR__NUMBER", "consumr.number"),
            ("AGGREGATOR_CONSUMER__NUMBER__X", "consumer.number.x"),
            ("AGGREGATOR_CONSUMER__", "consumer."),
        ],
    )
    def test_of_the_environment_are_errors_that_name_them(self, variable: str, named: str) -> None:
        assert problems(None, {variable: "1"}) == [f"{named}: unknown setting (environment {variable})"]

    def test_of_secret_files_are_errors_in_a_known_section_and_passed_over_elsewhere(self, secrets: Path) -> None:
        (secrets / "consumer.passwrd").write_text(PASSWORD)
        (secrets / "tls.crt").write_text("of somebody else")
        (secrets / "README").write_text("of somebody else")
        (secrets / "..data").mkdir()
        found = problems(None, {"AGGREGATOR_SECRETS_DIR": str(secrets)})
        assert found == [f"consumer.passwrd: unknown setting ({secrets / 'consumer.passwrd'})"]

    def test_a_secret_that_is_no_file_that_can_be_read_is_named(self, secrets: Path) -> None:
        (secrets / "consumer.passwrd").symlink_to(secrets / "nowhere")
        environment = {"AGGREGATOR_SECRETS_DIR": str(secrets)}
        name = secrets / "consumer.passwrd"
        assert problems(None, environment) == [f"{name}: No such file or directory (from AGGREGATOR_SECRETS_DIR)"]
        name.unlink()
        # what Docker makes of a file that is not there
        name.mkdir()
        assert problems(None, environment) == [f"{name}: Is a directory (from AGGREGATOR_SECRETS_DIR)"]

    def test_two_files_for_one_secret_are_refused(self, secrets: Path) -> None:
        (secrets / "consumer.password").write_text("one")
        (secrets / "consumer__password").write_text("other")
        assert problems(None, {"AGGREGATOR_SECRETS_DIR": str(secrets)}) == [
            f"{secrets / 'consumer__password'}: {secrets / 'consumer.password'} is the same setting"
            " (from AGGREGATOR_SECRETS_DIR)"
        ]

    def test_a_section_of_the_other_process_is_passed_over_unread(self, toml: Path, secrets: Path) -> None:
        toml.write_text(
            '[api]\nport = "not a port"\nno_such_thing = 1\n[kafka]\ntopic = 5\n[file.deeper]\nx = 1\n'
            "[consumer]\nnumber = 7\n"
        )
        (secrets / "kafka.sasl_password").write_text(PASSWORD)
        environment = {
            "AGGREGATOR_SECRETS_DIR": str(secrets),
            "AGGREGATOR_API__NO_SUCH_THING": "1",
            "AGGREGATOR_KAFKA__SESSION_TIMEOUT": "soon",
        }
        assert load(Process, toml, environment).settings.consumer.number == 7

    def test_one_file_serves_both_processes(self, toml: Path) -> None:
        toml.write_text(
            '[api]\nport = 1\n[kafka]\ntopic = "t"\n[consumer]\nmax_batch = 7\n[logging]\nlevel = "debug"\n'
        )
        consumer = load(ConsumerProcessSettings, toml, {}).settings
        assert (consumer.consumer.max_batch, consumer.kafka.topic, consumer.logging.level) == (7, "t", "debug")
        api = load(ApiProcessSettings, toml, {}).settings
        assert (api.api.port, api.logging.level) == (1, "debug")

    def test_every_section_belongs_to_one_of_the_processes(self) -> None:
        found = {
            field.name for owner in (ConsumerProcessSettings, ApiProcessSettings) for field in dataclasses.fields(owner)
        }
        assert found == SECTIONS


class TestFiles:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        missing = tmp_path / "missing.toml"
        assert problems(missing, {}) == [f"{missing}: No such file or directory"]

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        assert problems(tmp_path, {}) == [f"{tmp_path}: Is a directory"]

    @pytest.mark.parametrize(
        "content", [b"[consumer\nnumber = 1\n", b"number: 1\n", b"\xff\xfe", b"[consumer]\nnumber = 1\nnumber = 2\n"]
    )
    def test_what_is_not_toml_is_named_in_one_line(self, toml: Path, content: bytes) -> None:
        toml.write_bytes(content)
        (problem,) = problems(toml, {})
        assert problem.startswith(f"{toml}: not TOML: ")
        assert "\n" not in problem

    def test_an_empty_file_sets_nothing(self, toml: Path) -> None:
        toml.write_text("")
        assert load(Process, toml, {}).settings.consumer == Section()

    @pytest.mark.parametrize("name", ["consumer.password", "consumer__password", "AGGREGATOR_CONSUMER__PASSWORD"])
    def test_secret_files_may_be_named_like_the_setting_or_like_its_variable(self, secrets: Path, name: str) -> None:
        (secrets / name).write_text(PASSWORD)
        loaded = load(Process, None, {"AGGREGATOR_SECRETS_DIR": str(secrets)})
        assert loaded.settings.consumer.password.reveal() == PASSWORD

    @pytest.mark.parametrize(
        ("content", "expected"),
        [("p\n", "p"), ("p\r\n", "p"), ("p", "p"), (" p ", " p "), ("", ""), ("p\nq\n", "p\nq")],
    )
    def test_the_end_of_the_line_does_not_belong_to_a_secret(self, secrets: Path, content: str, expected: str) -> None:
        (secrets / "consumer.password").write_bytes(content.encode())
        loaded = load(Process, None, {"AGGREGATOR_SECRETS_DIR": str(secrets)})
        assert loaded.settings.consumer.password.reveal() == expected

    def test_a_missing_folder_of_secrets_is_named(self, tmp_path: Path) -> None:
        missing = tmp_path / "missing"
        found = problems(None, {"AGGREGATOR_SECRETS_DIR": str(missing)})
        assert found == [f"{missing}: No such file or directory (from AGGREGATOR_SECRETS_DIR)"]

    def test_a_secret_that_is_not_utf_8_is_named(self, secrets: Path) -> None:
        (secrets / "consumer.password").write_bytes(b"\xff")
        found = problems(None, {"AGGREGATOR_SECRETS_DIR": str(secrets)})
        assert found == [f"{secrets / 'consumer.password'}: not UTF-8 (from AGGREGATOR_SECRETS_DIR)"]


class TestSecrets:
    def test_neither_text_nor_repr_of_anything_shows_one(self, toml: Path) -> None:
        toml.write_text(f'[consumer]\npassword = "{PASSWORD}"\n[database]\nurl = "postgresql://u:{PASSWORD}@h/d"\n')
        loaded = load(Process, toml, {})
        for thing in (loaded, loaded.settings, loaded.settings.consumer, loaded.settings.database.url):
            assert PASSWORD not in repr(thing)
            assert PASSWORD not in str(thing)
            assert PASSWORD not in f"{thing}"
        assert PASSWORD not in json.dumps(dataclasses.asdict(loaded.settings), default=str)
        assert loaded.settings.consumer.password.reveal() == PASSWORD

    def test_an_empty_one_is_told_from_one_that_is_set(self) -> None:
        assert repr(Secret("")) == "''"
        assert repr(Secret("x")) == "'***'"

    def test_secrets_are_equal_if_their_texts_are(self) -> None:
        assert Secret("a") == Secret("a")
        assert hash(Secret("a")) == hash(Secret("a"))
        assert Secret("a") != Secret("b")
        assert Secret("a") != "a"

    @pytest.mark.parametrize(
        "content",
        [
            f'[consumer]\npassword = ["{PASSWORD}"]\n',
            f'[consumer]\npassword = {{ x = "{PASSWORD}" }}\n',
            f'[consumer]\npasswrd = "{PASSWORD}"\n',
            f'[consumer.password]\n{PASSWORD} = "{PASSWORD}"\n',
            f'[databse]\nurl = "postgresql://u:{PASSWORD}@h/d"\n',
            f'database = "postgresql://u:{PASSWORD}@h/d"\n',
            f'[database]\nurl = ["postgresql://u:{PASSWORD}@h/d"]\n',
        ],
    )
    def test_no_error_shows_one_that_is_in_the_wrong_place(self, toml: Path, content: str) -> None:
        toml.write_text(content)
        assert PASSWORD not in "".join(problems(toml, {}))

    def test_no_error_shows_one_of_a_misspelt_variable(self) -> None:
        found = problems(None, {"AGGREGATOR_DATABASE__ULR": f"postgresql://u:{PASSWORD}@h/d"})
        assert found == ["database.ulr: unknown setting (environment AGGREGATOR_DATABASE__ULR)"]

    def test_the_command_config_masks_them_and_names_where_each_came_from(
        self, toml: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        toml.write_text(
            f'[kafka]\nsasl_password = "{PASSWORD}"\ntopic = "t"\n[database]\nurl = "postgresql://u:{PASSWORD}@h/d"\n'
        )
        variable = "AGGREGATOR_KAFKA__GROUP"
        print_settings(ConsumerProcessSettings, load(ConsumerProcessSettings, toml, {variable: "g"}))
        printed = capsys.readouterr().out
        # of keys that several sections have, the line of the first one
        lines = {line.split(" = ")[0]: line for line in reversed(printed.splitlines()) if " = " in line}
        assert PASSWORD not in printed
        assert lines["url"].startswith('url = "postgresql://u:***@h/d" ')
        assert lines["sasl_password"].startswith("sasl_password = '***' ")
        assert lines["topic"].split() == ["topic", "=", '"t"', "#", str(toml)]
        assert lines["group"].endswith(f"# environment {variable}")
        assert lines["group_instance_id"].endswith("# default")

    def test_what_config_prints_is_toml(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_settings(ConsumerProcessSettings, load(ConsumerProcessSettings, None, {}))
        printed = tomllib.loads(capsys.readouterr().out)
        names = {f"{section}.{key}" for section, content in printed.items() for key in content}
        assert names == set(options_of(ConsumerProcessSettings))
        assert printed["kafka"]["bootstrap_servers"] == ["localhost:9092"]
        assert printed["consumer"]["enable_org_allowlist"] is False

    @pytest.mark.parametrize(
        ("url", "masked"),
        [
            ("postgresql://u:p@h/d", "postgresql://u:***@h/d"),
            ("postgresql://u:p@h:5432/d?sslmode=require", "postgresql://u:***@h:5432/d?sslmode=require"),
            ("postgresql://u:p/@:w@h/d", "postgresql://u:***@h/d"),
            ("postgresql://:p@h/d", "postgresql://:***@h/d"),
            ("postgresql://u@h/d?password=p&sslmode=require", "postgresql://u@h/d?password=***&sslmode=require"),
            ("postgresql://h/d?sslkey=k&sslpassword=p", "postgresql://h/d?sslkey=k&sslpassword=***"),
            ("postgresql://h/d?PASSWORD=p", "postgresql://h/d?PASSWORD=***"),
            ("postgresql://h/d?pass%77ord=p", "postgresql://h/d?pass%77ord=***"),
            ("postgresql://h/d?password=p&q&=r", "postgresql://h/d?password=***&***&=***"),
            ("postgresql://h/d?", "postgresql://h/d?"),
            ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
            ("postgresql://h:5432/d", "postgresql://h:5432/d"),
            ("sqlite:///file.db", "sqlite:///file.db"),
            ("", ""),
        ],
    )
    def test_of_a_url_only_the_password_is_masked(self, url: str, masked: str) -> None:
        assert mask_password(url) == masked

    @pytest.mark.parametrize("name", ["pasword", "passwd", "pw", "PASSWORD", "sslpassword", "scram_client_key", "p%77"])
    def test_an_option_that_is_not_known_to_be_harmless_is_masked(self, name: str) -> None:
        url = f"postgresql://user@host/name?sslmode=require&{name}={PASSWORD}&port=1"
        assert mask_password(url) == f"postgresql://user@host/name?sslmode=require&{name}=***&port=1"

    @pytest.mark.parametrize(
        "address",
        [
            f"u:{PASSWORD}",
            f"u:pw/{PASSWORD}",
            f"u@h1,u:{PASSWORD}@h2/db",
            f"u:p@{PASSWORD}/xyz@h:1/db",
            f"u:12/{PASSWORD}@h/db",
        ],
    )
    def test_a_password_that_was_not_encoded_is_masked_wherever_it_is_taken_to_be(self, address: str) -> None:
        assert PASSWORD not in mask_password(f"postgresql://{address}")

    @given(st.text(st.characters(codec="utf-8"), max_size=10))
    def test_a_password_is_masked_whatever_is_in_it(self, noise: str) -> None:
        password = f"{PASSWORD}{noise}{PASSWORD}"
        assert PASSWORD not in mask_password(f"postgresql://user:{password}@host/name")

    def test_a_url_that_is_not_of_a_known_form_is_masked_in_config_too(self) -> None:
        option = options_of(ConsumerProcessSettings)["database.url"]
        for url in (f"u:{PASSWORD}@h/d", f"postgresql:/u:{PASSWORD}@h/d", f"postgresql//u:{PASSWORD}@h/d"):
            assert PASSWORD not in shown(option, Secret(url))


class TestOptions:
    def test_every_option_has_its_variable(self) -> None:
        options: dict[str, Any] = options_of(Process)
        assert options["consumer.number"].variable == "AGGREGATOR_CONSUMER__NUMBER"
        assert options["database.read_url"].variable == "AGGREGATOR_DATABASE__READ_URL"

    @pytest.mark.parametrize("settings_class", [ConsumerProcessSettings, ApiProcessSettings])
    def test_every_setting_has_a_description_and_a_default_in_its_own_range(self, settings_class: type) -> None:
        for name, option in options_of(settings_class).items():
            assert option.description, name
            given_default = list(option.default) if isinstance(option.default, tuple) else option.default
            if not option.is_secret:
                assert option.convert(given_default) == option.default
