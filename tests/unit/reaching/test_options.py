"""How each namespace is reached: from the settings, and from Temporal's own configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from temporalio.converter import DataConverter, DefaultPayloadConverter, PayloadCodec
from temporalio.service import TLSConfig

from wakeline.errors import SettingsInvalidError
from wakeline.gateway.reaching import options_of
from wakeline.gateway.reaching.connection import Options
from wakeline.gateway.rules import Namespace
from wakeline.gateway.settings import Settings, load

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nYg==\n-----END PRIVATE KEY-----\n"
NOTHING: Mapping[str, str] = {"HOME": "/nowhere"}


class Codec(PayloadCodec):
    async def encode(self, payloads):  # type: ignore[no-untyped-def]
        return payloads

    async def decode(self, payloads):  # type: ignore[no-untyped-def]
        return payloads


codec = Codec()
converter = DataConverter(payload_codec=codec)
number = 3


class Pem:
    def __init__(self, directory: Path) -> None:
        self.cert, self.key, self.ca = (str(directory / f"{name}.pem") for name in ("cert", "key", "ca"))
        Path(self.cert).write_text(CERTIFICATE)
        Path(self.key).write_text(KEY)
        Path(self.ca).write_text(CERTIFICATE)


@pytest.fixture
def pem(tmp_path: Path) -> Pem:
    return Pem(tmp_path)


def one(settings: Settings, environment: Mapping[str, str] = NOTHING) -> Options:
    (found,) = options_of(settings, environment)
    return found


def test_without_a_word_of_temporal_there_is_none() -> None:
    assert options_of(Settings(), {**NOTHING, "TEMPORAL_NAMESPACE": "n", "TEMPORAL_API_KEY": "k"}) == []


def test_an_address_is_enough() -> None:
    found = one(Settings(temporal="localhost:7233"))
    assert (found.address, found.namespace, found.tls, found.api_key) == ("localhost:7233", "default", None, None)
    assert found.data_converter is None


def test_certificates_turn_tls_on(pem: Pem) -> None:
    settings = Settings(
        temporal="t:1",
        temporal_tls_client_cert=pem.cert,
        temporal_tls_client_key=pem.key,
        temporal_tls_server_ca=pem.ca,
        temporal_tls_server_name="name",
    )
    expected = TLSConfig(
        server_root_ca_cert=CERTIFICATE.encode(),
        domain="name",
        client_cert=CERTIFICATE.encode(),
        client_private_key=KEY.encode(),
    )
    assert one(settings).tls == expected
    assert one(Settings(temporal="t:1", temporal_tls=True)).tls is True


def test_an_api_key_comes_without_the_newline_of_its_file() -> None:
    found = one(Settings(temporal="t:1", namespace="n", temporal_api_key="secret\n"))
    assert (found.api_key, found.tls) == ("secret", None)
    assert one(Settings(temporal="127.0.0.1:1", temporal_api_key="k", temporal_tls=False)).tls is False


def test_nothing_secret_is_shown() -> None:
    table = Namespace(api_key="secret")
    settings = Settings(temporal="t:1", temporal_api_key="secret", namespaces={"n": table})
    assert "secret" not in repr(options_of(settings, NOTHING)) + repr(settings) + repr(table)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(temporal_api_key="secret"), "temporal_api_key"),
        (Settings(temporal="https://t:1"), "HOST:PORT"),
        (Settings(temporal="t"), "HOST:PORT"),
        (Settings(temporal="t:1", temporal_api_key="sec\nret"), "temporal_api_key"),
        (Settings(temporal="t:1", temporal_api_key="secret", temporal_tls=False), r"temporal_tls = false for t:1"),
        (Settings(temporal="t:1", temporal_tls=False, temporal_tls_server_name="n"), "temporal_tls_server_name"),
        (Settings(temporal="t:1", temporal_tls_server_ca="/nowhere.pem"), "temporal_tls_server_ca.*/nowhere.pem"),
        (Settings(temporal="t:1", temporal_tls_client_cert="/nowhere.pem"), "both .*cert and .*key, got only .*cert"),
        (Settings(temporal="t:1", temporal_tls_client_key="/nowhere.pem"), "both .*key and .*cert, got only .*key"),
        (Settings(temporal="t:1", namespaces={"default": Namespace()}), "other namespaces.*'default'"),
        (Settings(namespaces={"billing": Namespace()}), "namespace 'billing': .*address"),
        (Settings(temporal="t:1", namespaces={"b": Namespace(tls_server_ca="/n.pem")}), "'b'.* tls_server_ca.*/n.pem"),
        (Settings(temporal_profile="nosuch"), "nosuch"),
        (Settings(temporal_config_file="/nowhere.toml"), "/nowhere.toml"),
        (Settings(temporal="t:1", data_converter="nowhere"), "MODULE:ATTRIBUTE"),
        (Settings(temporal="t:1", data_converter="no_such_module:codec"), "no_such_module"),
        (Settings(temporal="t:1", data_converter=f"{__name__}:missing"), "missing"),
        (Settings(temporal="t:1", data_converter=f"{__name__}:number"), "DataConverter or a PayloadCodec.*int"),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings: Settings, message: str) -> None:
    with pytest.raises(SettingsInvalidError, match=message) as refused:
        options_of(settings, NOTHING)
    assert "secret" not in str(refused.value)


def test_certificate_and_key_may_not_be_swapped(pem: Pem) -> None:
    swapped = Settings(temporal="t:1", temporal_tls_client_cert=pem.key, temporal_tls_client_key=pem.cert)
    with pytest.raises(SettingsInvalidError, match="certificate for temporal_tls_client_cert") as refused:
        options_of(swapped, NOTHING)
    assert "Yg==" not in str(refused.value)


@pytest.mark.parametrize("name", ["codec", "converter", "Codec"])
def test_a_data_converter_may_be_a_codec_or_what_gives_one(name: str) -> None:
    found = one(Settings(temporal="t:1", data_converter=f"{__name__}:{name}")).data_converter
    assert found is not None
    assert isinstance(found.payload_codec, Codec)
    assert found.payload_converter_class is DefaultPayloadConverter


def profiles(directory: Path, pem: Pem) -> str:
    file = directory / "temporal.toml"
    file.write_text(
        f"""
        [profile.default]
        address = "default:1"
        namespace = "n"
        api_key = "secret"
        [profile.default.grpc_meta]
        team = "shop"
        [profile.mtls]
        address = "mtls:1"
        [profile.mtls.tls]
        server_name = "name"
        client_cert_path = "{pem.cert}"
        client_key_path = "{pem.key}"
        """
    )
    return str(file)


def test_temporals_own_variables_are_enough(tmp_path: Path, pem: Pem) -> None:
    found = one(Settings(), {"TEMPORAL_ADDRESS": "t:1", "TEMPORAL_NAMESPACE": "n", "TEMPORAL_API_KEY": "k"})
    assert (found.address, found.namespace, found.api_key, found.tls) == ("t:1", "n", "k", None)
    found = one(Settings(), {"TEMPORAL_CONFIG_FILE": profiles(tmp_path, pem), "TEMPORAL_NAMESPACE": "other"})
    assert (found.address, found.namespace, found.api_key) == ("default:1", "other", "secret")
    assert found.rpc_metadata == {"team": "shop"}


def test_settings_win_over_a_profile(tmp_path: Path, pem: Pem) -> None:
    file = profiles(tmp_path, pem)
    settings = Settings(temporal="own:1", temporal_profile="mtls", temporal_config_file=file, namespace="mine")
    found = one(settings)
    assert (found.address, found.namespace) == ("own:1", "mine")
    assert isinstance(found.tls, TLSConfig)
    assert (found.tls.domain, found.tls.client_private_key) == ("name", KEY.encode())


def test_an_address_of_the_settings_gets_no_key_of_the_environment(tmp_path: Path, pem: Pem) -> None:
    environment = {"TEMPORAL_API_KEY": "k", "TEMPORAL_CONFIG_FILE": profiles(tmp_path, pem)}
    assert one(Settings(temporal="t:1"), environment).api_key is None


def test_a_file_that_cannot_be_read_is_told_without_its_text(tmp_path: Path) -> None:
    file = tmp_path / "temporal.toml"
    file.write_text('[profile.default]\napi_key = "secret" "\n')
    with pytest.raises(SettingsInvalidError, match="line 2") as refused:
        options_of(Settings(temporal_config_file=str(file)), NOTHING)
    assert "secret" not in str(refused.value)


def test_a_namespace_inherits_what_it_does_not_say(tmp_path: Path, pem: Pem) -> None:
    file = tmp_path / "wakeline.toml"
    file.write_text(
        f"""
        temporal = "main:1"
        namespace = "shop"
        temporal_api_key = "k"
        data_converter = "{__name__}:codec"
        [namespaces.billing]
        [namespaces.away]
        address = "away:1"
        api_key = "other"
        data_converter = ""
        [namespaces.certified]
        tls_client_cert = "{pem.cert}"
        tls_client_key = "{pem.key}"
        [namespaces.plain]
        tls = false
        [namespaces.profiled]
        profile = "mtls"
        config_file = "{profiles(tmp_path, pem)}"
        """
    )
    shop, billing, away, certified, plain, profiled = options_of(load(file=file, environment={}), NOTHING)
    assert [each.namespace for each in (shop, billing, plain)] == ["shop", "billing", "plain"]
    assert (billing.address, billing.api_key) == ("main:1", "k")
    assert billing.data_converter is not None
    assert (away.address, away.api_key, away.data_converter) == ("away:1", "other", None)
    assert (certified.address, certified.api_key) == ("main:1", None)
    assert isinstance(certified.tls, TLSConfig)
    assert (plain.address, plain.api_key, plain.tls) == ("main:1", None, False)
    assert (profiled.address, profiled.api_key) == ("mtls:1", None)


def test_the_first_table_is_the_main_namespace_where_there_is_no_other() -> None:
    text = '{"billing": {"address": "t:1"}, "shop": {"address": "t:2"}}'
    found = options_of(load(environment={"WAKELINE_NAMESPACES": text}), NOTHING)
    assert [(each.namespace, each.address) for each in found] == [("billing", "t:1"), ("shop", "t:2")]


def test_a_profile_of_another_namespace_is_refused(tmp_path: Path, pem: Pem) -> None:
    table = Namespace(profile="default", config_file=profiles(tmp_path, pem))
    with pytest.raises(SettingsInvalidError, match=r"'b': .*'n'"):
        options_of(Settings(namespaces={"b": table}), NOTHING)


@pytest.mark.parametrize("text", ["{x", "[1]", '{"b": {"apikey": "secret"}}', '{"b": {"tls": "secret"}}'])
def test_tables_in_the_environment_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(SettingsInvalidError) as refused:
        load(environment={"WAKELINE_NAMESPACES": text})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "instead"),
    [
        ("http://localhost:7233", "localhost:7233"),
        ("localhost", "localhost:7233"),
        ("https://t.example/", "t.example:7233"),
    ],
)
def test_an_address_that_is_none_is_told_with_what_to_write(address: str, instead: str) -> None:
    with pytest.raises(SettingsInvalidError) as raised:
        options_of(Settings(temporal=address), NOTHING)
    assert f"Write {instead} in temporal," in raised.value.hint


def test_a_profile_that_is_not_there_is_told_with_the_file_and_those_that_are(tmp_path: Path) -> None:
    file = tmp_path / "temporal.toml"
    file.write_text('[profile.prod]\naddress = "t:1"\napi_key = "secret"\n[profile.staging]\naddress = "t:2"\n')
    environment = {**NOTHING, "TEMPORAL_PROFILE": "nope", "TEMPORAL_CONFIG_FILE": str(file)}
    with pytest.raises(SettingsInvalidError, match="nope") as raised:
        options_of(Settings(), environment)
    assert f"The profiles in {file} are: prod, staging." in raised.value.hint
    assert "TEMPORAL_PROFILE" in raised.value.hint
    assert "secret" not in str(raised.value)
