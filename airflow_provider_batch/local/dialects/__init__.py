"""Deviations of other providers' batch APIs from OpenAI's, which this server can reproduce.

`--dialect azure` turns on all known deviations of one provider, and `--dialect empty-ids` a single deviation, a
*switch*. Both may be repeated and combined. Without the option, none of this code runs.

    wire      switches that rewrite the JSON of files, batches and lists
    lines     switches that rewrite the lines of result files
    windows   completion windows
    azure     Azure's paths and API key header
    dialect   the named dialects, and the switches that act elsewhere in the server

Each switch names the provider that it comes from. The sources are:

    Azure        https://learn.microsoft.com/azure/ai-services/openai/how-to/batch
    DashScope    https://help.aliyun.com/zh/model-studio/openai-compatible-batch-file-input
    Doubleword   https://docs.doubleword.ai/batches, github.com/doublewordai/control-layer (files.rs, pull 1741)
    Groq         https://console.groq.com/docs/batch, github.com/groq/groq-python (batch_list_response.py)
    Nebius       https://docs.tokenfactory.nebius.com/ai-models-inference/batch-inference
    Novita       https://novita.ai/docs/api-reference/model-apis-llm-retrieve-batch
    OGX          github.com/llamastack/llama-stack, providers/inline/batches/reference/batches.py; OGX 1.5.0
    llmock       https://pypi.org/project/llmock
    SiliconFlow  https://docs.siliconflow.cn/cn/userguide/guides/batch, .../cn/api-reference/batch/create-batch
    Together     https://docs.together.ai/reference/batch-create, .../docs/inference/batch/manage
    vLLM         github.com/vllm-project/vllm, vllm/entrypoints/openai/run_batch.py
"""

from airflow_provider_batch.local.dialects.dialect import DIALECTS, OPENAI, SWITCHES, Dialect, build_dialect

__all__ = ["DIALECTS", "OPENAI", "SWITCHES", "Dialect", "build_dialect"]
