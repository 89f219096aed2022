"""`docs/reference/` tells what there is: no more, no less."""

from __future__ import annotations

import inspect
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest

from tests.docs.markdown import sections, span, spans, tables, text
from wakeline.cli.main import app
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.rules import Face, Follow, InputRules, Namespace, Notify, Start
from wakeline.gateway.settings import Settings, load


def setting_rows() -> list[dict[str, str]]:
    return tables(text("docs/reference/settings.md"))[0]


def written(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case ():
            return "`[]`"
        case dict() | InputRules() if value in ({}, InputRules()):
            return "`{}`"
        case _:
            return f"`{value}`"


def test_every_setting_is_documented_with_its_default() -> None:
    fields = msgspec.structs.fields(Settings)
    documented = {span(row["name"]): row["default"] for row in setting_rows()}
    assert documented == {field.name: written(getattr(Settings(), field.name)) for field in fields}


@pytest.mark.parametrize("row", setting_rows(), ids=lambda row: span(row["name"]))
def test_every_setting_is_read_from_the_variable_that_is_documented(row: dict[str, str]) -> None:
    name = span(row["name"])
    examples = {"engine": "memory", "durability": "process", "no_auth": "true", "log_level": "error"}
    examples["event_loop"] = "uvloop"
    examples |= {
        "cors_origins": "http://a.example, http://b.example",
        "open_metrics": "true",
        "inspector": "false",
        "temporal_ui": "https://cloud.temporal.io",
        "codec_server": "http://localhost:8081/codec",
        "nats_sync_unchecked": "true",
    }
    examples |= {"notify": '{"ends": {"topics": ["$run.closed"]}}', "channels": '{"ops": {"type": "webhook"}}'}
    examples |= {"temporal_tls": "true", "namespaces": '{"billing": {}}', "follow": '[{"workflow_type": "Agent*"}]'}
    examples |= {"inputs": '{"start": {"chat": {"sessions": ["chat-*"], "workflow_type": "Chat", "task_queue": "q"}}}'}
    examples |= {"faces": '{"chat": {"name": "message", "kind": "update"}}'}
    text = examples.get(name, "4096")
    changed = getattr(load(environment={span(row["environment"]): text}), name)
    assert changed != getattr(Settings(), name)
    tables_of = {
        "inspector": False,
        "namespaces": {"billing": Namespace()},
        "follow": (Follow(workflow_type="Agent*"),),
        "notify": {"ends": Notify(topics=("$run.closed",))},
        "channels": {"ops": {"type": "webhook"}},
        "faces": {"chat": Face(name="message", kind="update")},
        "inputs": InputRules(start={"chat": Start(sessions=("chat-*",), workflow_type="Chat", task_queue="q")}),
    }
    if name in tables_of:
        assert changed == tables_of[name]
        return
    assert changed == (tuple(text.split(", ")) if isinstance(changed, tuple) else type(changed)(text))


def test_the_choices_of_settings_are_documented() -> None:
    for row, field in zip(setting_rows(), msgspec.structs.fields(Settings), strict=True):
        if get_origin(field.type) is Literal:
            assert tuple(spans(row["type"])) == get_args(field.type)


def test_every_metric_is_documented_with_its_type() -> None:
    rows = tables(text("docs/reference/metrics.md"))[0]
    families = list(Metrics().registry.collect())
    exposed = {f"{f.name}_total" if f.type == "counter" else f.name: f.type for f in families}
    assert {span(row["name"]): row["type"] for row in rows} == exposed


def test_every_label_is_documented() -> None:
    metrics = Metrics()
    metrics.refused.labels("internal").inc()
    metrics.cut.labels("body").inc()
    metrics.temporal.labels("default").set(1)
    metrics.notifications.labels("ops", "delivered").inc()
    metrics.channels_disabled.labels("ops").set(0)
    metrics.subscriptions_removed.labels("gone").inc()
    metrics.inputs.labels("signal", "completed").inc()
    metrics.input_requests.labels("resolved").inc()
    metrics.calls.labels("QueryWorkflow", "OK").inc()
    rows = {span(row["name"]): set(spans(row["labels"])) for row in tables(text("docs/reference/metrics.md"))[0]}
    for family in metrics.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert rows[f"{family.name}_total" if family.type == "counter" else family.name] == labels


def commands() -> list[str]:
    return [name for name in app if not name.startswith("-")]


def command_sections() -> dict[str, str]:
    found = sections(text("docs/reference/cli.md"))
    return {spans(heading)[0].split()[1]: body for heading, body in found.items()}


def test_every_command_is_documented() -> None:
    assert sorted(command_sections()) == sorted(commands())


@pytest.mark.parametrize("command", commands())
def test_every_option_is_documented_with_its_default(command: str) -> None:
    rows = tables(command_sections()[command])[0]
    documented = {tuple(spans(row["option"])): row["default"] for row in rows}
    arguments = app[command].assemble_argument_collection()
    assert set(documented) == {argument.names for argument in arguments}
    for argument in arguments:
        default = argument.field_info.default
        if default is not inspect.Parameter.empty and not isinstance(default, bool | tuple) and default is not None:
            assert written(default) in documented[argument.names]


@pytest.mark.parametrize("command", commands())
def test_options_that_are_settings_have_the_settings_defaults(command: str) -> None:
    if command not in ("serve", "dev"):
        return
    for row in tables(command_sections()[command])[0]:
        name = spans(row["option"])[0].removeprefix("--").replace("-", "_")
        if name in Settings.__struct_fields__ and row["default"]:
            default = getattr(Settings(), name)
            assert row["default"] == ("none" if default == () else written(default))
