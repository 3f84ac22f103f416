"""Which provider an API host belongs to."""

from __future__ import annotations

import pytest
from openai import AzureOpenAI, OpenAI

from airflow_provider_batch.core.provider.catalogue import OPENAI, PROVIDERS, find_provider
from airflow_provider_batch.core.provider.limits import Limits


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("api.openai.com", "OpenAI"),
        ("eu.api.openai.com", "OpenAI"),
        ("my-resource.openai.azure.com", "Azure OpenAI"),
        ("my-resource.services.ai.azure.com", "Azure OpenAI"),
        ("My-Resource.OpenAI.Azure.com.", "Azure OpenAI"),
        ("api.groq.com", "Groq"),
        ("dashscope-intl.aliyuncs.com", "Alibaba Cloud Model Studio"),
        ("ws-1.ap-southeast-1.maas.aliyuncs.com", "Alibaba Cloud Model Studio"),
        ("api.tokenfactory.nebius.com", "Nebius Token Factory"),
        ("api.doubleword.ai", "Doubleword"),
    ],
)
def test_a_provider_is_recognised_by_the_host_of_its_api(host: str, name: str) -> None:
    assert find_provider(host).name == name


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "", "llm.example.com", "notapi.groq.com", "api.groq.com.example.com"]
)
def test_a_host_that_is_not_listed_has_openais_limits(host: str) -> None:
    assert find_provider(host) is OPENAI
    assert OPENAI.limits == Limits()


def test_the_base_url_of_an_sdk_client_identifies_its_provider() -> None:
    azure = AzureOpenAI(azure_endpoint="https://res.openai.azure.com", api_version="2025-04-01-preview", api_key="k")
    assert find_provider(azure.base_url.host).limits == Limits(requests=100_000, bytes=200_000_000)
    assert find_provider(OpenAI(api_key="k", base_url="https://api.groq.com/openai/v1").base_url.host).name == "Groq"


def test_every_provider_has_a_source_and_domains_that_no_other_has() -> None:
    domains = [domain for provider in PROVIDERS for domain in provider.domains]
    assert len(domains) == len(set(domains))
    assert all(provider.source.startswith("https://") and provider.domains for provider in PROVIDERS)
