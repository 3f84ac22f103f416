"""Providers with an OpenAI-compatible batch API, looked up by the host of their API: limits and price lists.

Each row names its source. Providers whose batch API differs from OpenAI's are not listed: Together (50,000
requests, 100 MB), Mistral, Fireworks, Gemini, SiliconFlow and xAI. A host that is not listed has OpenAI's limits.
"""

from __future__ import annotations

import msgspec

from airflow_provider_batch.core.provider.limits import Limits


class Provider(msgspec.Struct, frozen=True):
    """A provider, the domains of its API and its limits."""

    name: str
    #: domains of its API, subdomains included
    domains: tuple[str, ...]
    limits: Limits
    #: where the limits are documented
    source: str
    #: whether the models of its batch API also answer synchronous requests
    synchronous: bool = True
    #: its price list (`core.pricing.price_list.PriceList`); empty if its prices are unknown
    price_list: str = ""


OPENAI = Provider(
    "OpenAI",
    ("api.openai.com",),
    Limits(),
    "https://platform.openai.com/docs/guides/batch",
    price_list="openai",
)

PROVIDERS = (
    OPENAI,
    Provider(
        "Azure OpenAI",
        (
            "openai.azure.com",
            "cognitiveservices.azure.com",
            "services.ai.azure.com",
            "openai.azure.us",
            "openai.azure.cn",
        ),
        # Azure also accepts files of up to 1 GB in the user's own blob container, but we do not upload there
        Limits(requests=100_000, bytes=200_000_000),
        "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/batch",
        # a batch names a deployment of a batch type, which does not answer synchronous requests
        synchronous=False,
        # the prices of its global deployments are OpenAI's
        price_list="openai",
    ),
    Provider(
        "Groq",
        ("api.groq.com",),
        Limits(requests=50_000, bytes=200_000_000),
        "https://console.groq.com/docs/batch",
        price_list="groq",
    ),
    Provider(
        "Alibaba Cloud Model Studio",
        ("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com", "maas.aliyuncs.com"),
        Limits(requests=50_000, bytes=500_000_000),
        "https://help.aliyun.com/en/model-studio/batch-interfaces-compatible-with-openai",
    ),
    Provider(
        "Nebius Token Factory",
        ("api.tokenfactory.nebius.com", "api.studio.nebius.com", "api.studio.nebius.ai"),
        # the limit on embedding inputs is not documented, so OpenAI's applies
        Limits(requests=5_000_000, bytes=10_000_000_000),
        "https://docs.tokenfactory.nebius.com",
    ),
    Provider(
        "Doubleword",
        ("api.doubleword.ai",),
        # the limit on requests is not documented, so OpenAI's applies
        Limits(bytes=200_000_000),
        "https://github.com/doublewordai/control-layer/pull/1741",
    ),
)


#: OpenAI's own page of batches
OPENAI_BATCHES = "https://platform.openai.com/batches"


def is_openai(host: str) -> bool:
    """Return whether this is a host of OpenAI's own API, and not only of one that is compatible with it."""
    name = host.lower().rstrip(".")
    return any(name == domain or name.endswith("." + domain) for domain in OPENAI.domains)


def find_provider(host: str) -> Provider:
    """Return the provider with this host, or OpenAI if the host is not listed."""
    name = host.lower().rstrip(".")
    for provider in PROVIDERS:
        if any(name == domain or name.endswith("." + domain) for domain in provider.domains):
            return provider
    return OPENAI
