"""Which files of a repository a file imports, in each language."""

import pytest

from tasks.core.languages.imports import RepositoryPaths
from tasks.core.languages.registry import LANGUAGES, language_of

# language: importing file, its text, the files of the repository, those that it imports in order
CASES = {
    "python": (
        "src/shop/cart.py",
        "import os, json\nfrom . import prices\nfrom .models.item import (\n    Item,  # of it\n"
        "    Kind,\n)\nfrom shop.util import text as t\nimport shop.store.db as db\n",
        "src/shop/prices.py src/shop/models/item.py src/shop/util/__init__.py src/shop/store/db.py "
        "src/other/json.py",
        "src/shop/prices.py src/shop/models/item.py src/shop/util/__init__.py src/shop/store/db.py",
    ),
    "javascript": (
        "lib/app.js",
        "const a = require('./router');\nimport b, { c } from \"../util/text.js\";\n"
        "import 'react';\nexport * from '@/store/db'\nconst d = await import('./late.mjs')\n",
        "lib/router/index.js util/text.js src/store/db.ts lib/late.mjs react.js",
        "lib/router/index.js util/text.js src/store/db.ts lib/late.mjs",
    ),
    "typescript": (
        "src/a.ts",
        'import type { B } from "./b";\nimport { C } from "./c.js";\n',
        "src/b.ts src/c.ts b.ts",
        "src/b.ts src/c.ts",
    ),
    "tsx": ("src/a.tsx", 'import B from "./B"\n', "src/B.tsx", "src/B.tsx"),
    "go": (
        "cmd/main.go",
        'package main\n\nimport (\n\t"fmt"\n\t"encoding/json"\n\ts "host.io/me/shop/internal/store"'
        '\n)\n\nimport "host.io/me/shop/api"\n',
        "internal/store/a.go internal/store/b.go api/x.go pkg/json/j.go",
        "internal/store/a.go internal/store/b.go api/x.go",
    ),
    "rust": (
        "src/main.rs",
        "mod config;\nuse std::fmt;\nuse crate::store::db::{Db, Row};\nuse crate::text;\n",
        "src/config.rs src/store/db.rs src/text/mod.rs src/fmt.rs",
        "src/config.rs src/store/db.rs src/text/mod.rs",
    ),
    "java": (
        "src/main/java/org/shop/Cart.java",
        "package org.shop;\nimport java.util.List;\nimport org.shop.model.Item;\n"
        "import static org.shop.Text.trim;\nimport org.shop.store.*;\n",
        "src/main/java/org/shop/model/Item.java src/main/java/org/shop/Text.java "
        "src/main/java/org/shop/store/Db.java",
        "src/main/java/org/shop/model/Item.java src/main/java/org/shop/Text.java "
        "src/main/java/org/shop/store/Db.java",
    ),
    "kotlin": (
        "src/main/kotlin/org/shop/Cart.kt",
        "package org.shop\n\nimport kotlin.math.max\nimport org.shop.model.Item\n"
        "import org.shop.store.*\nimport org.shop.text.shout as loud\n",
        "src/main/kotlin/org/shop/model/Item.kt src/main/kotlin/org/shop/store/Db.kt "
        "src/main/kotlin/org/shop/text/Strings.kt src/main/kotlin/org/shop/model/Other.kt",
        "src/main/kotlin/org/shop/model/Item.kt src/main/kotlin/org/shop/store/Db.kt "
        "src/main/kotlin/org/shop/text/Strings.kt",
    ),
    "scala": (
        "src/main/scala/org/shop/Cart.scala",
        "package org.shop\n\nimport scala.math.max\nimport org.shop.model.{Item, Row => Line}\n"
        "import org.shop.store._\n",
        "src/main/scala/org/shop/model/Item.scala src/main/scala/org/shop/model/Row.scala "
        "src/main/scala/org/shop/store/Db.scala",
        "src/main/scala/org/shop/model/Item.scala src/main/scala/org/shop/model/Row.scala "
        "src/main/scala/org/shop/store/Db.scala",
    ),
    "c": (
        "src/a.c",
        '#include <stdio.h>\n#include "a.h"\n#  include "util/b.h"\n#include <shop/c.h>\n',
        "src/a.h include/a.h src/util/b.h include/shop/c.h",
        "src/a.h src/util/b.h include/shop/c.h",
    ),
    "cpp": ("a.cpp", '#include "a.hpp"\n', "a.hpp", "a.hpp"),
    "csharp": (
        "App/Main.cs",
        "using System.Linq;\nusing Shop.Store.Sql;\n",
        "Store/Sql/Db.cs Store/Other.cs",
        "Store/Sql/Db.cs",
    ),
    "ruby": (
        "lib/shop/cart.rb",
        "require 'json'\nrequire 'shop/item'\nrequire_relative '../util'\n",
        "lib/shop/item.rb lib/util.rb spec/json.rb",
        "lib/shop/item.rb lib/util.rb",
    ),
    "php": (
        "src/Cart.php",
        "<?php\nuse Shop\\Model\\Item;\nrequire_once __DIR__ . '/util.php';\n",
        "src/Model/Item.php src/util.php",
        "src/Model/Item.php src/util.php",
    ),
    "bash": (
        "bin/run.sh",
        'source ./lib.sh\n. "$HERE/common.sh"\n',
        "bin/lib.sh bin/common.sh",
        "bin/lib.sh bin/common.sh",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_imports_lead_to_files_of_the_repository_and_libraries_to_none(name: str) -> None:
    path, text, files, wanted = CASES[name]
    language = language_of(path)
    assert language is not None and language.name == name
    paths = RepositoryPaths([path, *files.split()])
    found = [file for names in language.imports(text, path) for file in paths.find(names, path)]
    assert list(dict.fromkeys(found)) == wanted.split()


def test_every_language_is_tested_here() -> None:
    assert {language.name for language in LANGUAGES} == set(CASES)


def test_of_several_files_the_one_with_most_folders_in_common_is_imported() -> None:
    paths = RepositoryPaths(["a/x/util.h", "b/x/util.h", "b/y/c.c"])
    assert paths.find(["x/util.h"], "b/y/c.c") == ["b/x/util.h"]


def test_a_file_does_not_import_itself() -> None:
    paths = RepositoryPaths(["a/b.py", "b.py"])
    assert paths.find(["/b.py"], "b.py") == []


def test_neighbors_begin_with_the_same_name_and_go_on_with_the_nearest() -> None:
    paths = RepositoryPaths([f"s/{name}" for name in ("a.c", "b.c", "d.c", "m.c", "m.h", "z.c")])
    assert paths.neighbors("s/m.c") == ["s/m.h", "s/d.c", "s/b.c", "s/z.c", "s/a.c"]
