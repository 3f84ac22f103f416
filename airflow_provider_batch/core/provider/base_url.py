"""Checks of the address of an API, before anything is sent to it."""

from __future__ import annotations

import difflib
import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

from airflow_provider_batch.core.provider.api_key import is_key
from airflow_provider_batch.core.provider.catalogue import OPENAI, PROVIDERS
from airflow_provider_batch.core.provider.header_text import is_quoted, unusable_character

#: field of the form of a connection, as errors name it
URL_FIELD = "the base URL (field Host)"
#: ends of the addresses of single endpoints
_ENDPOINT_PATH = re.compile(
    r"/(chat/completions|chat|completions|responses|embeddings|moderations|batches|files|models)/?\Z"
)
_OPENAI_HOST = OPENAI.domains[0]
#: hosts that people mean when they want OpenAI's API, besides those that differ in a letter or two
_OPENAI_MISTAKES = ("api.open.ai", "openai.api.com", "api.openai")
#: hosts of websites, which people copy from the browser
_WEBSITES = {
    **dict.fromkeys(
        ("openai.com", "www.openai.com", "platform.openai.com", "chat.openai.com", "chatgpt.com"),
        "https://api.openai.com/v1",
    ),
    **dict.fromkeys(
        ("portal.azure.com", "oai.azure.com", "ai.azure.com"), "https://RESOURCE.openai.azure.com/openai/v1"
    ),
}
#: by domain, the path of its OpenAI-compatible API
_PATHS = {
    "openai.azure.com": "/openai/v1",
    "cognitiveservices.azure.com": "/openai/v1",
    "services.ai.azure.com": "/openai/v1",
    "openai.azure.us": "/openai/v1",
    "openai.azure.cn": "/openai/v1",
    "api.groq.com": "/openai/v1",
    "openrouter.ai": "/api/v1",
    "api.openai.com": "/v1",
}
#: ends of the names of hosts that are not on the public internet
_PRIVATE_SUFFIXES = (
    *(".local", ".localhost", ".internal", ".intranet", ".lan", ".corp", ".home", ".home.arpa", ".svc", ".test"),
    ".private",
)
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")


def base_url_problem(url: Any, field: str = URL_FIELD) -> str | None:
    """Return what is wrong with a base URL, or None if nothing is.

    :param url: None for the client's default.
    """
    if url is None:
        return None
    if not isinstance(url, str):
        return f"{field} must be text, not {type(url).__name__}"
    if is_key(url):
        return f"{field} is a key, not an address. Enter the key into the field API Key"
    character = unusable_character(url)
    if character is not None:
        return f"{field} {character}. Remove it"
    if is_quoted(url):
        return f"{field} is between quotes. Remove them"
    if " " in url:
        return f"{field} contains a space"
    if "\\" in url:
        return f"{field} contains a backslash. Expected an address such as https://api.openai.com/v1"
    if not re.match(r"[a-z][a-z0-9+.-]*://", url, re.IGNORECASE):
        return f"{field} has no scheme. Did you mean {complete_url(url)}?"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return f"{field} has an invalid port or address. Expected an address such as https://api.openai.com/v1"
    problem = _address_problem(parts) or _path_problem(parts)
    return None if problem is None else f"{field} {problem}"


def complete_url(address: str) -> str:
    """Return an address that lacks a scheme with one. User and password are left out."""
    server = re.sub(r"\A(https?:?)?/*", "", address).rpartition("@")[2]
    host = re.match(r"[^/:]*", server)
    is_local = re.match(r"(localhost|127\.|\[::1\]|0\.0\.0\.0)", server) is not None
    if host is not None and host.group().lower() == _OPENAI_HOST:
        return f"https://{_OPENAI_HOST}/v1"
    return f"{'http' if is_local else 'https'}://{server}"


def is_unencrypted(url: str) -> bool:
    """Return whether an address would carry the key in clear text to a host that may be on the public internet."""
    parts = urlsplit(url)
    return parts.scheme.lower() == "http" and not _is_private(parts.hostname or "")


def origin_of(parts: SplitResult) -> str:
    """Return scheme, host and port of an address, without user and password."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _address_problem(parts: SplitResult) -> str | None:
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme.lower() not in ("http", "https"):
        return f"starts with {parts.scheme}://, but it must start with https:// or http://"
    if host in ("http", "https"):
        return "names the scheme twice"
    if not host:
        return "names no host. Expected an address such as https://api.openai.com/v1"
    if re.search(r"[<>{}$%*]|your[-_]|-name\.", host, re.IGNORECASE):
        return f"contains a placeholder: {host}"
    if parts.netloc.endswith(":"):
        return "ends with a colon before its path. Enter a port, or remove the colon"
    if parts.port == 0:
        return "has the port 0"
    if _ip(host) is None and not _is_name(host):
        return f"has {host!r}, which is not the name of a host"
    if host in _WEBSITES:
        return f"is the address of a website. The address of the API is {_WEBSITES[host]}"
    if _looks_like_openai(host):
        return f"names the unknown host {host}. Did you mean https://{_OPENAI_HOST}/v1?"
    if parts.scheme.lower() == "http" and (_is_known(host) or _is_public_ip(host)):
        return (
            "starts with http://, so the key would cross the internet unencrypted. Did you mean "
            f"https://{parts.netloc.rpartition('@')[2]}{parts.path}?"
        )
    return None


def _path_problem(parts: SplitResult) -> str | None:
    host, path, origin = (parts.hostname or "").rstrip("."), parts.path, origin_of(parts)
    usual_path = next((path for domain, path in _PATHS.items() if _is_in(host, domain)), None)
    if usual_path is not None and "/deployments/" in path:
        return (
            f"is the address of a deployment. The address of the API is {origin}{usual_path}; a deployment is a model"
        )
    if parts.query or parts.fragment:
        return (
            "has a query or a fragment, which the client cannot extend by a path. Move the query into "
            '"default_query" in "openai_client_kwargs"'
        )
    endpoint = _ENDPOINT_PATH.search(path)
    if endpoint is not None:
        return (
            f"is the address of one endpoint. Remove {endpoint.group()!r} at its end: "
            f"{origin}{path[: endpoint.start()]}"
        )
    trimmed_path = path.removesuffix("/")
    if usual_path is not None and not _is_usual(host, trimmed_path, usual_path):
        return f"has the path {path or '/'!r}, but the API of {_api_name(host)} is at {origin}{usual_path}"
    if "//" in path:
        return f"has two slashes in a row. Did you mean {origin}{re.sub('/+', '/', path).removesuffix('/')}?"
    if re.search(r"/(v\d+)/\1\Z", trimmed_path):
        version = trimmed_path.rpartition("/")[2]
        return f"has the path /{version} twice. Did you mean {origin}{trimmed_path.removesuffix(f'/{version}')}?"
    return None


def _is_usual(host: str, path: str, usual_path: str) -> bool:
    # a project of Azure AI Foundry has a path of its own, with the same end
    return path.endswith(usual_path) if "azure" in host and "//" not in path else path == usual_path


def _api_name(host: str) -> str:
    for provider in PROVIDERS:
        if any(_is_in(host, domain) for domain in provider.domains):
            return provider.name
    return host


def _is_in(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _is_known(host: str) -> bool:
    domains = (domain for provider in PROVIDERS for domain in provider.domains)
    return any(_is_in(host, domain) for domain in (*domains, *_PATHS))


def _looks_like_openai(host: str) -> bool:
    if _is_known(host):
        return False
    ratio = difflib.SequenceMatcher(None, host, _OPENAI_HOST).ratio()
    return host in _OPENAI_MISTAKES or (abs(len(host) - len(_OPENAI_HOST)) <= 1 and ratio > 0.9)


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_public_ip(host: str) -> bool:
    address = _ip(host)
    return address is not None and address.is_global


def _is_private(host: str) -> bool:
    name = host.lower().rstrip(".")
    address = _ip(name)
    if address is not None:
        return not address.is_global
    return "." not in name or name.endswith(_PRIVATE_SUFFIXES)


def _is_name(host: str) -> bool:
    labels = host.split(".")
    # the HTTP client takes a name whose last part is a number for an IPv4 address
    return all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdecimal()
