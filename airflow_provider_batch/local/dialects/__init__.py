"""How servers that speak OpenAI's batch API differ from OpenAI, and which of it this server takes on when asked.

`--dialect azure` takes on all that is known of one provider, `--dialect empty-ids` a single habit, a *switch*; both
may be repeated and mixed. Without any, nothing here runs.

    wire      switches over the JSON of files, batches and lists
    lines     switches over the lines of result files
    windows   completion windows
    azure     Azure's paths and key header
    dialect   the named dialects, and the switches that act elsewhere in the server

Each switch names the provider it was seen at:

    Azure        https://learn.microsoft.com/azure/ai-services/openai/how-to/batch
    DashScope    https://help.aliyun.com/zh/model-studio/openai-compatible-batch-file-input
    Doubleword   https://docs.doubleword.ai/batches, github.com/doublewordai/control-layer (files.rs, pull 1741)
    Groq         https://console.groq.com/docs/batch, github.com/groq/groq-python (batch_list_response.py)
    Nebius       https://docs.tokenfactory.nebius.com/ai-models-inference/batch-inference
    Novita       https://novita.ai/docs/api-reference/model-apis-llm-retrieve-batch
    SiliconFlow  https://docs.siliconflow.cn/cn/userguide/guides/batch, .../cn/api-reference/batch/create-batch
    Together     https://docs.together.ai/reference/batch-create, .../docs/inference/batch/manage
    vLLM         github.com/vllm-project/vllm, vllm/entrypoints/openai/run_batch.py
"""

from airflow_provider_batch.local.dialects.dialect import DIALECTS, OPENAI, SWITCHES, Dialect, build_dialect

__all__ = ["DIALECTS", "OPENAI", "SWITCHES", "Dialect", "build_dialect"]
