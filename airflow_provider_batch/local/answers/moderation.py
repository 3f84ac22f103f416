"""Moderation without a model: markers in the text decide which categories are flagged.

An input that contains `[[flag:violence]]`, or the same marker with another of OpenAI's category names
(`[[flag:self-harm/intent]]`), is flagged for that category. Nothing else is evaluated: a text without a marker is never
flagged, and images are ignored. A flagged category has the score 0.99, every other category 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_provider_batch.local.answers.prompt import texts

#: OpenAI's categories, and whether they also apply to images (openai SDK, `types/moderation.py`)
_CATEGORIES = {
    "harassment": False,
    "harassment/threatening": False,
    "hate": False,
    "hate/threatening": False,
    "illicit": False,
    "illicit/violent": False,
    "self-harm": True,
    "self-harm/instructions": True,
    "self-harm/intent": True,
    "sexual": True,
    "sexual/minors": False,
    "violence": True,
    "violence/graphic": True,
}
_FLAG = re.compile(rf"\[\[flag:({'|'.join(map(re.escape, _CATEGORIES))})\]\]")
_FLAGGED_SCORE, _UNFLAGGED_SCORE = 0.99, 0.0


def moderate(parts: Sequence[Any]) -> dict[str, Any]:
    """Return the result for one input, given as its parts: strings, or objects with a text or an image."""
    input_texts = list(texts(list(parts)))
    flags = set(_FLAG.findall("\n".join(input_texts)))
    kinds = ["text"] * bool(input_texts) + ["image"] * any(map(_is_image, parts))
    return {
        "flagged": bool(flags),
        "categories": {name: name in flags for name in _CATEGORIES},
        "category_scores": {name: _FLAGGED_SCORE if name in flags else _UNFLAGGED_SCORE for name in _CATEGORIES},
        "category_applied_input_types": {
            name: [kind for kind in kinds if kind == "text" or images] for name, images in _CATEGORIES.items()
        },
    }


def has_images(inputs: Iterable[Sequence[Any]]) -> bool:
    """Return whether any part of any input is an image."""
    return any(_is_image(part) for parts in inputs for part in parts)


def _is_image(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "image_url"
