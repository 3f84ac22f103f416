"""Moderation without a model: a category is flagged if the text asks for it, and never otherwise.

`[[flag:violence]]`, or any other category by OpenAI's name (`[[flag:self-harm/intent]]`), flags the input that contains
it. Nothing is judged: a text without such a marker is flagged for nothing, however it reads, and images are not looked
at. Scores say the same as the flags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_provider_batch.local.answers.prompt import texts

#: OpenAI's categories, and whether images are judged for them too (openai SDK, `types/moderation.py`)
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
_FLAGGED, _NOT_FLAGGED = 0.99, 0.0


def moderate(parts: Sequence[Any]) -> dict[str, Any]:
    """The verdict on one input: strings, or objects with a text or an image."""
    written = list(texts(list(parts)))
    flags = set(_FLAG.findall("\n".join(written)))
    kinds = ["text"] * bool(written) + ["image"] * any(map(_is_image, parts))
    return {
        "flagged": bool(flags),
        "categories": {name: name in flags for name in _CATEGORIES},
        "category_scores": {name: _FLAGGED if name in flags else _NOT_FLAGGED for name in _CATEGORIES},
        "category_applied_input_types": {
            name: [kind for kind in kinds if kind == "text" or images] for name, images in _CATEGORIES.items()
        },
    }


def has_images(inputs: Iterable[Sequence[Any]]) -> bool:
    """Whether any part of any input is an image."""
    return any(_is_image(part) for parts in inputs for part in parts)


def _is_image(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "image_url"
