"""Token estimates against published and true counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.tokens.estimate import Encoding, encoding_of, estimate_tokens

#: tokens of sentences in o200k_base, from "Hello GPT-4o" (OpenAI, 2024-05), section "Language tokenization"
PUBLISHED_COUNTS = {
    "Hello, my name is GPT-4o. I'm a new type of language model, it's nice to meet you!": 24,
    "Olá, meu nome é GPT-4o. Sou um novo tipo de modelo de linguagem, é um prazer conhecê-lo!": 27,
    "Hola, me llamo GPT-4o. Soy un nuevo tipo de modelo de lenguaje, ¡es un placer conocerte!": 26,
    "Hallo, mein Name is GPT-4o. Ich bin ein neues KI-Sprachmodell. Es ist schön, dich kennenzulernen.": 29,
    "Ciao, mi chiamo GPT-4o. Sono un nuovo tipo di modello linguistico, piacere di conoscerti!": 28,
    "Merhaba, benim adım GPT-4o. Ben yeni bir dil modeli türüyüm, tanıştığımıza memnun oldum!": 30,
    "Xin chào, tên tôi là GPT-4o. Tôi là một loại mô hình ngôn ngữ mới, rất vui được gặp bạn!": 30,
    "こんにちは、私の名前はGPT-4oです。私は新しいタイプの言語モデルです。初めまして！": 26,
    "你好，我的名字是GPT-4o。我是一种新型的语言模型，很高兴见到你!": 24,
    "안녕하세요, 제 이름은 GPT-4o입니다. 저는 새로운 유형의 언어 모델입니다, 만나서 반갑습니다!": 27,
    "Привет, меня зовут GPT-4o. Я — новая языковая модель, приятно познакомиться!": 23,
    "سلام، اسم من جی پی تی-۴او است. من یک نوع جدیدی از مدل زبانی هستم، از ملاقات شما خوشبختم!": 32,
    "مرحبًا، اسمي جي بي تي-4o. أنا نوع جديد من نموذج اللغة، سررت بلقائك!": 26,
    "ہیلو، میرا نام جی پی ٹی-4o ہے۔ میں ایک نئے قسم کا زبان ماڈل ہوں، آپ سے مل کر اچھا لگا!": 33,
    "नमस्ते, मेरा नाम जीपीटी-4o है। मैं एक नए प्रकार का भाषा मॉडल हूँ। आपसे मिलकर अच्छा लगा!": 31,
}


@pytest.mark.parametrize(("text", "tokens"), PUBLISHED_COUNTS.items())
def test_the_estimate_of_a_sentence_in_any_language_is_not_far_below_its_published_count(
    text: str, tokens: int
) -> None:
    assert 0.75 * tokens < estimate_tokens(text) < 1.45 * tokens


def test_the_total_of_the_published_sentences_is_within_10_percent() -> None:
    assert sum(map(estimate_tokens, PUBLISHED_COUNTS)) == pytest.approx(sum(PUBLISHED_COUNTS.values()), rel=0.1)


#: texts of each kind and their true token counts, measured with tiktoken 0.14.0
TRUE_COUNTS = json.loads(Path(__file__).with_name("token_counts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("text", TRUE_COUNTS, ids=[text["kind"] for text in TRUE_COUNTS])
def test_the_estimate_of_a_text_of_800_characters_is_within_a_fifth_of_its_true_count(
    text: dict[str, Any], encoding: Encoding
) -> None:
    assert estimate_tokens(text["text"], encoding) == pytest.approx(text[encoding.value], rel=0.2)


@pytest.mark.parametrize("encoding", Encoding)
def test_the_total_of_texts_of_many_kinds_is_within_five_percent_of_the_true_count(encoding: Encoding) -> None:
    estimate = sum(estimate_tokens(text["text"], encoding) for text in TRUE_COUNTS)
    assert estimate == pytest.approx(sum(text[encoding.value] for text in TRUE_COUNTS), rel=0.05)


def test_three_consecutive_digits_are_one_token_and_so_is_a_single_digit() -> None:
    assert estimate_tokens("123 456 789 " * 50) == pytest.approx(300, rel=0.15)
    assert estimate_tokens("1 2 3 4 5 6 " * 50) == pytest.approx(600, rel=0.25)


@given(st.binary(max_size=2_000), st.sampled_from(Encoding))
def test_a_text_has_at_least_one_token_and_at_most_three_per_byte(text: bytes, encoding: Encoding) -> None:
    assert bool(text) <= estimate_tokens(text, encoding) <= 3 * len(text)


def test_the_estimate_of_a_long_text_is_the_sum_of_its_parts() -> None:
    text = "".join(text["text"] for text in TRUE_COUNTS)
    total, parts = estimate_tokens(text * 3), sum(estimate_tokens(text["text"]) for text in TRUE_COUNTS)
    assert total == pytest.approx(3 * parts, rel=0.05)


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-5-mini", Encoding.O200K),
        ("gpt-4o-mini-2024-07-18", Encoding.O200K),
        ("gpt-4.1", Encoding.O200K),
        ("o4-mini", Encoding.O200K),
        ("ft:gpt-4o:acme::abc", Encoding.O200K),
        ("my-deployment", Encoding.O200K),
        ("gpt-4", Encoding.CL100K),
        ("gpt-4-turbo", Encoding.CL100K),
        ("gpt-3.5-turbo-0125", Encoding.CL100K),
        ("ft:gpt-4:acme::abc", Encoding.CL100K),
        ("ft:gpt-3.5-turbo:acme::abc", Encoding.CL100K),
        ("text-embedding-3-small", Encoding.CL100K),
    ],
)
def test_the_name_of_a_model_determines_its_vocabulary(model: str, encoding: Encoding) -> None:
    assert encoding_of(model) is encoding


def test_only_an_empty_text_has_no_tokens() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens(b"") == 0
    for text in (" ", "a", "\x00", "\ud800", b"\xff\xfe"):
        assert estimate_tokens(text) == 1


@given(st.text())
def test_a_text_and_its_bytes_have_the_same_tokens(text: str) -> None:
    assert estimate_tokens(text) == estimate_tokens(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("ᐃᓄᐃᑦ ᐅᖃᐅᓯᖓ", id="Inuktitut"),
        pytest.param("ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", id="Cherokee"),
        pytest.param("ⵜⴰⵎⴰⵣⵉⵖⵜ ⵜⴰⵏⴰⵡⴰⵢⵜ", id="Tamazight"),
        pytest.param("ދިވެހި ބަސް", id="Dhivehi"),
        pytest.param("བོད་སྐད་ཡིན།", id="Tibetan"),
        pytest.param("አማርኛ ቋንቋ", id="Amharic"),
    ],
)
def test_scripts_that_the_vocabularies_hardly_contain_take_many_tokens(text: str, encoding: Encoding) -> None:
    size = len(text.encode())
    assert 0.3 * size <= estimate_tokens(text, encoding) <= 1.6 * size
