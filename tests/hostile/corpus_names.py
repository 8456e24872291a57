"""Accept: names that hurt a terminal, a page, a format string or a path."""

from __future__ import annotations

from pathlib import Path

from corpus import Made, accept, floats, simple, text

NAMES = {
    "ansi": "\x1b[31mred\x1b]0;owned\x07",
    "html": "<script>alert(1)</script>",
    "format": "%s%n{0}{x.__class__}$(touch pwned)",
    "unicode": "入力_ß_🙂",
    "bidi": "a\u202eb\u200b",
    "newline": "a\nb\rc\td",
    "long": "n" * 100_000,
    "quote": "'\"`\\",
    "path": "../../etc/passwd",
    "markup": "[bold red]x[/] [link=file:///]",
}


@accept(NAMES)
def names(_: Path, kind: str) -> Made:
    name = NAMES[kind]
    made = text(
        "g (float[2] x) => (float[2] y) { a = Neg(x) b = Identity(a) c = Add(b, w) d = Add(b, w) e = "
        "Mul(c, d) y = Relu(e) }"
    )
    made.graph.initializer.append(floats("w", 2))
    made.graph.name = name
    for node in made.graph.node:
        node.name = name + node.output[0]
        for field in (node.input, node.output):
            field[:] = [name + entry for entry in field]
    for info in (*made.graph.input, *made.graph.output):
        info.name = name + info.name
    made.graph.initializer[0].name = name + "w"
    return made


@accept((("all_nodes", "h"), ("tensors", "")))
def same_names(_: Path, name: str) -> Made:
    """All nodes have one name, or each has that of a tensor."""
    made = simple()
    for node in made.graph.node:
        node.name = name or node.output[0]
    return made
