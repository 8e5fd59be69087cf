"""The size limits of the house style: files under 600 lines, functions under 70, the median function under 10."""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

FILE_MOST, FUNCTION_MOST, MEDIAN_MOST = 600, 70, 10


def functions(path: Path) -> list[tuple[str, int]]:
    """Name and number of body lines of every function, its docstring and blank lines not counted."""
    text = path.read_text()
    lines = text.splitlines()
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            has_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = first.end_lineno or first.lineno if has_doc else node.body[0].lineno - 1
            body = lines[start : node.end_lineno]
            found.append((f"{path}:{node.lineno} {node.name}", sum(bool(line.strip()) for line in body)))
    return found


def main() -> int:
    """Print what is over a limit; 1 when something is."""
    root = Path(__file__).parent.parent
    files = sorted((root / "server").rglob("*.py"))
    problems = [f"{f}: {n} lines" for f in files if (n := len(f.read_text().splitlines())) > FILE_MOST]
    every = [one for f in files for one in functions(f.relative_to(root))]
    problems += [f"{name}: {size} lines" for name, size in every if size > FUNCTION_MOST]
    median = statistics.median(size for _, size in every)
    if median >= MEDIAN_MOST:
        problems.append(f"the median function has {median} lines")
    print("\n".join(problems) or f"limits hold: {len(files)} files, {len(every)} functions, median {median:g} lines")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
