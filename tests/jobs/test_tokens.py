from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.jobs.tokens import MEDIA_TOKENS, estimate_tokens, read_ask

#: tokens in o200k_base, as published by OpenAI in "Hello GPT-4o" (2024-05), section "Language tokenization"
PUBLISHED = {
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


@pytest.mark.parametrize(("text", "tokens"), PUBLISHED.items())
def test_a_sentence_in_any_language_is_within_a_quarter_of_its_published_count(text, tokens):
    assert 0.75 * tokens < estimate_tokens(text) < 1.25 * tokens


def test_the_published_sentences_together_are_within_a_tenth():
    assert sum(map(estimate_tokens, PUBLISHED)) == pytest.approx(sum(PUBLISHED.values()), rel=0.1)


def test_code_has_more_tokens_than_a_fourth_of_its_characters():
    code = "for (let i = 0; i < rows.length; i++) { total += rows[i].price * (1 - rows[i].off); }\n" * 20
    assert 2.3 < len(code) / estimate_tokens(code) < 3.3


def test_only_an_empty_text_has_no_tokens():
    assert estimate_tokens("") == 0
    assert estimate_tokens(b"") == 0
    for text in (" ", "a", "\x00", "\ud800", b"\xff\xfe"):
        assert estimate_tokens(text) == 1


@given(st.text(), st.text())
def test_a_text_and_its_bytes_are_the_same_and_two_texts_have_the_tokens_of_both(one, other):
    assert estimate_tokens(one) == estimate_tokens(one.encode("utf-8", "surrogatepass"))
    assert abs(estimate_tokens(one + other) - estimate_tokens(one) - estimate_tokens(other)) <= 2


def ask(**body: Any) -> Any:
    return read_ask(json.dumps(body).encode())


TEXT = "The printer on the second floor is on fire again, please send somebody. " * 10


def test_the_prompt_is_counted_wherever_an_endpoint_has_it_and_the_json_around_it_is_not():
    tokens = estimate_tokens(TEXT)
    message = {"role": "user", "content": TEXT}
    parts = {"role": "user", "content": [{"type": "text", "text": TEXT}]}
    for body, overhead in [
        ({"input": TEXT}, 0),
        ({"input": [TEXT]}, 0),
        ({"prompt": TEXT}, 0),
        ({"instructions": TEXT}, 0),
        ({"messages": [message]}, 7),
        ({"messages": [parts]}, 7),
        ({"input": [message]}, 4),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": TEXT}]}]}, 4),
        ({"input": TEXT, "model": TEXT, "user": TEXT, "metadata": {"a": TEXT}, "stop": [TEXT]}, 0),
    ]:
        assert ask(**body).input_tokens == tokens + overhead, body
    escaped = json.dumps({"input": "\u00e9\n" * 100}).encode()
    assert read_ask(escaped).input_tokens == estimate_tokens("é\n" * 100)


def test_token_numbers_count_one_each_and_media_a_round_number():
    assert ask(input=[1, 2, 3]).input_tokens == 3
    assert ask(input=[[1, 2, 3], [4]]).input_tokens == 4
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    assert ask(messages=[{"role": "user", "content": [image]}]).input_tokens == MEDIA_TOKENS + 7


def test_schema_and_tools_are_part_of_the_input():
    schema = {"type": "json_schema", "json_schema": {"schema": {"properties": {"label": {"type": "string"}}}}}
    bare = ask(input=TEXT).input_tokens
    for key in ("response_format", "text", "tools"):
        assert ask(input=TEXT, **{key: schema}).input_tokens == bare + estimate_tokens(json.dumps(schema))


def test_the_bodys_own_limits_are_read():
    assert (ask(input="x").cap, ask(input="x").choices) == (None, 1)
    for key in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        assert ask(input="x", **{key: 7}).cap == 7
    assert ask(prompt="x", n=3).choices == 3
    assert ask(prompt="x", n="three", max_tokens="many").cap is None
