"""The price lists of providers, and how fine-tuned models are named. Neither needs a published price."""

from __future__ import annotations

import re
from enum import StrEnum


class PriceList(StrEnum):
    """The price list of a provider. The values are the ids of providers in genai-prices."""

    OPENAI = "openai"
    GROQ = "groq"
    #: the provider's prices are unknown
    NONE = ""


#: fine-tuned models of OpenAI (`ft:base:organization:name:id`) and of Azure (`base.ft-id`)
FINE_TUNED_NAME = re.compile(r"ft:(?P<openai>[^:]+)(:.*)?|(?P<azure>[^:]+)\.ft-.+")


def is_fine_tuned(model: str) -> bool:
    """Return whether a name is that of a fine-tuned model."""
    return FINE_TUNED_NAME.fullmatch(model.lower()) is not None
