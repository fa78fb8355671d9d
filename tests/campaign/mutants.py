"""Small wrong changes of a module, one at a time: what tests must notice. No process, no test.

`mutants` reads a source and gives each change that the usual operators make of it: another
comparison, arithmetic, constant or boolean; a branch that is always or never taken, or the other
way round; an argument, an operand, a bound or an item that is missing; a statement that is not
there. Each is a whole source again, with all other lines at their old places.

Left out is what no test could notice: docstrings, annotations, what runs for type checkers alone,
and what the source itself keeps from the measure of coverage (``pragma: no cover``).

A mutant is named by what people read, the function and the line as it was and as it is, so that a
list of them outlives edits elsewhere in the module.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, Final, NamedTuple


class Mutant(NamedTuple):
    """One wrong change."""

    function: str
    """Where: ``FrameBuffer.feed``, or ``-`` for the module itself."""
    was: str
    becomes: str
    first: int
    """The lines of the statement that it changes, counted from 1."""
    last: int
    source: str
    """The whole module."""

    @property
    def name(self) -> tuple[str, str, str]:
        """What a list of mutants calls it."""
        return self.function, self.was, self.becomes


_COMPARISONS: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_SIGNS: Final[dict[str, str]] = {
    "Lt": "<",
    "LtE": "<=",
    "Gt": ">",
    "GtE": ">=",
    "Eq": "==",
    "NotEq": "!=",
    "Is": "is",
    "IsNot": "is not",
    "In": "in",
    "NotIn": "not in",
}
_DELETED: Final = (
    ast.Assign,
    ast.AugAssign,
    ast.Delete,
    ast.Expr,
    ast.Raise,
    ast.Return,
    ast.Continue,
    ast.Break,
)
_NO_COVER: Final = "pragma: no cover"


def mutants(source: str) -> Iterator[Mutant]:
    """Give every mutant of a module, from its first line to its last."""
    yield from _Maker(source).all()


class _Maker:
    def __init__(self, source: str) -> None:
        self.source = source
        self.bytes = source.encode()  # the columns of the tree count bytes
        self.lines = source.splitlines()
        self.starts = [0]
        for line in self.bytes.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def all(self) -> Iterator[Mutant]:
        yield from self.block(ast.parse(self.source).body, [])

    def block(self, statements: list[ast.stmt], path: list[str]) -> Iterator[Mutant]:
        for statement in statements:
            if _NO_COVER in self.lines[statement.lineno - 1] or _is_docstring(statement):
                continue
            yield from self.statement(statement, path)

    def statement(self, statement: ast.stmt, path: list[str]) -> Iterator[Mutant]:
        """Give the mutants of a statement: of itself, its expressions, and its blocks."""
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return
        if isinstance(statement, ast.AnnAssign) and "TypeAlias" in ast.unparse(
            statement.annotation
        ):
            return
        inner = path
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            inner = [*path, statement.name]
        head = _Head(statement, ".".join(inner) or "-")
        if isinstance(statement, _DELETED):
            yield self.mutant(head, statement, "pass")
        for field, value in ast.iter_fields(statement):
            if field in ("annotation", "returns", "decorator_list", "bases", "name"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.stmt):
                    continue
                if isinstance(child, ast.AST):
                    yield from self.expression(head, child)
        if isinstance(statement, ast.If | ast.While):
            yield from self.condition(head, statement.test)
        if isinstance(statement, ast.AugAssign) and type(statement.op) in _ARITHMETIC:
            other = ast.AugAssign(
                statement.target, _ARITHMETIC[type(statement.op)](), statement.value
            )
            yield self.mutant(head, statement, ast.unparse(other))
        if isinstance(statement, ast.Break):
            yield self.mutant(head, statement, "continue")
        if isinstance(statement, ast.Continue):
            yield self.mutant(head, statement, "break")
        for body in ("body", "orelse", "finalbody"):
            yield from self.block(getattr(statement, body, []), inner)
        for handler in getattr(statement, "handlers", []):
            if _NO_COVER not in self.lines[handler.lineno - 1]:
                yield from self.block(handler.body, inner)

    def condition(self, head: _Head, test: ast.expr) -> Iterator[Mutant]:
        """Give what takes one way only. Whoever notices both notices the wrong way each time."""
        yield self.mutant(head, test, "False")
        if isinstance(head.statement, ast.If):
            yield self.mutant(head, test, "True")

    def expression(self, head: _Head, node: ast.AST) -> Iterator[Mutant]:
        """Give the mutants of an expression, or of what holds some, and of all inside it."""
        if isinstance(node, ast.ExceptHandler):  # its block is the statement's
            if node.type is not None and _NO_COVER not in self.lines[node.lineno - 1]:
                yield from self.expression(head, node.type)
            return
        for becomes in self.others(node):
            yield self.mutant(head, node, becomes)
        if isinstance(node, ast.JoinedStr):
            return  # what stands inside has no true position in this Python
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self.expression(head, child)

    def others(self, node: ast.AST) -> Iterator[str]:
        """Give what may stand in the place of an expression."""
        match node:
            case ast.Constant(value=value):
                yield from _other_constants(value)
            case ast.JoinedStr():
                yield "'mutant'"
            case ast.Compare(left=left, ops=operations, comparators=right):
                terms = [self.text(term) for term in (left, *right)]
                signs = [_SIGNS[type(operation).__name__] for operation in operations]
                for place, operation in enumerate(operations):
                    for other in _COMPARISONS[type(operation)]:
                        new = [*signs]
                        new[place] = _SIGNS[other.__name__]
                        rest = zip(new, terms[1:], strict=True)
                        yield f"({terms[0]} {' '.join(f'{sign} {term}' for sign, term in rest)})"
            case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _ARITHMETIC:
                other = ast.BinOp(left, _ARITHMETIC[type(operation)](), right)
                yield f"({ast.unparse(other)})"
            case ast.UnaryOp(operand=operand):
                yield self.text(operand)
            case ast.BoolOp(op=operation, values=values):
                joint = " or " if isinstance(operation, ast.And) else " and "
                terms = [f"({self.text(value)})" for value in values]
                yield f"({joint.join(terms)})"
                same = " and " if isinstance(operation, ast.And) else " or "
                for place in range(len(terms)):
                    yield f"({same.join(terms[:place] + terms[place + 1 :])})"
            case ast.IfExp(body=body, orelse=orelse):
                yield f"({self.text(body)})"
                yield f"({self.text(orelse)})"
            case ast.Call():
                yield from self.fewer_arguments(node)
            case ast.Slice(lower=lower, upper=upper):
                lower, upper = (self.text(bound) if bound else "" for bound in (lower, upper))
                if lower:
                    yield f":{upper}"
                if upper:
                    yield f"{lower}:"
            case ast.Set(elts=items) | ast.List(elts=items) if len(items) > 1:
                opening, closing = "{}" if isinstance(node, ast.Set) else "[]"
                for place in range(len(items)):
                    rest = items[:place] + items[place + 1 :]
                    yield opening + ", ".join(map(self.text, rest)) + closing
            case ast.Tuple(elts=items, ctx=ast.Load()) if len(items) > 1:
                for place in range(len(items)):
                    rest = items[:place] + items[place + 1 :]
                    yield "(" + ", ".join(map(self.text, rest)) + ",)"
            case ast.Dict(keys=keys, values=values) if None not in keys:
                pairs = [
                    f"{self.text(key)}: {self.text(value)}"
                    for key, value in zip(keys, values, strict=True)
                    if key is not None
                ]
                for place in range(len(pairs)):
                    yield "{" + ", ".join(pairs[:place] + pairs[place + 1 :]) + "}"
            case _:
                pass

    def fewer_arguments(self, call: ast.Call) -> Iterator[str]:
        given = [self.text(argument) for argument in call.args]
        given += [
            f"{keyword.arg}={self.text(keyword.value)}" if keyword.arg else self.text(keyword)
            for keyword in call.keywords
        ]
        for place in range(len(given)):
            rest = ", ".join(given[:place] + given[place + 1 :])
            yield f"{self.text(call.func)}({rest})"

    # -----------------------------------------------------------------------------------------

    def text(self, node: ast.AST) -> str:
        begin, end = self.span(node)
        return self.bytes[begin:end].decode()

    def span(self, node: Any) -> tuple[int, int]:
        begin = self.starts[node.lineno - 1] + node.col_offset
        return begin, self.starts[node.end_lineno - 1] + node.end_col_offset

    def mutant(self, head: _Head, node: ast.AST, becomes: str) -> Mutant:
        """Return the module with `becomes` in the place of `node`; the lines below stay."""
        begin, end = self.span(node)
        lost_lines = "\n" * self.bytes[begin:end].count(b"\n")
        new = becomes.replace("\n", " ")
        if lost_lines:
            new = f"({new}{lost_lines})" if isinstance(node, ast.expr) else f"{new}{lost_lines}"
        source = (self.bytes[:begin] + new.encode() + self.bytes[end:]).decode()
        first, last = head.lines
        start, stop = self.starts[first - 1], self.starts[last]
        grown = len(new.encode()) - (end - begin)
        was = self.bytes[start:stop].decode()
        now = (self.bytes[:begin] + new.encode() + self.bytes[end:])[start : stop + grown].decode()
        return Mutant(head.function, _one_line(was), _one_line(now), first, last, source)


class _Head:
    """A statement without the statements in it, and the function that it stands in."""

    def __init__(self, statement: ast.stmt, function: str) -> None:
        self.statement = statement
        self.function = function
        last = statement.end_lineno or statement.lineno
        body = getattr(statement, "body", None)
        if body:
            last = max(statement.lineno, body[0].lineno - 1)
            if isinstance(statement, ast.Try):
                last = statement.handlers[0].lineno if statement.handlers else statement.lineno
        self.lines = statement.lineno, last


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _other_constants(value: object) -> Iterator[str]:
    match value:
        case bool():
            yield repr(not value)
        case int() | float():
            yield repr(value + 1)
        case str():
            yield repr("XX" + value)
        case bytes():
            yield repr(b"XX" + value)
        case _:
            pass  # None and ...


def _one_line(text: str) -> str:
    return " ".join(text.split())
