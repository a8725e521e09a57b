"""What schemathesis cannot know from the document."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    """NDJSON is the elements of an array, one a line."""
    lines = value if isinstance(value, list) else [value]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


# The bounds of subjects, ids, descriptions and header values are in bytes of UTF-8, and JSON Schema counts characters.
BYTE_BOUNDS = (256, 1024, 4096)


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def between_the_counts(text):
    size = len(text.encode("utf-8", "surrogatepass"))
    return any(len(text) <= bound < size for bound in BYTE_BOUNDS)


@schemathesis.hook
def filter_case(ctx, case):
    """Leaves out what the document cannot say: those lengths, and that HTTP lets a client send headers nobody reads."""
    if "x-schemathesis-unknown-property" in (case.headers or {}):
        return False
    return not any(between_the_counts(text) for part in (case.body, dict(case.query or {})) for text in strings(part))
