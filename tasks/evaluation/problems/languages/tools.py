"""Registry of the languages, other than Python, in which problems can be run.

Answer and tests are one program, as in MultiPL-E and HumanEval-X: it passes if it ends with status
0. So, as in a test that runs `together`, an answer that exits early with status 0 passes. To add a
language, add an entry to `TOOLS`.
"""

from tasks.evaluation.problems.languages import sources
from tasks.evaluation.problems.languages.tool import Form, LanguageTool

# V8 reserves address space in advance and starts a thread for each of its helpers
MEMORY_MIB, PROCESSES = 2048, 64
LEAST_S = 30.0  # tsc and javac take two on an idle machine, ten on a busy one

# the JVM would reserve a quarter of the machine's memory, and start threads to compile and collect
_JVM = "-Xmx256m -Xss8m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:CompressedClassSpaceSize=64m"
_JVM_OPTIONS = (*_JVM.split(), "-XX:ReservedCodeCacheSize=48m")
# cc is a link through /etc/alternatives on Debian; with symbols, tests exceed the limit of a file
_RUSTC = ("rustc", "--edition=2021", "-Awarnings", "-Clinker=gcc", "-Cstrip=symbols")

TOOLS = {
    "bash": LanguageTool(
        names=("bash", "sh"), forms=(Form(("bash",), "main.sh", (("bash", "main.sh"),)),)
    ),
    "cpp": LanguageTool(
        names=("cpp", "c++"),
        forms=(
            Form(
                ("g++",),
                "main.cpp",
                (("g++", "-std=c++17", "-o", "main", "main.cpp"), ("./main",)),
            ),
        ),
    ),
    "go": LanguageTool(
        names=("go", "golang", "go_test.go"),
        forms=(
            Form(("go",), "main_test.go", (("go", "test", "main_test.go"),), marker="func Test"),
            Form(("go",), "main.go", (("go", "run", "main.go"),)),
        ),
        arrange=sources.go_imports_first,
        # the tests of HumanEval-X use testify
        files={"go/src/github.com/stretchr/testify/assert/assert.go": sources.GO_ASSERT},
        environment={
            "GOCACHE": "/tmp/cache",
            "GOPATH": "/tmp/go",
            "GO111MODULE": "off",
            "GOFLAGS": "-vet=off",
            "CGO_ENABLED": "0",
            "GOMAXPROCS": "2",
        },
    ),
    "java": LanguageTool(
        names=("java",),
        forms=(
            Form(
                ("javac", "java"),
                "{main}.java",
                (
                    ("javac", *(f"-J{option}" for option in _JVM_OPTIONS), "{main}.java"),
                    ("java", *_JVM_OPTIONS, "-ea", "-cp", ".", "{main}"),
                ),
            ),
        ),
        finds_itself="java",
        settings="conf/security/java.security",
    ),
    "javascript": LanguageTool(
        names=("javascript", "js"),
        forms=(Form(("node",), "main.js", (("node", "main.js"),)),),
        arrange=sources.with_assert,
    ),
    "rust": LanguageTool(
        names=("rust", "rs"),
        forms=(
            Form(
                ("rustc", "gcc"),
                "main.rs",
                ((*_RUSTC, "--test", "-o", "main", "main.rs"), ("./main",)),
                marker="#[test]",
            ),
            Form(("rustc", "gcc"), "main.rs", ((*_RUSTC, "main.rs"), ("./main",))),
        ),
        arrange=sources.without_crates,
        absent={
            "md5::": "crate md5",
            "Regex::new": "crate regex",
            "rand::thread_rng": "crate rand",
        },
        finds_itself="rustc",
    ),
    "typescript": LanguageTool(
        names=("typescript", "ts"),
        forms=(
            Form(
                ("node",),
                "main.ts",
                (("node", "--experimental-strip-types", "--no-warnings", "main.ts"),),
                trial=("node", "--experimental-strip-types", "-e", "0"),
            ),
            Form(
                ("tsc", "node"),
                "main.ts",
                (
                    ("node", "{tsc}", "--target", "es2020", "--module", "commonjs", "main.ts"),
                    ("node", "main.js"),
                ),
            ),
            Form(("deno",), "main.ts", (("deno", "run", "--no-check", "main.ts"),)),
            Form(("bun",), "main.ts", (("bun", "run", "main.ts"),)),
        ),
    ),
}


def language_named(name: str) -> str:
    """The key in `TOOLS` of a language as a problem set names it; "" unknown."""
    return next((key for key, tool in TOOLS.items() if name.lower() in tool.names), "")
