"""Checks of the values in a connection, before a client is built from them.

The client would report most mistakes only with the first call, as "Connection error.", as a bare TypeError, or as an
error of the encoder that shows the key. These checks name the field, say what is wrong with it, and never show a
secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from airflow_provider_batch.core.provider.api_key import KEY_FIELD, api_key_problem, is_key, openai_key_problem
from airflow_provider_batch.core.provider.base_url import (
    URL_FIELD,
    base_url_problem,
    complete_url,
    is_unencrypted,
    origin_of,
)
from airflow_provider_batch.core.provider.catalogue import find_provider, is_openai
from airflow_provider_batch.core.provider.header_text import header_problem

#: the object in the extra with arguments of the client
CLIENT_ARGUMENTS = "openai_client_kwargs"
_AZURE_ADVICE = (
    "Azure's API without versions needs no such option. Enter https://RESOURCE.openai.azure.com/openai/v1 into the "
    "field Host, and the name of the deployment as model of the task"
)
#: keys of the extra that only count with `"auth_type": "workload_identity"`
_IDENTITY_KEYS = frozenset(
    {
        *("workload_identity_provider", "identity_provider_id", "service_account_id", "refresh_buffer_seconds"),
        *("token_file_path", "resource", "object_id", "client_id", "msi_res_id", "api_version", "audience"),
        *("token_provider", "token_type"),
    }
)
_BATCH_KEYS = frozenset({"batch_limits", "batch_budget", "batch_prices", "batch_flex"})
#: keys of a connection's extra that mean something here or to the hook of the OpenAI provider
EXTRA_KEYS = frozenset({CLIENT_ARGUMENTS, "auth_type", *_IDENTITY_KEYS, *_BATCH_KEYS})
#: advice for the options of other clients, by their name without a prefix such as "openai_"
_FOREIGN_OPTIONS = {
    **dict.fromkeys(("api_key", "key", "token", "secret"), "Enter the key into the field API Key"),
    **dict.fromkeys(("azure_ad_token", "ad_token"), "Enter the token into the field API Key"),
    **dict.fromkeys(
        ("api_base", "endpoint", "host", "url", "api_url", "server"),
        "Enter the address into the field Host, or into 'base_url' in openai_client_kwargs",
    ),
    **dict.fromkeys(("azure_endpoint", "api_type", "api_version", "type"), _AZURE_ADVICE),
    **dict.fromkeys(
        ("azure_deployment", "deployment", "deployment_name", "deployment_id", "engine", "model", "model_name"),
        "Set model= in the task",
    ),
    **dict.fromkeys(
        ("temperature", "max_tokens", "max_output_tokens", "max_completion_tokens", "top_p", "seed"),
        "It is a parameter of the requests: set it in the task",
    ),
    **dict.fromkeys(("org", "org_id", "organization_id", "organisation"), "Did you mean 'organization'"),
    **dict.fromkeys(("project_id",), "Did you mean 'project'"),
    **dict.fromkeys(("headers", "extra_headers", "custom_headers"), "Did you mean 'default_headers'"),
    **dict.fromkeys(("request_timeout", "read_timeout", "timeout_seconds"), "Did you mean 'timeout'"),
    **dict.fromkeys(("retries", "num_retries", "max_retry", "retry"), "Did you mean 'max_retries'"),
    **dict.fromkeys(
        ("proxy", "proxies", "http_proxy", "https_proxy"), "Set the environment variable HTTPS_PROXY of the workers"
    ),
    **dict.fromkeys(
        ("verify", "verify_ssl", "ssl_verify", "ca_bundle", "ca_cert", "cert", "insecure"),
        "Set the environment variable SSL_CERT_FILE of the workers to the certificates of your proxy or server",
    ),
    **dict.fromkeys(("client_kwargs", "kwargs"), f"Did you mean {CLIENT_ARGUMENTS!r}"),
}
#: arguments of the client that take Python objects
_OBJECT_ARGUMENTS = frozenset({"http_client", "provider"})
_TEXT_ARGUMENTS = frozenset({"organization", "project", "webhook_secret", "websocket_base_url"})
#: types of connections that certainly hold no key of an LLM, and are passed by mistake
_FOREIGN_TYPES = frozenset(
    {
        *("postgres", "mysql", "sqlite", "duckdb", "snowflake", "mssql", "oracle", "trino", "presto", "redshift"),
        *("databricks", "clickhouse", "vertica", "hiveserver2", "jdbc", "odbc", "google_cloud_platform", "gcpbigquery"),
        *("aws", "wasb", "adls", "s3", "ssh", "sftp", "ftp", "fs", "smtp", "slack", "redis", "mongo", "kubernetes"),
    }
)
_MAX_TIMEOUT = 86_400
_MAX_RETRIES = 100


class ConnectionFields(NamedTuple):
    """The fields of an Airflow connection, as it stores them."""

    conn_type: str | None
    host: str | None
    port: int | None
    schema: str | None
    login: str | None
    password: str | None
    #: text of the extra. Airflow takes text that is not JSON for an empty object.
    extra_text: str | None
    #: the extra as Airflow parsed it
    extra: Any


def connection_problems(
    fields: ConnectionFields, *, known_arguments: Collection[str], environment: Mapping[str, str]
) -> list[str]:
    """Return what is wrong with the values that a client is built from: one sentence for each, without a full stop.

    A sentence names the field as a person sees it in the form of the connection. It never contains a secret.

    :param known_arguments: names of the arguments that the client takes.
    :param environment: environment variables. The client reads some that the connection does not set.
    """
    if not fields.conn_type and not fields.host and not fields.password:
        return [
            "its value is neither the JSON of a connection nor a URI. Expected a URI such as "
            'openai://:KEY@/ or JSON such as {"conn_type": "openai", "password": "KEY"}'
        ]
    if fields.conn_type in _FOREIGN_TYPES:
        return [f"it has the type {fields.conn_type!r}. Create a connection of the type OpenAI, and set openai_conn_id"]
    problems = [*_login_problems(fields), *_ignored_field_problems(fields), *_extra_problems(fields, known_arguments)]
    arguments = fields.extra.get(CLIENT_ARGUMENTS) if isinstance(fields.extra, Mapping) else None
    arguments = arguments if isinstance(arguments, Mapping) else {}
    problems += _key_and_url_problems(fields, arguments, environment)
    problems += _argument_problems(arguments, known_arguments)
    for name, argument in (("OPENAI_ORG_ID", "organization"), ("OPENAI_PROJECT_ID", "project")):
        value = environment.get(name)
        if value and argument not in arguments:
            problem = header_problem(f"the environment variable {name}", value)
            problems += [problem] if problem else []
    return problems


def connection_warnings(fields: ConnectionFields, *, environment: Mapping[str, str]) -> list[str]:
    """Return what is odd about a connection that can be used: one sentence for each, without a full stop."""
    warnings = []
    extra = fields.extra if isinstance(fields.extra, Mapping) else {}
    arguments = extra.get(CLIENT_ARGUMENTS) or {}
    base_url = arguments.get("base_url") or fields.host or environment.get("OPENAI_BASE_URL") or ""
    if base_url and is_unencrypted(base_url):
        warnings.append(
            "the key and the rows cross the network unencrypted, because the address is "
            f"{origin_of(urlsplit(base_url))}. Use https:// if the server has it"
        )
    if fields.conn_type and fields.conn_type != "openai":
        warnings.append(f"it has the type {fields.conn_type!r}. Set the type to OpenAI")
    if fields.login:
        warnings.append("the field Login has no effect. Remove its value")
    unknown_keys = sorted(str(key) for key in extra if key not in EXTRA_KEYS)
    if unknown_keys:
        warnings.append(f"these keys of the extra have no effect here: {', '.join(map(repr, unknown_keys))}")
    return warnings


def _login_problems(fields: ConnectionFields) -> Iterator[str]:
    login = (fields.login or "").strip()
    if is_key(login):
        yield (
            "the field Login contains a key. Enter it into the field API Key (the password); in a URI, a colon comes "
            "before the key: openai://:KEY@"
        )
    elif login.startswith("org-"):
        yield "the field Login contains the id of an organization. Set 'organization' in openai_client_kwargs"
    elif login.startswith("proj_"):
        yield "the field Login contains the id of a project. Set 'project' in openai_client_kwargs"
    elif "://" in login:
        yield "the field Login contains an address. Enter it into the field Host"


def _ignored_field_problems(fields: ConnectionFields) -> Iterator[str]:
    """Yield which of the fields port and schema have no effect although they are set."""
    host, port, schema = fields.host or "", fields.port, (fields.schema or "").strip("/")
    if is_key(schema):
        yield "the field Schema contains a key. Enter it into the field API Key"
        return
    if schema.lower() in ("http", "https"):
        if not re.match(r"https?://", host):
            yield (
                "the field Schema has no effect. Write the whole address into the field Host: "
                f"{schema.lower()}://{_without_userinfo(host)}"
            )
        return
    if not host:
        names = [f"the port {port}"] if port else []
        names += [f"the schema {schema!r}"] if schema else []
        if names:
            yield f"{' and '.join(names)} has no effect without a host. Write the whole address into the field Host"
        return
    if is_key(host):
        return
    url = host if "://" in host else complete_url(host)
    try:
        parts = urlsplit(url)
        own_port = parts.port
    except ValueError:
        return
    if port and own_port and port != own_port:
        yield f"the port {port} has no effect, because the field Host names the port {own_port}. Remove one of them"
        return
    is_default = port == (443 if parts.scheme == "https" else 80)
    has_port = bool(port) and not own_port and not is_default
    has_path = bool(schema) and not parts.path.strip("/").endswith(schema)
    if not has_port and not has_path and not (port and not own_port):
        return
    path = "/".join(filter(None, (parts.path.strip("/"), schema if has_path else "")))
    address = f"{origin_of(parts)}{f':{port}' if has_port else ''}{f'/{path}' if path else ''}"
    yield f"its port and its schema have no effect. Write the whole address into the field Host: {address}"


def _extra_problems(fields: ConnectionFields, known_arguments: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with the keys of a connection's extra. Unrelated keys are ignored."""
    extra = fields.extra
    text = (fields.extra_text or "").strip()
    if not isinstance(extra, Mapping) or not _is_json_object(text or "{}"):
        yield "the extra must be a JSON object"
        return
    for key in extra:
        if key not in EXTRA_KEYS:
            problem = _unknown_key_problem(str(key), known_arguments)
            if problem is not None:
                yield problem
    arguments = extra.get(CLIENT_ARGUMENTS)
    if arguments is not None and not isinstance(arguments, Mapping):
        advice = ". In a URI, pass the whole extra as JSON: openai://:KEY@/?__extra__=..."
        yield (
            f'the key "{CLIENT_ARGUMENTS}" of the extra must be an object, such as {{"timeout": 60}}, not '
            f"{type(arguments).__name__}{advice if isinstance(arguments, str) else ''}"
        )
    auth_type = extra.get("auth_type", "api_key")
    if auth_type not in ("api_key", "workload_identity"):
        yield (
            f'Unsupported auth_type {auth_type!r:.60} in the extra. Known are "api_key" (the default) and '
            '"workload_identity"'
        )
    elif auth_type == "api_key":
        for key in sorted(_IDENTITY_KEYS.intersection(extra)):
            advice = f". {_AZURE_ADVICE}" if key == "api_version" else ""
            yield f'the key {key!r} of the extra has no effect without "auth_type": "workload_identity"{advice}'


def _unknown_key_problem(key: str, known_arguments: Collection[str]) -> str | None:
    name = _normalize(key)
    advice = _FOREIGN_OPTIONS.get(name)
    if name in known_arguments and name != "api_key":
        new_name = f" as {name!r}" if name != key else ""
        return (
            f'the key {key!r} of the extra has no effect there. Move it into the object "{CLIENT_ARGUMENTS}"{new_name}'
        )
    similar_keys = difflib.get_close_matches(key.strip().lower().replace("-", "_"), EXTRA_KEYS, n=1, cutoff=0.85)
    if f"batch_{name}" in _BATCH_KEYS:
        similar_keys = [f"batch_{name}"]
    if similar_keys and advice is None:
        return f"the key {key!r} of the extra is unknown. Did you mean {similar_keys[0]!r}?"
    if advice is not None:
        is_client_argument = advice.startswith("Did you mean") and CLIENT_ARGUMENTS not in advice
        place = f", in the object {CLIENT_ARGUMENTS!r}" if is_client_argument else ""
        return f"the key {key!r} of the extra has no effect. {advice}{place}{_mark(advice)}"
    if key.startswith("batch_"):
        return f"the key {key!r} of the extra is unknown. Known are {', '.join(sorted(_BATCH_KEYS))}"
    return None


def _key_and_url_problems(
    fields: ConnectionFields, arguments: Mapping[str, Any], environment: Mapping[str, str]
) -> Iterator[str]:
    own_url, own_key = arguments.get("base_url"), arguments.get("api_key")
    url, url_field = fields.host or None, URL_FIELD
    if own_url:
        url, url_field = own_url, f"the base URL ('base_url' in {CLIENT_ARGUMENTS})"
        if fields.host and isinstance(own_url, str) and fields.host.rstrip("/") != own_url.rstrip("/"):
            yield f"it has two different addresses: the field Host, and 'base_url' in {CLIENT_ARGUMENTS}. Remove one"
    elif url is None and environment.get("OPENAI_BASE_URL"):
        url, url_field = environment["OPENAI_BASE_URL"], "the base URL (environment variable OPENAI_BASE_URL)"
    url_problem = base_url_problem(url, url_field)
    if url_problem is not None:
        yield url_problem
    if isinstance(fields.extra, Mapping) and fields.extra.get("auth_type") == "workload_identity":
        return
    key, key_field = fields.password, KEY_FIELD
    if own_key:
        key, key_field = own_key, f"the API key ('api_key' in {CLIENT_ARGUMENTS})"
        if fields.password and fields.password != own_key:
            yield f"it has two different keys: the field API Key, and 'api_key' in {CLIENT_ARGUMENTS}. Remove one"
    elif not key and environment.get("OPENAI_API_KEY"):
        key, key_field = environment["OPENAI_API_KEY"], "the API key (environment variable OPENAI_API_KEY)"
    if not key and is_key((fields.login or "").strip()):
        return
    key_problem = api_key_problem(key or "", key_field)
    if key_problem is None and url_problem is None and isinstance(key, str):
        host = urlsplit(url).hostname or "" if url else "api.openai.com"
        if is_openai(host):
            key_problem = openai_key_problem(key, key_field)
        elif find_provider(host).name == "Azure OpenAI" and key.startswith("sk-"):
            key_problem = f"{key_field} is a key of OpenAI, but the address is Azure's. Enter the key of Azure"
    if key_problem is not None:
        yield key_problem


def _argument_problems(arguments: Mapping[str, Any], known_arguments: Collection[str]) -> Iterator[str]:
    for name, value in arguments.items():
        problem = (
            _argument_problem(name, value) if name in known_arguments else _unknown_argument(name, known_arguments)
        )
        if problem is not None:
            yield f"{name!r} in {CLIENT_ARGUMENTS} {problem}"


def _unknown_argument(name: str, known_arguments: Collection[str]) -> str:
    advice = _FOREIGN_OPTIONS.get(_normalize(name))
    if advice is not None:
        return f"is unknown. {advice}{_mark(advice)}"
    if name in EXTRA_KEYS:
        return f"has no effect there. Move it one level up, beside {CLIENT_ARGUMENTS}"
    if f"batch_{name}" in EXTRA_KEYS:
        return f"is unknown. Did you mean 'batch_{name}', one level up, beside {CLIENT_ARGUMENTS}?"
    similar_names = difflib.get_close_matches(name, known_arguments, n=1, cutoff=0.7)
    advice = f"Did you mean {similar_names[0]!r}?" if similar_names else "The client has no such argument"
    return f"is unknown. {advice}"


def _argument_problem(name: str, value: Any) -> str | None:
    """Return what is wrong with an argument, as the end of a sentence that begins with its name, or None."""
    if name in _OBJECT_ARGUMENTS:
        return "takes a Python object, so a connection cannot set it. Remove it"
    if name == "data_residency":
        return "cannot be set there. Enter the address of the region into the field Host: https://eu.api.openai.com/v1"
    if name == "workload_identity":
        return 'cannot be set there. Set "auth_type": "workload_identity" in the extra, beside openai_client_kwargs'
    if name == "admin_api_key":
        return "is for the administration of an organization and cannot send batches. Enter a key of a project"
    if name == "max_retries" and not (type(value) is int and value >= 0):
        return f"must be a whole number of at least 0, not {value!r:.60}"
    if value is None or name in ("api_key", "base_url"):
        return None
    if name == "max_retries" and value > _MAX_RETRIES:
        return f"must be at most {_MAX_RETRIES}, not {value}"
    if name == "timeout":
        if not (type(value) in (int, float) and 0 < value < float("inf")):
            return f"must be a number of seconds greater than 0, not {value!r:.60}"
        if value > _MAX_TIMEOUT:
            return f"is more than a day: {value} seconds. Did you mean milliseconds? It must be a number of seconds"
    if name in ("default_headers", "default_query"):
        return _mapping_problem(value, are_headers=name == "default_headers")
    return _text_problem(name, value) if name in _TEXT_ARGUMENTS else None


def _text_problem(name: str, value: Any) -> str | None:
    problem = header_problem("", value)
    if problem is not None:
        return problem.strip()
    if name not in ("organization", "project"):
        return None
    if is_key(value):
        return "is a key. Enter it into the field API Key"
    other, prefix = ("a project", "proj_") if name == "organization" else ("an organization", "org-")
    if value.startswith(prefix):
        return f"is the id of {other}"
    return "contains a space. Enter the id, not the name" if " " in value else None


def _mapping_problem(value: Any, *, are_headers: bool) -> str | None:
    if not isinstance(value, Mapping):
        return f"must be an object, not {type(value).__name__}"
    for name, item in value.items():
        if not are_headers:
            if not isinstance(item, str | int | float | bool | None):
                return f"has the value of {name!r}, which must be text or a number, not {type(item).__name__}"
            continue
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", str(name)):
            return f"has the header {name!r}, which is not a valid name"
        problem = header_problem(f"has the header {name!r}, which", item)
        if problem is not None:
            return problem
    return None


def _mark(advice: str) -> str:
    return "?" if advice.startswith("Did you mean") else ""


def _normalize(name: str) -> str:
    """Return the name of an option in lower case with underscores, without the prefix of a client."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).lower()
    return re.sub(r"\A(extra__openai__|azure_openai_|openai_)", "", re.sub(r"[^a-z0-9]+", "_", words))


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, UnicodeError):
        return False


def _without_userinfo(address: str) -> str:
    return address.rpartition("@")[2]
