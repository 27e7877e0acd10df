"""Conversion of a job's JSON parameters to a handler's arguments.  Pure; prepared once, at registration.

Conversion is strict: text is never converted to a number, and a parameter that the signature lacks is an error.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, SimpleNamespace
from typing import Any, TypeVar, get_type_hints

import msgspec
import msgspec.inspect
import msgspec.inspect as kinds

from supervisor.handler_api.context import Context
from supervisor.text.printable import shortened
from supervisor.text.value_repr import value_repr

Item = TypeVar("Item")

_NEARLY_CONTEXT = ("ctx", "ctxt", "cx", "_context", "job_context")
_CONTEXT_HINT = " (for the job's context name it 'context', or annotate it as Context)"
_JSON_TYPES = (dict, list, str, int, float, bool, NoneType)


class InvalidParameters(Exception):
    """The job's parameters do not fit the handler; the message lists all missing, unknown and invalid parameters."""


def decode_parameters(raw: bytes) -> dict[str, Any]:
    """Return a job's parameters as plain JSON values.  Empty input and `null` mean no parameters."""
    return _decode_object(raw, dict[str, Any])


@dataclass(frozen=True, slots=True)
class _Parameter:
    decoder: msgspec.json.Decoder[Any]
    is_required: bool


@dataclass(frozen=True, slots=True)
class Binding:
    """A handler's signature with a decoder for each parameter."""

    context: str | None
    """Name of the parameter that receives the `Context`; None without one."""
    named: dict[str, _Parameter]
    rest: _Parameter | None
    """Decoder for the values of `**parameters`; None if the signature has none."""

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Binding:
        """Read a function's signature; raise `TypeError` with the parameter's name if no job can fit it."""
        parameters = inspect.signature(function).parameters
        for parameter in parameters.values():
            _check_kind(parameter)
        _check_first(next(iter(parameters), ""))
        hints = {name: _hint(parameter, function) for name, parameter in parameters.items()}
        context = _context_parameter(hints)
        _check_context(context, parameters)
        named: dict[str, _Parameter] = {}
        rest = None
        for parameter in parameters.values():
            if parameter.name == context:
                continue
            prepared = _prepare(parameter, hints[parameter.name])
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = prepared
            else:
                named[parameter.name] = prepared
        return cls(context, named, rest)

    def bind(self, raw: bytes) -> dict[str, Any]:
        """Return the arguments by name, without the context; raise `InvalidParameters`."""
        given = _decode_object(raw, dict[str, msgspec.Raw])
        arguments: dict[str, Any] = {}
        faults = [self._missing(name) for name in self._required() if name not in given]
        for name, value in given.items():
            parameter = self._parameter(name)
            if parameter is None:
                faults.append(f"parameter {name!r} is unknown")
                continue
            try:
                arguments[name] = parameter.decoder.decode(value)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                faults.append(_fault(name, error, parameter.decoder.type))
        if faults:
            raise InvalidParameters("; ".join(faults))
        return arguments

    def _missing(self, name: str) -> str:
        is_mistaken = self.context is None and name == next(iter(self.named)) and name in _NEARLY_CONTEXT
        return f"parameter {name!r} is missing{_CONTEXT_HINT if is_mistaken else ''}"

    def _required(self) -> Iterator[str]:
        return (name for name, parameter in self.named.items() if parameter.is_required)

    def _parameter(self, name: str) -> _Parameter | None:
        if name == self.context:
            return None
        return self.named.get(name, self.rest)


def _hint(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    """Return a parameter's annotation, resolved in the function's module; `Any` without one.

    Each is resolved alone, so that the error names the parameter, and an unresolvable return annotation is ignored.
    """
    if parameter.annotation is parameter.empty:
        return Any
    written = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return get_type_hints(written, globalns=scope, include_extras=True)[parameter.name]
    except Exception as error:  # resolving an annotation evaluates the author's code
        raise TypeError(f"the annotation of {parameter.name!r} cannot be resolved: {error}") from error


def _check_kind(parameter: inspect.Parameter) -> None:
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise TypeError(f"parameter {parameter.name!r} is positional-only, but a job passes parameters by name")
    if parameter.kind is parameter.VAR_POSITIONAL:
        raise TypeError(f"'*{parameter.name}' cannot be used, because a job passes parameters by name")


def _check_first(name: str) -> None:
    if name in ("self", "cls"):
        raise TypeError(
            f"its first parameter {name!r} is that of a method, which a job cannot pass: "
            "write a function outside the class, or put @staticmethod above @handler"
        )


def _check_context(context: str | None, parameters: Mapping[str, inspect.Parameter]) -> None:
    """Raise `TypeError` when a parameter looks like the Context but would not receive it."""
    if context is not None and parameters[context].kind is inspect.Parameter.VAR_KEYWORD:
        raise TypeError(f"'**{context}' receives parameters of the job: add a first parameter 'context'")
    later = parameters.get("context")
    if later is not None and context != "context" and later.annotation is later.empty:
        raise TypeError("the context must be first: move 'context', or annotate it if it is a parameter of the job")


def _context_parameter(hints: dict[str, Any]) -> str | None:
    """Return the first parameter's name if it is `context` or is annotated as `Context`."""
    for name in list(hints)[1:]:
        if hints[name] is Context:
            raise TypeError(f"the context must be first, but {name!r} is not the first parameter")
    first = next(iter(hints), None)
    if first is None or hints[first] is Context:
        return first
    if first == "context" and hints[first] is not Any:
        raise TypeError(f"the parameter 'context' receives the Context, but is annotated as {value_repr(hints[first])}")
    return first if first == "context" else None


def _prepare(parameter: inspect.Parameter, hint: Any) -> _Parameter:
    try:
        decoder = msgspec.json.Decoder(hint)
        unknown = _first_unknown(msgspec.inspect.type_info(hint))
    except Exception as error:  # msgspec runs code of the author's classes, which may raise anything
        raise TypeError(f"the annotation of {parameter.name!r} cannot be decoded from JSON: {error}") from error
    if unknown is not None:
        raise TypeError(f"the annotation of {parameter.name!r} cannot be decoded from JSON: {unknown.__qualname__}")
    return _Parameter(decoder, is_required=parameter.default is parameter.empty)


def _first_unknown(info: msgspec.inspect.Type) -> type | None:
    """Return the first class that msgspec cannot decode itself, unless all JSON values are its instances.

    msgspec would raise only when a job passes a value.
    """
    waiting, seen = [info], set[int]()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:  # classes may refer to themselves
            continue
        seen.add(id(part))
        if isinstance(part, msgspec.inspect.CustomType) and not any(issubclass(kind, part.cls) for kind in _JSON_TYPES):
            return part.cls
        waiting.extend(_inner_types(part))
    return None


def _inner_types(info: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    for attribute in info.__struct_fields__:
        value = getattr(info, attribute)
        for part in value if isinstance(value, tuple) else (value,):
            inner = part.type if isinstance(part, msgspec.inspect.Field) else part
            if isinstance(inner, msgspec.inspect.Type):
                yield inner


def _decode_object(raw: bytes, type_: type[dict[str, Item]]) -> dict[str, Item]:
    if raw.strip() in (b"", b"null"):  # a tuple: a set would hash megabytes
        return {}
    try:
        return msgspec.json.decode(raw, type=type_)
    except msgspec.ValidationError:
        raise InvalidParameters("the parameters are not a JSON object") from None
    except RecursionError:
        raise InvalidParameters("the parameters are nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidParameters(f"the parameters cannot be decoded: {_reason(raw, error)}") from error


def _reason(raw: bytes, error: Exception) -> str:
    """Return the reason.  For a lone surrogate, msgspec wrongly reports truncated data."""
    try:
        json.dumps(json.loads(raw), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "they contain text with a lone surrogate, which UTF-8 cannot encode"
    except (ValueError, RecursionError):
        pass  # another reason, which msgspec describes
    return str(error)


def _fault(name: str, error: Exception, annotation: Any) -> str:
    """Rewrite msgspec's "Expected `int`, got `str` - at `$.width`" with the name of the parameter and the full path."""
    what, _, path = str(error).replace("`", "").partition(" - at $")
    wrong = what.removeprefix("Invalid enum value ")
    allowed = choices_at(annotation, path) if wrong != what else None
    reason = f"must be one of {allowed}, not {wrong}" if allowed else f"{what[:1].lower()}{what[1:]}"
    return f"parameter {name + path!r} is invalid: {reason}"


MAX_CHOICES_CHARS = 200
"""Limit of the list of allowed values in a message."""

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


def choices_at(annotation: Any, path: str) -> str | None:
    """Return the values allowed at `path` (msgspec's form: `.sizes[0].unit`) as text; None when they are unknown."""
    places = [kinds.type_info(annotation)]
    for name, index in _STEP.findall(path):
        places = [inner for place in _alternatives(places) for inner in _inside(place, name, index)]
    allowed = [value for place in _alternatives(places) for value in _values(place)]
    return _listed(allowed) if allowed else None


def _alternatives(places: Iterable[kinds.Type]) -> Iterator[kinds.Type]:
    for place in places:
        match place:
            case kinds.UnionType(types=types):
                yield from _alternatives(types)
            case kinds.Metadata(type=inner):
                yield from _alternatives([inner])
            case _:
                yield place


def _inside(place: kinds.Type, name: str, index: str) -> Iterator[kinds.Type]:
    """Yield the types one step into `place`: of field `name`, or at `index`, which is "..." for any key."""
    match place:
        case (
            kinds.StructType(fields=fields)
            | kinds.DataclassType(fields=fields)
            | kinds.TypedDictType(fields=fields)
            | kinds.NamedTupleType(fields=fields)
        ):
            yield from (
                field.type
                for position, field in enumerate(fields)
                if field.encode_name == name or str(position) == index
            )
        case kinds.DictType(value_type=value) if index == "...":
            yield value
        case kinds.TupleType(item_types=items) if index.isdigit() and int(index) < len(items):
            yield items[int(index)]
        case kinds.CollectionType(item_type=item) if index:
            yield item


def _values(place: kinds.Type) -> Iterator[Any]:
    match place:
        case kinds.LiteralType(values=values):
            yield from values
        case kinds.EnumType(cls=cls):
            yield from (member.value for member in cls)


def _listed(values: Iterable[Any]) -> str:
    """Return the values as JSON in one text, cut at `MAX_CHOICES_CHARS`."""
    listed = ", ".join(dict.fromkeys(json.dumps(value, ensure_ascii=False, default=str) for value in values))
    return shortened(listed, MAX_CHOICES_CHARS)
