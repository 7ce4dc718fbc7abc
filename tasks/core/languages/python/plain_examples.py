"""Examples of a docstring that the checker of the sandbox may run: expressions that only compute.

The checker is trusted, and a docstring is not. An example is taken into a problem's test if it can
do nothing but call the function, compute with plain data and assign variables: it imports no module
that leads to others, and reaches no attribute that leads to code.
"""

import ast

_NODES = (
    *(ast.Module, ast.Expr, ast.Assign, ast.Constant, ast.Name, ast.Call, ast.keyword),
    *(ast.Starred, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.Subscript, ast.Slice),
    *(ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Lambda, ast.Attribute),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension),
    *(ast.JoinedStr, ast.FormattedValue, ast.arguments, ast.arg, ast.Import, ast.ImportFrom),
    *(ast.alias, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context),
)
_BUILTINS = {"abs", "all", "any", "bin", "bool", "bytearray", "bytes", "chr", "complex", "dict"}
_BUILTINS |= {"divmod", "enumerate", "filter", "float", "frozenset", "hex", "int", "isinstance"}
_BUILTINS |= {"iter", "len", "list", "map", "max", "min", "next", "oct", "ord", "pow", "print"}
_BUILTINS |= {"range", "repr", "reversed", "round", "set", "slice", "sorted", "str", "sum", "tuple"}
_BUILTINS |= {"zip"}
_IMPORTS = {
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "math": {"ceil", "e", "factorial", "floor", "gcd", "inf", "isclose", "isnan", "log", "nan"},
}
_IMPORTS["math"] |= {"pi", "prod", "sin", "cos", "sqrt", "tau"}
# frames and code of generators and functions; templates, which read attributes by name
_NO_PREFIXES = ("_", "gi_", "cr_", "ag_", "f_", "tb_", "co_", "format")


def only_computes(tree: ast.Module, entry: str, known: set[str]) -> bool:
    """Whether the checker may run an example.

    Args:
        tree: The example.
        entry: Name of the function.
        known: Names that earlier examples set; those of this one are added.
    """
    nodes = list(ast.walk(tree))
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    bound |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    bound |= {n.asname or n.name for n in nodes if isinstance(n, ast.alias)}
    names = {entry, *_BUILTINS, *known, *bound}
    if not all(isinstance(node, _NODES) and _is_plain(node, entry, names) for node in nodes):
        return False
    known |= bound
    return True


def _is_plain(node: ast.AST, entry: str, names: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in names and not node.id.startswith("__")
    if isinstance(node, ast.Attribute):
        of_function = isinstance(node.value, ast.Name) and node.value.id == entry
        return not of_function and not node.attr.startswith(_NO_PREFIXES)
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name | ast.Tuple) for target in node.targets)
    if isinstance(node, ast.Import):
        return all(alias.name == "math" for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        allowed = _IMPORTS.get(node.module or "", set())
        return not node.level and {alias.name for alias in node.names} <= allowed
    return True
