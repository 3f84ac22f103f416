"""Bounds for rendering one row: the time, and the size of everything that the template produces on the way.

A template is code of the author, and a mistake in it must not fill the worker's memory or keep a task busy until its
timeout. Two mechanisms cover all kinds of templates:

* Size. Every text and list that an operator, a filter, a method or an output produces is charged to the row. What can
  become large in a single step (`'x' * 10**10`, `'x'.ljust(10**10)`, `'%0999999999d'`) is charged before it runs.
* Time. A thread looks every now and then whether a row takes too long, and interrupts the thread that renders it.
  Signals would need the main thread, and Airflow uses the only timer for its own timeouts.
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from types import BuiltinMethodType
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from airflow_provider_batch.core.requests.value import SCALARS, reject_unprintable
from airflow_provider_batch.exceptions import TemplateError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

#: maximum number of characters and list items that a template may produce for one row. An input file has at most
#: 200,000,000 bytes.
MAX_SIZE = 100_000_000
#: maximum time to render a template for one row, in seconds
MAX_SECONDS = 10.0
#: an iteration of a loop counts as much as this many characters
ITERATION_SIZE = 100
#: maximum number of bits of a whole number
MAX_BITS = 100_000

_TEXT_METHODS_WITH_WIDTH = frozenset({"ljust", "rjust", "center", "zfill"})
_PERCENT_FORMAT = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?")
_BRACE_FORMAT = re.compile(r":((?:[^{}]|\{[^{}]*\})*)\}")


class _InterruptedRenderError(BaseException):
    """Raised in a thread whose row takes too long. Not an Exception, so that no filter catches it."""


class _Render:
    """What a thread is rendering."""

    def __init__(self) -> None:
        self.thread_id = threading.get_ident()
        #: what the template may still produce for the row
        self.remaining = MAX_SIZE
        #: counts starts and ends; odd while the thread renders a row
        self.serial = 0
        #: whether the watcher is interrupting the thread
        self.is_interrupted = False


class _Threads(threading.local):
    """The `_Render` of the current thread."""

    def __init__(self) -> None:
        self.render = _Render()
        _renders.add(self.render)


_renders: WeakSet[_Render] = WeakSet()
_threads = _Threads()
_watcher: threading.Thread | None = None


def start_watcher() -> None:
    """Start the thread that interrupts rows which take too long, unless it runs."""
    global _watcher
    if _watcher is None or not _watcher.is_alive():
        _watcher = threading.Thread(target=_watch, name="template-watcher", daemon=True)
        _watcher.start()


def _watch() -> None:
    first_seen: dict[_Render, tuple[int, float]] = {}
    while True:
        time.sleep(MAX_SECONDS / 20)
        now = time.monotonic()
        for render in list(_renders):
            serial = render.serial
            seen_serial, since = first_seen.get(render, (0, now))
            if serial % 2 == 0 or serial != seen_serial:
                first_seen[render] = (serial, now)
            elif now - since > MAX_SECONDS:
                del first_seen[render]
                _interrupt(render, serial)
        first_seen = {render: look for render, look in first_seen.items() if render in _renders}


def _interrupt(render: _Render, serial: int) -> None:
    render.is_interrupted = True
    # if the row ended meanwhile, its thread waits in `_end` until it is interrupted or this is withdrawn
    if render.serial == serial:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(render.thread_id), ctypes.py_object(_InterruptedRenderError)
        )
    else:
        render.is_interrupted = False


def bounded(render: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return a function that renders a row within the bounds.

    :raises TemplateError: if the row takes too long, or produces too much.
    """

    @wraps(render)
    def render_within_bounds(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        state = _threads.render
        state.remaining = MAX_SIZE
        state.serial = serial = (state.serial + 1) | 1
        try:
            try:
                return render(*args, **kwargs)
            finally:
                state.serial = serial + 1
                while state.is_interrupted and not _is_interruption():
                    time.sleep(0.001)
        except RecursionError as error:
            raise TemplateError(
                "The template or its value is nested too deeply: a macro or a loop may call itself without end. "
                "Nothing was uploaded. Correct the template, or flatten the value in the SQL."
            ) from error
        except _InterruptedRenderError:
            state.is_interrupted = False
            raise TemplateError(
                f"The template takes more than {MAX_SECONDS:.0f} seconds for this row. Nothing was uploaded. Use a "
                "smaller loop, or prepare the text in the SQL."
            ) from None

    return render_within_bounds


def _is_interruption() -> bool:
    """Return whether the interruption of this thread has arrived and is being handled."""
    return isinstance(sys.exc_info()[1], _InterruptedRenderError)


def charge(size: int) -> None:
    """Charge characters or list items to the row that this thread renders.

    :raises TemplateError: if the row has produced too much.
    """
    render = _threads.render
    render.remaining -= size
    if render.remaining < 0:
        raise TemplateError(
            f"The template produces more than {MAX_SIZE:,} characters or list items for this row. Nothing was "
            "uploaded. Use a smaller loop, width or factor, or prepare the text in the SQL."
        )


def charge_value(value: Result) -> Result:
    """Charge the size of a text or a collection, and return it. Other values cost nothing."""
    if isinstance(value, (str, list, tuple, dict, bytes)):
        charge(len(value))
    return value


def charge_nested(value: Any) -> None:
    """Charge everything in a nested value. A list that contains the same list twice is charged for both."""
    pending = [value]
    while pending:
        item = pending.pop()
        if type(item) in SCALARS:
            continue
        items = item.values() if isinstance(item, Mapping) else item if isinstance(item, (list, tuple)) else ()
        if items:
            charge(len(items))
            pending.extend(items)


def charge_loop(items: Any) -> Any:
    """Charge the iterations of a loop over these items, and return the items."""
    if not hasattr(items, "__len__"):
        items = list(items)
    charge(ITERATION_SIZE * len(items))
    return items


def charged(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return the function of a filter, which charges what it returns."""

    @wraps(function)
    def charged_function(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return charge_value(function(*args, **kwargs))

    return charged_function


def concat(parts: Iterable[str]) -> str:
    """Join the parts of a text that were charged one by one, and charge the text."""
    parts = list(parts)
    charge(sum(map(len, parts)))
    return "".join(parts)


# Operators


def add(left: Any, right: Any) -> Any:
    """Return `left + right`."""
    if isinstance(left, (str, list, tuple, bytes)) and isinstance(right, type(left)):
        charge(len(left) + len(right))
    return left + right


def multiply(left: Any, right: Any) -> Any:
    """Return `left * right`."""
    for sequence, factor in ((left, right), (right, left)):
        if isinstance(sequence, (str, list, tuple, bytes)) and isinstance(factor, int):
            charge(len(sequence) * max(factor, 0))
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    return left * right


def power(base: Any, exponent: Any) -> Any:
    """Return `base ** exponent`."""
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1:
        _check_bits(base.bit_length() * max(exponent, 0))
    return base**exponent


def modulo(left: Any, right: Any) -> Any:
    """Return `left % right`, which formats a text."""
    if isinstance(left, str):
        check_percent_format(left, right)
    return charge_value(left % right)


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise TemplateError(
            f"The template computes a whole number of more than {MAX_BITS:,} bits. Nothing was uploaded. Check the "
            "exponent."
        )


# Formats


def check_percent_format(template: str, values: Any) -> None:
    """Charge the widths in a printf-style format. Raises UnusableValueError for a value without a text form."""
    items = list(values.values()) if isinstance(values, dict) else values if isinstance(values, tuple) else (values,)
    for item in items:
        reject_unprintable(item)
    widths = [width for widths in _PERCENT_FORMAT.findall(template) for width in widths if width]
    _charge_widths(widths, items, has_dynamic_width="*" in widths)


def check_brace_format(template: str, values: Iterable[Any]) -> None:
    """Charge the widths in a format of `str.format`. Raises UnusableValueError for a value without a text form."""
    values = list(values)
    for value in values:
        reject_unprintable(value)
    specifications = _BRACE_FORMAT.findall(template)
    widths = [width for specification in specifications for width in re.findall(r"\d+", specification)]
    _charge_widths(widths, values, has_dynamic_width=any("{" in specification for specification in specifications))


def _charge_widths(widths: Iterable[str], values: Iterable[Any], *, has_dynamic_width: bool) -> None:
    for width in widths:
        if width != "*":
            # 20 digits are too large in any case, and Python refuses to convert thousands of them
            charge(int(width[:20]))
    if has_dynamic_width:
        charge(max((abs(value) for value in values if isinstance(value, int)), default=0))


# Methods and filters


def check_method(method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Charge what a method of a built-in type is about to produce, and return its arguments."""
    if not isinstance(method, BuiltinMethodType):
        return args
    owner, name, values = method.__self__, method.__name__, (*args, *kwargs.values())
    if isinstance(owner, int) and name == "to_bytes":
        charge(max((value for value in values if isinstance(value, int)), default=0))
    if not isinstance(owner, (str, bytes)) or not values:
        return args
    if name in _TEXT_METHODS_WITH_WIDTH and isinstance(values[0], int):
        charge(max(values[0], 0))
    elif name == "expandtabs" and isinstance(values[0], int):
        charge(len(owner) * max(values[0], 0))
    elif name == "replace" and len(values) > 1:
        charge_replace(owner, *values[:2])
    elif name == "translate" and isinstance(values[0], Mapping):
        charge(len(owner) * max((len(text) for text in values[0].values() if isinstance(text, str)), default=0))
    elif name == "join" and args:
        items = charge_loop(args[0])
        charge(len(owner) * len(items) + sum(len(item) for item in items if isinstance(item, str)))
        return (items, *args[1:])
    return args


def charge_replace(text: Any, old: Any, new: Any) -> None:
    """Charge what replacing every `old` by `new` adds to a text."""
    if isinstance(text, str) and isinstance(old, str) and isinstance(new, str) and len(new) > len(old):
        charge(text.count(old) * len(new))


def charge_indent(text: str, width: Any) -> None:
    """Charge what indenting every line of a text adds to it."""
    indent = len(width) if isinstance(width, str) else max(width, 0)
    charge(indent * (text.count("\n") + 1))


def join_items(items: Iterable[Any], separator: str) -> str:
    """Join items as `str` writes them. Raises UnusableValueError for an item without a text form."""
    return separator.join(_texts(items, len(separator)))


def _texts(items: Iterable[Any], separator_size: int) -> Iterator[str]:
    for item in items:
        reject_unprintable(item)
        text = str(item)
        charge(len(text) + separator_size)
        yield text


def add_up(items: Iterable[Any], start: Any) -> Any:
    """Return the sum of numbers, or of lists if `start` is a list."""
    total = start
    for item in items:
        total = add(total, item)
    return total
