"""The pages that are made of the code itself: the HTTP API and the command line, as Markdown.

The first says what the service's own OpenAPI document says, the second what ``--help`` prints, so
neither can differ from what runs.

Does not: describe anything that these two do not, or know of Sphinx (``conf.py`` puts the text into
the pages).
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from typer.main import get_command

from chestxray.cli import app as command_line_app
from chestxray.service.api.served import Served, read_served
from chestxray.service.app import create_app
from chestxray.service.http.keys import hash_of, make_key
from chestxray.service.http.problems import PROBLEMS
from chestxray.service.settings import Settings

Schema = dict[str, Any]


# --- HTTP -----------------------------------------------------------------------------------------


def openapi() -> dict[str, Any]:
    """The document of a service that demands a key, with the shipped bundle."""
    settings = Settings(api_keys=f"docs:{hash_of(make_key())}")
    return create_app(settings, Served.of(read_served(settings))).openapi()


def http_api() -> str:
    document = openapi()
    return "\n".join(
        [
            *(
                line
                for path, operations in document["paths"].items()
                for method, operation in operations.items()
                for line in _operation(method, path, operation)
            ),
            *_keys(document["components"]["securitySchemes"]),
            *_codes(),
            "## Models\n",
            "The fields of bodies.\n",
            *(
                line
                for name, schema in sorted(document["components"]["schemas"].items())
                for line in _model(name, schema)
            ),
        ]
    )


def _operation(method: str, path: str, operation: Schema) -> Iterator[str]:
    yield f"## {method.upper()} {path}\n"
    yield f"{operation['description']}\n"
    if operation.get("security"):
        yield "Wants [a key](#keys) where the service demands one.\n"
    if "requestBody" in operation:
        (media_type, content), *_ = operation["requestBody"]["content"].items()
        schema = content["schema"]
        yield f"**Body**, `{media_type}`:\n"
        yield from _table(
            ("field", "type", "meaning"),
            [
                (
                    f"`{name}`",
                    _type(field) + ("" if name in schema["required"] else ", optional"),
                    field.get("description") or field["items"]["description"],
                )
                for name, field in schema["properties"].items()
            ],
        )
    parameters = operation.get("parameters", [])
    for place in dict.fromkeys(p["in"] for p in parameters):
        yield f"**{place.capitalize()}**:\n"
        yield from _table(
            ("parameter", "type", "default", "meaning"),
            [
                (f"`{p['name']}`", _type(p["schema"]), _default(p), p["description"])
                for p in parameters
                if p["in"] == place
            ],
        )
    yield "**Answers**:\n"
    yield from _table(
        ("status", "when", "body", "`code`"),
        [
            (
                f"`{status}`",
                "Answered." if status == "200" else response["description"],
                _bodies(response),
                _codes_of(response),
            )
            for status, response in sorted(operation["responses"].items())
        ],
    )
    headers = {
        name: header["description"]
        for response in operation["responses"].values()
        for name, header in response.get("headers", {}).items()
        if "description" in header
    }
    if headers:
        yield "**Headers** of answers:\n"
        yield from _table(("header", "meaning"), [(f"`{n}`", text) for n, text in headers.items()])
    example = operation["responses"]["200"]["content"]["application/json"].get("example")
    if example:
        yield f"For example:\n\n```json\n{json.dumps(example, indent=2)}\n```\n"


def _bodies(response: Schema) -> str:
    return ", ".join(_type(content["schema"]) for content in response.get("content", {}).values())


def _codes_of(response: Schema) -> str:
    examples = [
        code for content in response["content"].values() for code in content.get("examples", {})
    ]
    return ", ".join(f"`{code}`" for code in examples)


def _default(parameter: Schema) -> str:
    if parameter["required"]:
        return "required"
    default = parameter["schema"].get("default")
    if default is None:
        return ""
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _keys(schemes: Schema) -> Iterator[str]:
    yield "## Keys\n"
    yield "A service that demands keys takes one in any of these headers:\n"
    for scheme in schemes.values():
        yield f"- `{scheme['name']}: KEY`" if "name" in scheme else "- `Authorization: Bearer KEY`"
    yield ""


def _codes() -> Iterator[str]:
    yield "## Problems\n"
    yield (
        "Every answer but 200 is a [Problem](#problem), `application/problem+json` "
        "([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). `code` is for programs and does not "
        "change. What no request can cause is 500, and its cause stands in the log alone.\n"
    )
    yield from _table(
        ("`code`", "status", "title"),
        [
            (f"`{error.code}`", str(status), title)
            for error, (status, title) in PROBLEMS.items()
            if not error.__subclasses__() and (status < 500 or status == 503)
        ],
    )


def _model(name: str, schema: Schema) -> Iterator[str]:
    yield f"### {name}\n"
    yield schema.get("description", "").replace("``", "`") + "\n"
    rows = [(f"`{n}`", _type(f)) for n, f in schema["properties"].items()]
    yield from _table(("field", "type"), rows)


def _type(schema: Schema) -> str:  # noqa: PLR0911 - one line for each kind of schema
    """What a schema allows, in words, with links to the models."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "prefixItems" in schema:
        return "[" + ", ".join(_type(one) for one in schema["prefixItems"]) + "]"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if schema["type"] == "object":
        inner = schema.get("additionalProperties")
        return f"object of {_type(inner)}" if isinstance(inner, dict) else "object"
    if schema.get("format") == "binary":
        return "file"
    if schema.get("pattern", "").startswith("^data:image/png"):
        return "PNG as a `data:` URL"
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    if least is not None and "maximum" in schema:
        return f"{schema['type']}, {least:g} to {schema['maximum']:g}"
    return "null" if schema["type"] == "null" else schema["type"]


# --- the command line -----------------------------------------------------------------------------


def command_line() -> str:
    return "\n".join(_command(get_command(command_line_app), "chestxray"))


def _command(command: Any, name: str) -> Iterator[str]:
    """``command`` and all below it, one after the other."""
    context = command.context_class(command, info_name=name)
    yield f"## {name}\n"
    yield f"{command.help}\n"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [(f"`{named}`", meaning) for named, meaning in records if named != "--help"]
    if rows:
        yield from _table(("argument or option", "meaning"), rows)
    for inner in getattr(command, "commands", {}).values():
        yield from _command(inner, f"{name} {inner.name}")


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    for row in (header, ("---",) * len(header), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


PAGES: dict[str, Callable[[], str]] = {"http-api": http_api, "command-line": command_line}
"""What stands in a section ``<!-- site:NAME -->`` on the site."""
