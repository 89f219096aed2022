from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wakeline.errors import ListenRefusedError, SettingsInvalidError
from wakeline.gateway.access import shared_key
from wakeline.gateway.access.origins import check_origins
from wakeline.gateway.settings import Settings, is_loopback, load


def test_the_command_line_wins_then_the_environment_then_the_file(tmp_path: Path) -> None:
    file = tmp_path / "wakeline.toml"
    file.write_text('port = 1\nhost = "::1"\nnamespace = "file"\ncors_origins = ["http://a"]\n')
    environment = {"WAKELINE_PORT": "2", "WAKELINE_NAMESPACE": "environment", "WAKELINE_KEEP_ALIVE": "3.5"}
    settings = load({"port": 3, "host": None}, file=file, environment=environment)
    assert (settings.port, settings.namespace, settings.host) == (3, "environment", "::1")
    assert (settings.keep_alive, settings.cors_origins) == (3.5, ("http://a",))
    assert settings.data == Settings().data


def test_the_environment_can_name_the_file_and_lists_are_split(tmp_path: Path) -> None:
    file = tmp_path / "wakeline.toml"
    file.write_text("port = 1")
    environment = {
        "WAKELINE_CONFIG": str(file),
        "WAKELINE_CORS_ORIGINS": "http://a, http://b",
        "WAKELINE_NO_AUTH": "true",
    }
    settings = load(environment=environment)
    assert (settings.port, settings.cors_origins, settings.no_auth) == (1, ("http://a", "http://b"), True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prot = 1", "prot"),
        ("port = 'x'", "port"),
        ("port = 70000", "port"),
        ("engine = 'postgres'", "engine"),
        ("not toml", "TOML"),
    ],
)
def test_a_bad_file_is_told_with_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "wakeline.toml"
    file.write_text(content)
    with pytest.raises(SettingsInvalidError, match=message):
        load(file=file, environment={})


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (
            '[notify.good]\ntopics = ["x"]\n[notify.bad]\ntopics = ["x"]\nstatuses = ["error"]',
            (
                "notify.bad.statuses[0]",
                "expected one of canceled, completed, failed, terminated, timed_out, unknown",
            ),
        ),
        (
            '[inputs.start.chat]\nsessions = ["*"]\nworkflow_type = "C"\ntask_queue = "q"\nid_reuse = "never"',
            ("inputs.start.chat.id_reuse", "expected one of allow_duplicate, allow_duplicate_failed_only"),
        ),
        (
            '[faces.chat]\nkind = "signal"\nname = "say"\nstart = "chat"',
            ("faces.chat: expected no start with kind = 'signal'",),
        ),
        (
            '[inputs.start.chat]\nsessions = ["*"]\nworkflow_type = "C"',
            ("expected task_queue in inputs.start.chat",),
        ),
        ('durability = "none"', ("expected one of full, process for durability, got 'none'",)),
        ('port = "7777"', ("expected a whole number for port, got '7777'",)),
        ("port = 70000", ("expected port to be at most 65535, got 70000",)),
        ("follow = 1", ("expected a list for follow, got 1",)),
        ("token_secret = 17", ("expected text for token_secret, got a whole number",)),
        ("[notify.a]\ntopics = []", ("expected notify.a.topics to have at least 1 entries",)),
    ],
)
def test_the_rule_and_the_choices_are_named(tmp_path: Path, content: str, parts: tuple[str, ...]) -> None:
    file = tmp_path / "wakeline.toml"
    file.write_text(content)
    with pytest.raises(SettingsInvalidError) as refusal:
        load(file=file, environment={})
    for part in parts:
        assert part in refusal.value.message


def test_a_missing_file_and_a_bad_variable_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalidError, match="nowhere"):
        load(file=tmp_path / "nowhere.toml", environment={})
    with pytest.raises(SettingsInvalidError, match=r"environment.*a whole number for port"):
        load(environment={"WAKELINE_PORT": "many"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "[::1]", "localhost"])
def test_loopback_may_be_listened_on(host: str) -> None:
    assert is_loopback(host)
    Settings(host=host, no_auth=True).check_listen()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example.com", ""])
def test_nothing_else_may(host: str) -> None:
    with pytest.raises(ListenRefusedError, match="loopback"):
        Settings(host=host, no_auth=True).check_listen()
    Settings(host=host, token_secret="x").check_listen()  # with keys it may


def test_it_must_be_said_that_nobody_is_asked() -> None:
    with pytest.raises(ListenRefusedError, match="no_auth"):
        Settings().check_listen()
    keys: Any
    for keys in ({"token_secret": "x"}, {"token_jwks": "https://issuer.example/keys"}):
        Settings(**keys).check_listen()
        with pytest.raises(SettingsInvalidError, match="both"):
            Settings(**keys, no_auth=True).check_listen()


def test_a_secret_is_not_shown() -> None:
    assert "hidden" not in repr(Settings(token_secret="hidden"))
    with pytest.raises(SettingsInvalidError) as refusal:
        load(environment={"WAKELINE_TOKEN_SECRET": "hidden", "WAKELINE_PORT": "many"})
    assert "hidden" not in str(refusal.value)


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "https://app.example",
        "https://app.example:8443",
        "http://[::1]:5173",
        "capacitor://localhost",
    ],
)
def test_an_origin_as_browsers_send_it_is_taken(origin: str) -> None:
    assert check_origins((origin,)) == {origin}


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("http://x/", "Write http://x instead."),
        ("https://app.example/path?q#f", "Write https://app.example instead."),
        ("localhost:3000", "Write http://localhost:3000 instead."),
        ("app.example", "Write https://app.example instead."),
        ("HTTPS://App.Example", "Write https://app.example instead."),
        ("https://app.example:443", "Write https://app.example instead."),
        ("http://app.example:80/", "Write http://app.example instead."),
        ("https://bücher.example", "Write https://xn--bcher-kva.example instead."),
        ("*", "Name each origin"),
        ("https://*.app.example", "Name each origin"),
        ("null", "Name each origin"),
        ("http://", "Name each origin"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_with_a_correction(text: str, instead: str) -> None:
    with pytest.raises(SettingsInvalidError, match="cors_origins") as refusal:
        check_origins(("https://good.example", text))
    assert refusal.value.hint.startswith(instead)
    assert repr(text) in refusal.value.message


@pytest.mark.parametrize("name", ["token_issuer", "token_audience"])
def test_a_claim_that_no_token_could_have_is_refused(name: str) -> None:
    with pytest.raises(SettingsInvalidError, match=name):
        load(environment={f"WAKELINE_{name.upper()}": ""})


@pytest.mark.parametrize(
    ("environment", "hint"),
    [
        ({"WAKELINE_PORT": "many"}, "Write a whole number in WAKELINE_PORT, such as WAKELINE_PORT=8080."),
        ({"WAKELINE_NO_AUTH": "yes"}, "Write true or false in WAKELINE_NO_AUTH, such as WAKELINE_NO_AUTH=true."),
        ({"WAKELINE_KEEP_ALIVE": "soon"}, "Write a number in WAKELINE_KEEP_ALIVE, such as WAKELINE_KEEP_ALIVE=1.5."),
        ({"WAKELINE_PORT": "70000"}, "Correct WAKELINE_PORT."),
        ({"WAKELINE_NOTIFY": '{"a": {"topics": 1}}'}, "Correct notify.a.topics in the JSON of WAKELINE_NOTIFY."),
    ],
)
def test_a_bad_variable_s_hint_says_what_to_write(environment: dict[str, str], hint: str) -> None:
    with pytest.raises(SettingsInvalidError) as raised:
        load(environment=environment)
    assert raised.value.hint == hint


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("engine", "postgres", "got 'postgres'"),
        ("engine", "mysql", "got 'mysql'"),
        ("engine", "mysql://root:the-password@host/db", "got an address with mysql://"),
        ("engine", "root:the-password@host/db", "got something else"),
        ("temporal_ui", "localhost:8233", "got 'localhost:8233'"),
    ],
)
def test_a_value_of_another_form_s_refusal_has_the_form_in_words(name: str, value: str, shown: str) -> None:
    variable = f"WAKELINE_{name.upper()}"
    with pytest.raises(SettingsInvalidError) as raised:
        load(environment={variable: value})
    assert "regex" not in raised.value.message
    assert shown in raised.value.message
    assert "the-password" not in f"{raised.value.message} {raised.value.hint}"
    assert ("postgres://USER@HOST/DATABASE" in raised.value.message) == (name == "engine")
    sample = raised.value.hint.split(f"such as {variable}=")[1].split(",")[0]
    assert getattr(load(environment={variable: sample}), name) == sample


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("prot = 1", "at the top level; did you mean port?"),
        ('temporal_address = "x:7233"', "at the top level; did you mean temporal?"),
        ('temporal_namespace = "x"', "at the top level; did you mean namespace?"),
        ("temporal = x:7233", "Correct the path, in --config or WAKELINE_CONFIG, or the file at the line"),
        ("[wakeline]\nport = 1", "leave the line [wakeline] out"),
        ('[[follow]]\nworkflow_tpye = "x"', "workflow_tpye in follow[0], or leave it out; did you mean workflow_type?"),
        ('[notify.a]\ntopics = ["x"]\nusrs = ["y"]', "usrs in notify.a, or leave it out; did you mean users?"),
        ('[[follow]]\nzzz = "x"', "its members are workflow_type, workflow_id, task_queue, query,"),
    ],
)
def test_an_unknown_name_s_hint_says_what_was_meant(tmp_path: Path, content: str, hint: str) -> None:
    file = tmp_path / "wakeline.toml"
    file.write_text(content)
    with pytest.raises(SettingsInvalidError) as raised:
        load(file=file, environment={})
    assert hint in raised.value.hint


def test_hints_of_keys_have_a_command_that_makes_one() -> None:
    with pytest.raises(ListenRefusedError) as raised:
        Settings().check_listen()
    assert "--no-auth" in raised.value.hint
    assert "WAKELINE_TOKEN_SECRET=$(openssl rand -hex 32)" in raised.value.hint
    with pytest.raises(SettingsInvalidError) as short:
        shared_key("short")
    assert "openssl rand -hex 32" in short.value.hint


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    empty = {f"WAKELINE_{name.upper()}": "" for name in Settings.__struct_fields__ if not name.startswith("token_")}
    assert load(environment={**empty, "WAKELINE_TOKEN_SECRET": "", "WAKELINE_CONFIG": ""}) == Settings()
    load({"no_auth": True}, environment={"WAKELINE_TOKEN_SECRET": "", "WAKELINE_TOKEN_JWKS": ""}).check_listen()
    file = tmp_path / "wakeline.toml"
    file.write_text("port = 1")
    assert load(file=file, environment={"WAKELINE_PORT": ""}).port == 1
