"""The limits of an input file at each provider whose batch API our calls can drive, found by the host of its API.

Data, with the source of each row. Not listed, as their batch API takes other calls than OpenAI's: Together (50,000
requests, 100 MB), Mistral, Fireworks, Gemini, SiliconFlow, xAI. A host that is not listed has OpenAI's limits.
"""

from __future__ import annotations

import msgspec

from airflow_provider_batch.core.provider.limits import Limits


class Provider(msgspec.Struct, frozen=True):
    """One provider."""

    name: str
    #: domains of its API; the domains below one belong to it
    domains: tuple[str, ...]
    limits: Limits
    #: where the limits are documented
    source: str
    #: whether a model that a batch may name answers synchronous requests too
    synchronous: bool = True


OPENAI = Provider("OpenAI", ("api.openai.com",), Limits(), "https://platform.openai.com/docs/guides/batch")

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
        # a file in a blob container of one's own, which may have 1 GB, is not uploaded by us
        Limits(requests=100_000, bytes=200_000_000),
        "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/batch",
        # the model of a batch is a deployment of a batch type there, which answers batches alone
        synchronous=False,
    ),
    Provider(
        "Groq",
        ("api.groq.com",),
        Limits(requests=50_000, bytes=200_000_000),
        "https://console.groq.com/docs/batch",
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
        # how many embedding inputs a file takes is not documented: OpenAI's number stands in
        Limits(requests=5_000_000, bytes=10_000_000_000),
        "https://docs.tokenfactory.nebius.com",
    ),
    Provider(
        "Doubleword",
        ("api.doubleword.ai",),
        # how many requests is not documented: OpenAI's number stands in
        Limits(bytes=200_000_000),
        "https://github.com/doublewordai/control-layer/pull/1741",
    ),
)


def find_provider(host: str) -> Provider:
    """The provider with this host; OpenAI for a host that is not listed."""
    name = host.lower().rstrip(".")
    for provider in PROVIDERS:
        if any(name == domain or name.endswith("." + domain) for domain in provider.domains):
            return provider
    return OPENAI
