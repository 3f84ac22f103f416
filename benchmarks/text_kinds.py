"""Texts of many kinds, built from installed packages: the corpus of `benchmarks.tokens`.

Nothing is downloaded, and the same packages give the same texts. The languages come from Django's translations, which
are sentences of programs, and from the word frequencies of `wordfreq`, which become texts of random words: a tokenizer
sees one word at a time. Data is generated. Code and markup are the files of packages.
"""

from __future__ import annotations

import base64
import gettext
import importlib.util
import random
import sysconfig
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

#: approximate number of characters of each kind
SIZE = 30_000
#: number of characters of a sample
SAMPLE = 1_500
_PACKAGES = Path(sysconfig.get_path("purelib"))
#: languages of Django's translations
_MESSAGES = (
    *(
        "ar",
        "az",
        "be",
        "bg",
        "bn",
        "ca",
        "cs",
        "cy",
        "da",
        "de",
        "el",
        "eo",
        "es",
        "et",
        "eu",
        "fa",
        "fi",
        "fr",
        "ga",
        "gl",
    ),
    *(
        "he",
        "hi",
        "hr",
        "hu",
        "hy",
        "id",
        "is",
        "it",
        "ja",
        "ka",
        "kk",
        "kn",
        "ko",
        "lt",
        "lv",
        "mk",
        "ml",
        "mn",
        "mr",
        "nb",
    ),
    *(
        "ne",
        "nl",
        "pa",
        "pl",
        "pt_BR",
        "ro",
        "ru",
        "sk",
        "sl",
        "sq",
        "sr",
        "sv",
        "sw",
        "ta",
        "te",
        "th",
        "tr",
        "uk",
        "ur",
    ),
    *("uz", "vi", "zh_Hans", "zh_Hant"),
)
#: languages of the word frequencies
_WORDS = (
    *(
        "ar",
        "bg",
        "bn",
        "ca",
        "cs",
        "da",
        "de",
        "el",
        "en",
        "es",
        "fa",
        "fi",
        "fil",
        "fr",
        "he",
        "hi",
        "hu",
        "id",
        "is",
    ),
    *("it", "ja", "ko", "lt", "lv", "mk", "ms", "nb", "nl", "pl", "pt", "ro", "ru", "sh", "sk", "sl", "sv", "ta", "tr"),
    *("uk", "ur", "vi", "zh"),
)
#: patterns of files in the packages
_FILES = {
    "Python": "airflow/**/*.py",
    "Cython": "**/*.pyx",
    "C headers": "**/*.h",
    "C": "**/*.c",
    "Fortran": "**/*.f90",
    "Protocol Buffers": "**/*.proto",
    "JavaScript": "sphinx/**/*.js",
    "JavaScript of Django": "django/contrib/admin/static/**/*.js",
    "minified JavaScript": "airflow/ui/dist/assets/*.js",
    "CSS": "django/**/*.css",
    "HTML templates": "django/**/*.html",
    "SVG": "**/*.svg",
    "JSON": "airflow/**/*.json",
    "reStructuredText": "**/*.rst",
    "Markdown": "**/*.md",
    "LaTeX": "sphinx/**/*.sty",
    "YAML": "airflow/**/*.yaml",
    "licences": "**/LICENSE*",
    "descriptions": "*.dist-info/METADATA",
    "checksums of files": "*.dist-info/RECORD",
    "translation files": "django/conf/locale/de/LC_MESSAGES/django.po",
    "shell": "**/*.sh",
    "stylesheets of Matplotlib": "matplotlib/**/*.mplstyle",
}


def text_kinds() -> dict[str, list[str]]:
    """Return samples of about `SAMPLE` characters for each kind of text."""
    kinds = {}
    for language in _MESSAGES:
        kinds[f"messages, {language}"] = _messages(language)
    for language in _WORDS:
        kinds[f"words, {language}"] = _words(language)
    for name, pattern in _FILES.items():
        kinds[name] = _files(pattern)
    for name, record in _RECORDS.items():
        kinds[name] = _repeat(name, record)
    return {name: _samples(text) for name, text in kinds.items() if text}


def _samples(text: str) -> list[str]:
    pieces = [text[start : start + SAMPLE] for start in range(0, len(text), SAMPLE)]
    return [piece for piece in pieces if len(piece) > SAMPLE // 2 or len(pieces) == 1]


def _messages(language: str) -> str:
    spec = importlib.util.find_spec("django")
    if spec is None or spec.origin is None:
        return ""
    texts: dict[str, None] = {}
    for path in sorted(Path(spec.origin).parent.glob(f"**/locale/{language}/LC_MESSAGES/*.mo")):
        with path.open("rb") as file:
            for key, text in gettext.GNUTranslations(file)._catalog.items():  # type: ignore[attr-defined]
                if key and text != key and len(text) > 20:
                    texts[text] = None
    return "\n".join(texts)[:SIZE]


def _words(language: str) -> str:
    """Return a text of random words, as frequent as in the language, in sentences."""
    if importlib.util.find_spec("wordfreq") is None:
        return ""
    import wordfreq

    frequencies = wordfreq.get_frequency_dict(language, "small")
    random_ = random.Random(language)
    words = iter(random_.choices(list(frequencies), list(frequencies.values()), k=SIZE))
    sentences: list[str] = []
    size, gap, stop = 0, "" if language in ("ja", "zh") else " ", "。" if language in ("ja", "zh") else "."
    while size < SIZE:
        sentence = [next(words) for _ in range(random_.randint(5, 18))]
        if gap:
            sentence[0] = sentence[0].capitalize()
        if len(sentence) > 10:
            sentence[6] += "," if gap else "、"
        sentences.append(gap.join(sentence) + stop)
        size += len(sentences[-1]) + 1
    return gap.join(sentences)


def _files(pattern: str) -> str:
    paths = sorted(_PACKAGES.glob(pattern))
    django = importlib.util.find_spec("django")
    sphinx = importlib.util.find_spec("sphinx")
    for spec in (django, sphinx):
        if not paths and spec is not None and spec.origin is not None:
            paths = sorted(Path(spec.origin).parents[1].glob(pattern))
    random.Random(pattern).shuffle(paths)
    text = ""
    for path in paths:
        if len(text) >= SIZE:
            break
        content = path.read_text(encoding="utf-8", errors="replace")
        start = len(content) // 3 if len(content) > 3 * SAMPLE else 0
        text += content[start : start + 2 * SAMPLE]
    return text


def _repeat(name: str, record: Callable[[random.Random], str]) -> str:
    random_ = random.Random(name)
    lines: list[str] = []
    size = 0
    while size < SIZE:
        lines.append(record(random_))
        size += len(lines[-1]) + 1
    return "\n".join(lines)


_NOUNS = [
    "Pump",
    "Valve",
    "Bracket",
    "Sensor",
    "Adapter",
    "Cable",
    "Charger",
    "Kettle",
    "Blender",
    "Drill",
    "Hammer",
    "Lamp",
    "Chair",
    "Desk",
    "Backpack",
    "Jacket",
    "Sneakers",
    "Shirt",
    "Monitor",
    "Keyboard",
    "Router",
    "Printer",
    "Filter",
    "Gasket",
    "Bearing",
    "Hose",
    "Clamp",
    "Switch",
    "Relay",
    "Battery",
]
_BRANDS = [
    "Bosch",
    "Makita",
    "Philips",
    "Samsung",
    "LG",
    "Sony",
    "Nike",
    "Adidas",
    "IKEA",
    "Tefal",
    "DeWalt",
    "Anker",
    "Logitech",
    "Garmin",
    "Xiaomi",
    "Brother",
]
_COLORS = ["black", "white", "red", "blue", "green", "grey", "silver", "navy", "beige", "anthracite"]
_NAMES = [
    "Anna Müller",
    "José García",
    "Li Wei",
    "Olena Shevchenko",
    "John Smith",
    "Marie Dubois",
    "Ahmed Hassan",
    "Priya Patel",
    "Kenji Sato",
]
_CITIES = [
    "Berlin",
    "Paris",
    "Kyiv",
    "Tokyo",
    "London",
    "Madrid",
    "Cairo",
    "Mumbai",
    "Chicago",
    "Toronto",
    "Osaka",
    "Leeds",
    "Graz",
    "Lyon",
    "Turin",
]
_WORDS_EN = [
    "the",
    "order",
    "arrived",
    "late",
    "and",
    "box",
    "was",
    "damaged",
    "but",
    "support",
    "sent",
    "new",
    "one",
    "within",
    "two",
    "days",
    "so",
    "overall",
    "I",
    "am",
    "quite",
    "happy",
    "with",
    "it",
    "would",
    "buy",
    "again",
    "delivery",
    "fast",
    "price",
    "fair",
    "quality",
    "better",
    "than",
    "expected",
    "battery",
    "lasts",
    "long",
    "screen",
    "bright",
    "sound",
    "ok",
]
_SLANG = [
    "lol",
    "omg",
    "tbh",
    "ngl",
    "idk",
    "wtf",
    "smh",
    "u",
    "r",
    "ur",
    "gonna",
    "wanna",
    "kinda",
    "sooo",
    "haha",
    "hahaha",
    "yeahhh",
    "plz",
    "thx",
    "pls",
    "nvm",
    "bruh",
    "fr",
    "lowkey",
    "imo",
]
_EMOJI = "😀😂🤣😍🙏👍🔥💯🎉😭🥺✨❤️🚀👀🤔😎🙌💪🎶🌟☀️🌧️🍕🍣⚽🏀🐶🐱🇩🇪🇺🇦🇯🇵👩‍💻👨‍👩‍👧‍👦🏳️‍🌈"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_EPOCH = datetime(2026, 1, 1)


def _bytes(random_: random.Random, size: int) -> bytes:
    return random_.randbytes(size)


def _choices(random_: random.Random, alphabet: str, low: int, high: int) -> str:
    return "".join(random_.choices(alphabet, k=random_.randint(low, high)))


def _time(random_: random.Random) -> datetime:
    return _EPOCH + timedelta(seconds=random_.random() * 3e7)


def _sentence(random_: random.Random) -> str:
    return " ".join(random_.choices(_WORDS_EN, k=random_.randint(6, 15))).capitalize() + "."


def _price(random_: random.Random) -> str:
    return f"{random_.uniform(1, 900):.2f}"


def _code(random_: random.Random) -> str:
    return f"{_choices(random_, _LETTERS.upper(), 2, 3)}-{random_.randint(100, 99_999)}"


def _product(random_: random.Random) -> str:
    return (
        f"{random_.choice(_BRANDS)} {_code(random_)} {random_.choice(_NOUNS)} {random_.randint(5, 2_000)}W "
        f"{random_.choice(_COLORS)}, {random_.randint(10, 90)}x{random_.randint(10, 90)}cm, EAN {random_.randint(10**12, 10**13)}"
    )


def _slug(random_: random.Random) -> str:
    return "-".join(random_.choices(_WORDS_EN, k=3))


def _url(random_: random.Random) -> str:
    return (
        f"https://www.{_slug(random_)}.{random_.choice(['com', 'de', 'io', 'co.uk'])}/{_slug(random_)}/{random_.randint(1, 10**6)}"
        f"?utm_source={random_.choice(_WORDS_EN)}&ref={_choices(random_, _LETTERS + '0123456789', 8, 12)}"
    )


def _json_record(random_: random.Random) -> str:
    return (
        f'{{"id": {random_.randint(1, 10**7)}, "sku": "{_code(random_)}", "name": "{random_.choice(_NOUNS)}", '
        f'"price": {_price(random_)}, "created_at": "{_time(random_).isoformat(timespec="milliseconds")}Z", '
        f'"tags": ["{random_.choice(_COLORS)}", "{random_.choice(_WORDS_EN)}"], "in_stock": {random_.choice(["true", "false"])}}}'
    )


def _identifier(random_: random.Random) -> str:
    return "".join(word.capitalize() for word in random_.choices(_NOUNS, k=3))


_RECORDS: dict[str, Callable[[random.Random], str]] = {
    "base64": lambda r: base64.b64encode(_bytes(r, 57)).decode(),
    "base64 in one line": lambda r: base64.b64encode(_bytes(r, 1_500)).decode(),
    "hexadecimal digests": lambda r: _bytes(r, 32).hex(),
    "hexadecimal dumps": lambda r: _bytes(r, 16).hex(" "),
    "UUIDs": lambda r: str(uuid.UUID(bytes=_bytes(r, 16), version=4)),
    "random letters": lambda r: _choices(r, _LETTERS, 5, 12),
    "random capitals and digits": lambda r: _choices(r, _LETTERS.upper() + "0123456789", 8, 16),
    "passwords": lambda r: _choices(r, _LETTERS + _LETTERS.upper() + "0123456789!$%&/()=?+*#-_.:,;", 10, 20),
    "DNA": lambda r: _choices(r, "ACGT", 60, 60),
    "URLs": _url,
    "percent-encoded URLs": lambda r: (
        f"https://example.com/search?q={quote(r.choice(_NAMES))}&city={quote('Köln ' + r.choice(_CITIES))}"
    ),
    "e-mail addresses": lambda r: (
        f"{r.choice(_WORDS_EN)}.{r.choice(_NOUNS).lower()}{r.randint(1, 99)}@{r.choice(_CITIES).lower()}.com"
    ),
    "IP addresses": lambda r: ".".join(str(r.randint(0, 255)) for _ in range(4)),
    "file paths": lambda r: (
        f"/home/{r.choice(_WORDS_EN)}/{_slug(r)}/src/{_identifier(r)}/{r.choice(_WORDS_EN)}_{r.randint(1, 99)}.tar.gz"
    ),
    "product lines": _product,
    "product titles": lambda r: (
        f"{r.choice(_BRANDS)} {r.choice(_NOUNS)} {r.choice(_NOUNS)} {r.choice(_COLORS).title()} {r.randint(1, 64)} Pack"
    ),
    "order lines": lambda r: f"{_code(r)};{r.choice(_NAMES)};{r.randint(1, 20)};{_price(r)};EUR;{_time(r):%d.%m.%Y}",
    "CSV of numbers": lambda r: ",".join(f"{r.gauss(0, 100):.3f}" for _ in range(8)),
    "CSV of integers": lambda r: ",".join(str(r.randint(0, 10**6)) for _ in range(8)),
    "TSV of names": lambda r: (
        f"{r.randint(1, 9_999)}\t{r.choice(_NAMES)}\t{r.choice(_CITIES)}\t{_time(r):%Y-%m-%d}\t{_price(r)}"
    ),
    "floats": lambda r: f"[{r.random()!r}, {r.random()!r}, {r.gauss(0, 1)!r}]",
    "timestamps": lambda r: _time(r).isoformat(),
    "access logs": lambda r: (
        f"{r.randint(1, 255)}.{r.randint(0, 255)}.0.{r.randint(0, 255)} - - [{_time(r):%d/%b/%Y:%H:%M:%S} +0000] "
        f'"GET /{_slug(r)}?id={r.randint(1, 9_999)} HTTP/1.1" 200 {r.randint(100, 99_999)} "-" "Mozilla/5.0 (X11; Linux x86_64)"'
    ),
    "application logs": lambda r: (
        f"{_time(r):%Y-%m-%d %H:%M:%S},{r.randint(0, 999):03} {r.choice(['INFO', 'WARN', 'ERROR'])} "
        f"[worker-{r.randint(1, 16)}] com.acme.{r.choice(_WORDS_EN)}.{_identifier(r)} - {_sentence(r)} took={r.randint(1, 999)}ms"
    ),
    "stack traces": lambda r: (
        f"    at com.acme.{r.choice(_WORDS_EN)}.{_identifier(r)}.{r.choice(_WORDS_EN)}({_identifier(r)}.java:{r.randint(1, 900)})"
    ),
    "JSON records": _json_record,
    "JSON in one line": lambda r: _json_record(r).replace(": ", ":").replace(", ", ","),
    "JSON with escapes": lambda r: (
        '{"name": "' + r.choice(_NAMES).encode("ascii", "backslashreplace").decode() + '\\n\\u00e9\\u4e2d"}'
    ),
    "XML": lambda r: (
        f'<item id="{r.randint(1, 9_999)}"><name>{r.choice(_NOUNS)}</name><price currency="EUR">{_price(r)}</price></item>'
    ),
    "HTML of a shop": lambda r: (
        f'<li class="product-card col-md-4"><a href="/{_slug(r)}"><img src="/img/{r.randint(1, 9_999)}.jpg" '
        f'alt="{r.choice(_NOUNS)}"></a><span class="price">&euro;&nbsp;{_price(r)}</span></li>'
    ),
    "Markdown tables": lambda r: f"| {r.choice(_NOUNS)} | {r.choice(_COLORS)} | {r.randint(1, 999)} | {_price(r)} |",
    "tables with spaces": lambda r: (
        f"{r.choice(_NOUNS):<20}{r.choice(_CITIES):<15}{r.randint(1, 9_999):>8}{_price(r):>12}"
    ),
    "SQL": lambda r: (
        f"INSERT INTO orders (id, {r.choice(_WORDS_EN)}_at, status) VALUES ({r.randint(1, 9_999)}, '{_time(r)}', '{r.choice(_COLORS)}');"
    ),
    "settings": lambda r: (
        f"{r.choice(_WORDS_EN)}.{r.choice(_WORDS_EN)}_{r.choice(_COLORS)} = {r.choice(['true', 'false', '10', '3.5'])}"
    ),
    "environment variables": lambda r: f"{r.choice(_NOUNS).upper()}_{r.choice(_BRANDS).upper()}_URL={_url(r)}",
    "camel case": lambda r: f"{_identifier(r)} {r.choice(_WORDS_EN)}{_identifier(r)}",
    "versions": lambda r: (
        f"{r.choice(_NOUNS).lower()}-{r.choice(_WORDS_EN)}=={r.randint(0, 30)}.{r.randint(0, 20)}.{r.randint(0, 9)}"
    ),
    "version hashes": lambda r: (
        f"sha256:{_bytes(r, 32).hex()} {r.choice(_NOUNS).lower()}@{r.randint(1, 9)}.{r.randint(0, 9)}"
    ),
    "phone numbers": lambda r: (
        f"+{r.randint(1, 99)} {r.randint(100, 999)} {r.randint(1_000, 9_999)} {r.randint(10, 99)}"
    ),
    "addresses": lambda r: (
        f"{r.choice(_NAMES)}, {r.choice(_NOUNS)}straße {r.randint(1, 200)}, {r.randint(10_000, 99_999)} {r.choice(_CITIES)}"
    ),
    "names": lambda r: r.choice(_NAMES) + " " + r.choice(_CITIES),
    "reviews": lambda r: " ".join(_sentence(r) for _ in range(4)),
    "capitals": lambda r: _sentence(r).upper(),
    "title case": lambda r: _sentence(r).title(),
    "chat": lambda r: (
        f"{r.choice(_SLANG)} {' '.join(r.choices(_WORDS_EN, k=4))} {r.choice(_SLANG)}{r.choice(['', '!!', '...', '??'])}"
    ),
    "chat with emoji": lambda r: f"{' '.join(r.choices(_WORDS_EN, k=5))} {_choices(r, _EMOJI, 1, 4)}",
    "emoji": lambda r: _choices(r, _EMOJI, 3, 12),
    "hashtags": lambda r: (
        " ".join(f"#{r.choice(_WORDS_EN)}{r.choice(_NOUNS)}" for _ in range(4))
        + f" @{r.choice(_WORDS_EN)}_{r.randint(1, 99)}"
    ),
    "mixed scripts": lambda r: f"{r.choice(_NAMES)} – Привет, мир! 你好世界 こんにちは {_sentence(r)} مرحبا",
    "English with German": lambda r: f"{_sentence(r)} Die Lieferung kam zu spät, die Verpackung war beschädigt.",
    "chemistry and units": lambda r: (
        f"C{r.randint(1, 30)}H{r.randint(1, 60)}O{r.randint(1, 9)}, {_price(r)} mg/kg, pH {r.uniform(1, 14):.1f}, ±{r.random():.2f} µm, 25 °C"
    ),
    "formulas": lambda r: (
        f"$\\frac{{{r.choice(_LETTERS)}_{r.randint(1, 9)}}}{{\\sqrt{{{r.choice(_LETTERS)}^2 + \\beta}}}} \\leq \\sum_{{i=1}}^{{n}} x_i$"
    ),
    "chess": lambda r: " ".join(
        f"{n}. {r.choice('NBRQK')}{r.choice('abcdefgh')}{r.randint(1, 8)} {r.choice('abcdefgh')}{r.randint(1, 8)}"
        for n in range(1, 9)
    ),
    "subtitles": lambda r: (
        f"{r.randint(1, 999)}\n00:{r.randint(10, 59)}:{r.randint(10, 59)},{r.randint(100, 999)} --> 00:59:59,999\n{_sentence(r)}\n"
    ),
    "medical codes": lambda r: (
        f"{r.choice('ABCDEFGHIJ')}{r.randint(10, 99)}.{r.randint(0, 9)} {r.choice(_NOUNS)} NOS; CPT {r.randint(10_000, 99_999)}; LOINC {r.randint(1_000, 99_999)}-{r.randint(0, 9)}"
    ),
    "JSON Web Tokens": lambda r: (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + base64.urlsafe_b64encode(_bytes(r, 90)).decode()
    ),
    "box drawing": lambda r: f"│ {r.choice(_NOUNS)} ├──{'─' * r.randint(3, 20)}┤ {r.randint(1, 99)} ░▒▓█",
}
