"""Does a payload fit a handler? Asked before the handler runs, and at submit when the app is at hand."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from agentos.store.errors import InvalidArguments


@dataclass(frozen=True, slots=True)
class Parameters:
    """A handler's parameters after its context. `required`, `known`: names that a payload must and may have, where that
    is all there is to say (`plain`); otherwise the signature itself is asked.
    """

    signature: inspect.Signature
    plain: bool
    required: frozenset[str]
    known: frozenset[str]
    validators: dict[str, Callable[[Any], Any]]
    """Without the adapters around them, which take three times as long for a plain value."""

    def fit(self, payload: dict[str, Any]) -> bool:
        """Whether the names fit; asking the signature takes four times as long."""
        return self.plain and self.required <= payload.keys() <= self.known


@functools.cache
def _parameters(function: Callable[..., Any]) -> Parameters:
    signature = inspect.signature(function)
    every = list(signature.parameters.values())
    own = every[1:]
    hints = get_type_hints(function)
    return Parameters(
        signature,
        plain=[each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in every[:1]] == [True]
        and all(each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in own),
        required=frozenset(each.name for each in own if each.default is each.empty),
        known=frozenset(each.name for each in own),
        validators={each.name: _validator(hints[each.name]) for each in own if each.name in hints},
    )


def _validator(hint: Any) -> Callable[[Any], Any]:
    adapter = TypeAdapter[Any](hint)
    inner = adapter.validator  # not there yet for a type that names one defined later
    return inner.validate_python if isinstance(inner, SchemaValidator) else adapter.validate_python


def bind(kind: str, function: Callable[..., Any], payload: Any) -> dict[str, Any]:
    """The keyword arguments for `function(ctx, **payload)`, checked against its signature and annotations.

    Raises InvalidArguments: if the payload is no object, misses or adds an argument, or has one of the wrong type.
    """
    if not isinstance(payload, dict):
        raise InvalidArguments(
            f"the payload of {kind!r} must be an object of its arguments, not {type(payload).__name__}",
            hint=f"submit {{...}} with the arguments {signature_of(function)}",
        )
    parameters = _parameters(function)
    if not parameters.fit(payload):
        _bind_all(kind, function, parameters, payload)
    arguments, validators = dict(payload), parameters.validators
    for name, validator in validators.items():
        if name in arguments:
            try:
                arguments[name] = validator(arguments[name])
            except ValidationError as exc:
                raise _refused(kind, name, exc) from exc
    return arguments


def check(kind: str, function: Callable[..., Any], payload: dict[str, Any]) -> None:
    """`bind` for who submits, and needs no arguments: without a frame for each of them, a microsecond of a submit.

    Raises InvalidArguments: as `bind`.
    """
    parameters = _parameters(function)
    if not parameters.fit(payload):
        _bind_all(kind, function, parameters, payload)
    for name, validator in parameters.validators.items():
        if name in payload:
            try:
                validator(payload[name])
            except ValidationError as exc:
                raise _refused(kind, name, exc) from exc


def _bind_all(kind: str, function: Callable[..., Any], parameters: Parameters, payload: dict[str, Any]) -> None:
    try:
        parameters.signature.bind(None, **payload)
    except TypeError as exc:
        raise InvalidArguments(
            f"the payload does not fit {kind!r}: {exc}", hint=f"its arguments are {signature_of(function)}"
        ) from exc


def _refused(kind: str, name: str, exc: ValidationError) -> InvalidArguments:
    problem = exc.errors(include_input=False, include_url=False)[0]["msg"]
    return InvalidArguments(
        f"argument {name!r} of {kind!r}: {problem[0].lower()}{problem[1:]}",
        hint="submit it again with a value of that type",
    )


def signature_of(function: Callable[..., Any]) -> str:
    """`(topic: str, depth: int = 3)`: a handler's signature without its context."""
    signature = inspect.signature(function)
    return str(signature.replace(parameters=list(signature.parameters.values())[1:]))
