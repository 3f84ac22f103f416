"""Types that pydantic understands, as JSON Schema, and the validation that pydantic would do with them.

A job outlives the process that knows its classes, so the JSON Schema of a pydantic type carries what pydantic validates
with: its core schema, reduced to JSON, under the keyword `x-pydantic`. `AnswerValidator` builds a validator from it. It
accepts what the type itself accepts, coercions, aliases, unions and defaults included, with these differences:

* The author's own code does not run: validators, default factories other than `list` and the like, discriminator
  functions, `Enum._missing_`.
* A null for a field that has a default means that the field is absent.
* Objects become dicts whose keys are the names in the JSON Schema.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Iterable
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from typing import Any

import jsonschema_rs
import pydantic
from pydantic_core import (
    PydanticSerializationError,
    PydanticUseDefault,
    SchemaError,
    SchemaValidator,
    ValidationError,
    core_schema,
    to_jsonable_python,
)

from airflow_provider_batch.core.schema.convert import IP_FORMATS
from airflow_provider_batch.core.schema.keywords import PYDANTIC_KEYWORD
from airflow_provider_batch.core.schema.schema_generator import AuthorSchema

_Core = dict[str, Any]


def is_type(source: Any) -> bool:
    """Return whether this is a type, in any form that an annotation may have, or a TypeAdapter."""
    return (
        isinstance(source, (type, types.GenericAlias, types.UnionType, typing.NewType, pydantic.TypeAdapter))
        or typing.get_origin(source) is not None
        or type(source).__name__ == "TypeAliasType"
    )


def type_to_json_schema(type_: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type by alias, for validation, with its core schema.

    :raises pydantic.errors.PydanticUserError: if pydantic cannot create a schema of the type.
    """
    adapter = type_ if isinstance(type_, pydantic.TypeAdapter) else pydantic.TypeAdapter(type_)
    schema = adapter.json_schema(by_alias=True, mode="validation", schema_generator=AuthorSchema)
    reducer = _Reducer()
    reduced = reducer.reduce(adapter.core_schema)
    try:
        build_validator(reduced)
    except (SchemaError, ValidationError, TypeError, KeyError):
        return schema  # the answers are then judged by the JSON Schema alone
    return {**schema, PYDANTIC_KEYWORD: {"schema": reduced, "validators": sorted(reducer.validators)}}


#: keys of a core schema that are kept as they are
_CONSTRAINTS = (
    *("strict", "gt", "ge", "lt", "le", "multiple_of", "max_digits", "decimal_places", "allow_inf_nan"),
    *("min_length", "max_length", "strip_whitespace", "to_lower", "to_upper", "coerce_numbers_to_str", "regex_engine"),
    *("now_op", "now_utc_offset", "tz_constraint", "microseconds_precision", "val_temporal_unit", "version"),
    *("allowed_schemes", "host_required", "default_host", "default_port", "default_path", "union_mode", "mode"),
    *("ascii_only", "fail_fast", "variadic_item_index", "schema_ref", "discriminator", "auto_collapse"),
)
#: keys of a configuration that change what is valid
_CONFIG = (
    *("strict", "extra_fields_behavior", "str_max_length", "str_min_length", "str_strip_whitespace", "str_to_lower"),
    *("str_to_upper", "allow_inf_nan", "coerce_numbers_to_str", "regex_engine", "val_temporal_unit"),
)
#: schemas that stand for the schema under one of their keys
_WRAPPERS = {
    "function-after": "schema",
    "function-before": "schema",
    "function-wrap": "schema",
    "custom-error": "schema",
    "lax-or-strict": "lax_schema",
    "json-or-python": "json_schema",
}
_LEAVES = frozenset(
    [
        "any",
        "none",
        "bool",
        "int",
        "float",
        "decimal",
        "str",
        "date",
        "time",
        "datetime",
        "timedelta",
        "url",
        "multi-host-url",
        "uuid",
        "definition-ref",
    ]
)


_INLINE_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.VERBOSE: "x", re.ASCII: "a"}
#: default factories that return an empty value, which is kept as the default
_EMPTY_FACTORIES = (list, dict, set, frozenset, tuple, str)


#: by the functions with which pydantic validates texts, the formats that they stand for
_FUNCTION_FORMATS = {
    "pydantic.networks.EmailStr._validate": "email",
    **{
        f"pydantic.networks.IPvAny{kind.title()}._validate": f"ipvany{kind}"
        for kind in ("address", "interface", "network")
    },
    **{
        f"pydantic._internal._validators.ip_v{version}_{kind}_validator": f"ipv{version}{kind.removeprefix('address')}"
        for version in (4, 6)
        for kind in ("address", "interface", "network")
    },
}


def _function_name(entry: Any) -> str:
    """Return the module and the name of the function of a core schema, or "" if it has none."""
    function = entry.get("function") if isinstance(entry, dict) else None
    if function is None:
        return ""
    return f"{getattr(function, '__module__', None)}.{getattr(function, '__qualname__', '')}"


class _Reducer:
    """Reduces one core schema to JSON."""

    def __init__(self) -> None:
        #: names that do not change from process to process, by the references of the core schema
        self._names: dict[str, str] = {}
        #: names of the author's own functions, which do not run
        self.validators: set[str] = set()

    def reduce(self, core: Any) -> _Core:
        """Return the schema without functions and classes. What cannot be reduced accepts any value."""
        kind = core["type"]
        self._note_function(core.get("function"))
        format = _FUNCTION_FORMATS.get(_function_name(core.get("function")))
        if format is not None:
            return self._with_ref(core, {"type": "format", "format": format})
        if kind in _WRAPPERS:
            return self._with_ref(core, self.reduce(core[_WRAPPERS[kind]]))
        if kind == "model" and core.get("root_model"):
            return self._with_ref(core, self.reduce(core["schema"]))
        method = getattr(self, f"_reduce_{kind.replace('-', '_')}", None)
        if method is not None:
            return self._with_ref(core, method(core))
        if kind not in _LEAVES:
            return {"type": "any"}
        return self._with_ref(core, self._constraints(core))

    def _note_function(self, entry: Any) -> None:
        name = _function_name(entry)
        if name and not name.startswith("pydantic"):
            function = entry["function"]
            self.validators.add(getattr(function, "__qualname__", type(function).__qualname__))

    def _with_ref(self, core: _Core, reduced: _Core) -> _Core:
        return {**reduced, "ref": self._name(core["ref"])} if "ref" in core else reduced

    def _name(self, ref: str) -> str:
        return self._names.setdefault(ref, f"type{len(self._names)}")

    def _constraints(self, core: _Core) -> _Core:
        result = {"type": core["type"], **{key: _to_json(core[key]) for key in _CONSTRAINTS if key in core}}
        if "schema_ref" in core:
            result["schema_ref"] = self._name(core["schema_ref"])
        pattern = core.get("pattern")
        if isinstance(pattern, str):
            result["pattern"] = pattern
        elif pattern is not None:
            # pydantic matches a compiled pattern with the module `re`, whatever the configured engine
            flags = "".join(letter for flag, letter in _INLINE_FLAGS.items() if pattern.flags & flag)
            result |= {
                "pattern": f"(?{flags}){pattern.pattern}" if flags else pattern.pattern,
                "regex_engine": "python-re",
            }
        return result

    def _reduce_bytes(self, core: _Core) -> _Core:
        # the text stays as the answer has it; the column decides what it encodes
        return {**self._constraints(core), "type": "str"}

    def _reduce_enum(self, core: _Core) -> _Core:
        return {"type": "enum", "values": [_to_json(item) for item in core["members"]], **_pick(core, "sub_type")}

    def _reduce_literal(self, core: _Core) -> _Core:
        return {"type": "literal", "expected": [_to_json(item) for item in core["expected"]]}

    def _reduce_nullable(self, core: _Core) -> _Core:
        return {"type": "nullable", "schema": self.reduce(core["schema"])}

    def _reduce_json(self, core: _Core) -> _Core:
        return {"type": "json-text", "schema": self.reduce(core.get("schema", {"type": "any"}))}

    def _reduce_chain(self, core: _Core) -> _Core:
        return self.reduce(core["steps"][0])

    def _reduce_default(self, core: _Core) -> _Core:
        result: _Core = {"type": "default", "schema": self.reduce(core["schema"])}
        if "default" in core:
            with suppress(PydanticSerializationError):
                result["default"] = _to_json(core["default"])
        elif core.get("default_factory") in _EMPTY_FACTORIES:
            result["default"] = _to_json(core["default_factory"]())
        return result

    def _reduce_list(self, core: _Core) -> _Core:
        return {**self._constraints(core), "items_schema": self.reduce(core.get("items_schema", {"type": "any"}))}

    _reduce_set = _reduce_frozenset = _reduce_list

    def _reduce_generator(self, core: _Core) -> _Core:
        return {**self._reduce_list(core), "type": "list"}

    def _reduce_tuple(self, core: _Core) -> _Core:
        return {**self._constraints(core), "items_schema": [self.reduce(item) for item in core["items_schema"]]}

    def _reduce_dict(self, core: _Core) -> _Core:
        keys = ("keys_schema", "values_schema")
        return {**self._constraints(core), **{key: self.reduce(core[key]) for key in keys if key in core}}

    def _reduce_union(self, core: _Core) -> _Core:
        choices = [choice[0] if isinstance(choice, tuple) else choice for choice in core["choices"]]
        return {**self._constraints(core), "choices": [self.reduce(choice) for choice in choices]}

    def _reduce_tagged_union(self, core: _Core) -> _Core:
        if callable(core["discriminator"]):
            choices = [choice for choice in core["choices"].values() if isinstance(choice, dict)]
            return {"type": "union", "choices": [self.reduce(choice) for choice in choices]}
        tags = [[_to_json(tag), self.reduce(choice)] for tag, choice in core["choices"].items()]
        return {"type": "tagged-union", "discriminator": core["discriminator"], "tags": tags}

    def _reduce_definitions(self, core: _Core) -> _Core:
        definitions = [self.reduce(definition) for definition in core["definitions"]]
        return {"type": "definitions", "schema": self.reduce(core["schema"]), "definitions": definitions}

    def _reduce_model(self, core: _Core) -> _Core:
        fields = core["schema"]
        while fields["type"] in _WRAPPERS:
            self._note_function(fields.get("function"))
            fields = fields[_WRAPPERS[fields["type"]]]
        if fields["type"] == "definitions":
            return {
                "type": "definitions",
                "schema": self._reduce_model({**core, "schema": fields["schema"]}),
                "definitions": [self.reduce(definition) for definition in fields["definitions"]],
            }
        return self._reduce_fields(fields, core.get("config", {}))

    _reduce_dataclass = _reduce_model

    def _reduce_typed_dict(self, core: _Core) -> _Core:
        return self._reduce_fields(core, core.get("config", {}))

    def _reduce_named_tuple(self, core: _Core) -> _Core:
        fields = [(field["name"], self.reduce(field["schema"])) for field in core["fields"]]
        if any(field["type"] == "default" for _, field in fields):
            return {"type": "any"}
        by_name = {name: {"schema": field, "required": True} for name, field in fields}
        in_order = {"type": "tuple", "items_schema": [field for _, field in fields]}
        return {"type": "union", "choices": [in_order, {"type": "typed-dict", "fields": by_name}]}

    def _reduce_fields(self, core: _Core, config: _Core) -> _Core:
        fields = core["fields"]
        named = fields.items() if isinstance(fields, dict) else [(field["name"], field) for field in fields]
        result: _Core = {
            "type": "typed-dict",
            "fields": dict(
                self._reduce_field(name, field, config, core)
                for name, field in named
                if field.get("init", True) is not False
            ),
            "config": {key: _to_json(config[key]) for key in _CONFIG if key in config},
        }
        extra = core.get("extra_behavior") or core.get("extra")
        if extra is not None:
            result["extra_behavior"] = extra
        if "extras_schema" in core:
            result["extras_schema"] = self.reduce(core["extras_schema"])
        return result

    def _reduce_field(self, name: str, field: _Core, config: _Core, core: _Core) -> tuple[str, _Core]:
        alias = field.get("validation_alias", [])
        paths = [[alias]] if isinstance(alias, str) else alias if alias and isinstance(alias[0], list) else [alias]
        paths = [path for path in paths if path]
        json_name = next((path[0] for path in paths if len(path) == 1), name)
        if config.get("validate_by_name") or config.get("populate_by_name"):
            paths.append([name])
        schema = self.reduce(field["schema"])
        required = schema["type"] != "default" and field.get("required", core.get("total", True))
        return json_name, {"schema": schema, "required": required, **({"aliases": paths} if paths else {})}


def _pick(core: _Core, *keys: str) -> _Core:
    return {key: core[key] for key in keys if key in core}


def _to_json(value: Any) -> Any:
    """Return a value of a schema as JSON. A member of an enum is its value."""
    return to_jsonable_python(value.value if isinstance(value, Enum) else value)


#: types for which pydantic accepts and keeps every value that their JSON Schema allows
_PLAIN = frozenset(
    (
        *("none", "bool", "int", "float", "str", "literal", "enum", "nullable", "list", "union", "typed-dict"),
        *("default", "definitions", "definition-ref", "format"),
    )
)
#: what changes a value, or forbids what the JSON Schema allows
_NOT_PLAIN = frozenset(("strict", "pattern", "strip_whitespace", "to_lower", "to_upper", "extras_schema"))


def is_plain(reduced: Any) -> bool:
    """Return whether an answer that the JSON Schema of a type allows is what pydantic would make of it."""
    if isinstance(reduced, list):
        return all(map(is_plain, reduced))
    if reduced["type"] not in _PLAIN or reduced.keys() & _NOT_PLAIN or reduced.get("default") is not None:
        return False
    if any(value and key != "extra_fields_behavior" for key, value in reduced.get("config", {}).items()):
        return False
    fields = reduced.get("fields", {})
    # an answer may use any of several aliases
    if any(field.get("aliases", [[name]]) != [[name]] for name, field in fields.items()):
        return False
    parts = [reduced[key] for key in ("schema", "items_schema", "choices", "definitions") if key in reduced]
    return is_plain([field["schema"] for field in fields.values()]) and all(map(is_plain, parts))


class AnswerValidator:
    """Validates answers as the pydantic type does that a JSON Schema comes from."""

    def __init__(self, reduced: _Core) -> None:
        """Build the validator. Raises SchemaError if the installed pydantic does not know the schema."""
        self._validator = build_validator(reduced)

    def validate(self, text: str | bytes) -> Any:
        """Return the value of a JSON text, as JSON, with coercions and defaults. Decimals stay exact.

        :raises ValidationError: if the type rejects it.
        """
        return _to_json_value(self._validator.validate_json(text))


def _to_json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _to_json_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is not finite, or too large for a float")
    if value is None or isinstance(value, str | int | float | Decimal):
        return value
    return to_jsonable_python(value)


def build_validator(reduced: _Core) -> SchemaValidator:
    """Return a validator for a core schema that was reduced to JSON."""
    return SchemaValidator(_expand(reduced))


def _expand(reduced: _Core) -> Any:
    """Return the core schema of a reduced one."""
    kind = reduced["type"]
    expanded = _EXPANSIONS[kind](reduced) if kind in _EXPANSIONS else _expand_parts(reduced)
    if "ref" in reduced and "ref" not in expanded:
        expanded = {**expanded, "ref": reduced["ref"]}
    return expanded


def _expand_parts(reduced: _Core) -> _Core:
    result = dict(reduced)
    for key in ("schema", "items_schema", "keys_schema", "values_schema"):
        if isinstance(result.get(key), dict):
            result[key] = _expand(result[key])
    for key in ("items_schema", "choices", "definitions"):
        if isinstance(result.get(key), list):
            result[key] = [_expand(item) for item in result[key]]
    if reduced["type"] in _COMPARABLE:
        read = SchemaValidator({"type": reduced["type"]}).validate_python
        result |= {key: read(result[key]) for key in ("gt", "ge", "lt", "le", "multiple_of") if key in result}
    return result


#: types whose limits are not JSON
_COMPARABLE = frozenset({"date", "time", "datetime", "timedelta", "decimal"})


def _expand_typed_dict(reduced: _Core) -> Any:
    fields = {name: _expand_field(field) for name, field in reduced["fields"].items()}
    return {**reduced, "fields": fields}


def _expand_field(field: _Core) -> Any:
    schema, required = field["schema"], field["required"]
    inner = schema["schema"] if schema["type"] == "default" else schema
    expanded: Any = _expand(inner)
    # sent as not nullable, see `strict`
    is_tag = inner["type"] == "literal" and "default" in schema and inner["expected"] == [schema["default"]]
    if not required and not is_tag and inner["type"] not in ("nullable", "any", "none"):
        has_default = "default" in schema
        wrapper = _null_is_default if has_default else _null_is_absent
        expanded = core_schema.no_info_wrap_validator_function(wrapper, expanded)
    if "default" in schema:
        expanded = {"type": "default", "schema": expanded, "default": schema["default"], "copy_default": True}
    return core_schema.typed_dict_field(expanded, required=required, validation_alias=field.get("aliases"))


def _null_is_default(value: Any, handler: Callable[[Any], Any]) -> Any:
    if value is not None:
        return handler(value)
    try:
        return handler(value)
    except ValidationError:
        raise PydanticUseDefault from None


def _null_is_absent(value: Any, handler: Callable[[Any], Any]) -> Any:
    if value is not None:
        return handler(value)
    try:
        return handler(value)
    except ValidationError:
        return None


def _expand_default(reduced: _Core) -> Any:
    """Return a default outside an object, where nothing can be absent."""
    return _expand(reduced["schema"])


def _expand_set(reduced: _Core) -> Any:
    items = core_schema.list_schema(_expand(reduced["items_schema"]), strict=reduced.get("strict"))
    shortest, longest = reduced.get("min_length", 0), reduced.get("max_length", float("inf"))

    def distinct(values: list[Any]) -> list[Any]:
        result = _distinct(values)
        if not shortest <= len(result) <= longest:
            limit = f"at least {shortest}" if len(result) < shortest else f"at most {longest}"
            raise ValueError(f"{len(result)} different items, expected {limit}")
        return result

    return core_schema.no_info_after_validator_function(distinct, items)


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Return the values without repetitions, in their order. Sets have none, and results must not vary."""
    result: list[Any] = []
    for value in values:
        if value not in result:
            result.append(value)
    return result


def _expand_enum(reduced: _Core) -> Any:
    """Return what reads a member of an enum: its value, or for an enum of numbers what can be read as its value."""
    members = core_schema.literal_schema(reduced["values"])
    number = {"int": core_schema.int_schema(), "float": core_schema.float_schema()}.get(reduced.get("sub_type", ""))
    if number is None:
        return members
    return core_schema.union_schema([members, core_schema.chain_schema([number, members])], mode="left_to_right")


def _expand_tagged_union(reduced: _Core) -> Any:
    choices = {tag: _expand(choice) for tag, choice in reduced["tags"]}
    return core_schema.tagged_union_schema(choices, discriminator=reduced["discriminator"])


def _expand_format(reduced: _Core) -> Any:
    """Return what checks the format of a text and leaves it as it is."""
    name = reduced["format"]
    read = IP_FORMATS.get(name)
    is_format = jsonschema_rs.Draft202012Validator({"format": name}, validate_formats=True).is_valid

    def check(text: str) -> str:
        if read is not None:
            read(text)
        elif not is_format(text):
            raise ValueError(f"the text is not of the format {name}")
        return text

    return core_schema.no_info_after_validator_function(check, core_schema.str_schema())


def _expand_json_text(reduced: _Core) -> Any:
    """Return what checks the JSON inside a text and leaves it text."""
    inner = SchemaValidator(_expand(reduced["schema"]))

    def check(text: str) -> str:
        inner.validate_json(text)
        return text

    return core_schema.no_info_after_validator_function(check, core_schema.str_schema())


_EXPANSIONS: dict[str, Callable[[_Core], Any]] = {
    "typed-dict": _expand_typed_dict,
    "default": _expand_default,
    "set": _expand_set,
    "frozenset": _expand_set,
    "enum": _expand_enum,
    "tagged-union": _expand_tagged_union,
    "format": _expand_format,
    "json-text": _expand_json_text,
}
