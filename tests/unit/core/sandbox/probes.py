"""Programs that try to escape from the sandbox (`ESCAPES`) or to fake a pass (`CHEATS`).

The `f()` of an escape returns whether it succeeded, and the test requires False: a probe that
merely crashes fails its test. `{folder}`, `{secret}`, `{port}`, `{name}` and `{variable}` are a
writable folder, a readable file, a listening port, an abstract socket and an environment variable
of the host. Escapes with `bites` succeed without a sandbox.
"""

import textwrap
from typing import NamedTuple

from tasks.core.sandbox import syscalls


class Escape(NamedTuple):
    """A program and what it tries to reach."""

    kind: str
    name: str
    program: str
    bites: bool = False


HELPERS = """
import ctypes, mmap, os, resource, signal, socket, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def works(attempt, *arguments):
    try: attempt(*arguments)
    except (OSError, ValueError, MemoryError, RuntimeError): return False
    return True
def written(path):
    return works(lambda: open(path, "w").write("x"))
def joins(name):
    return works(socket.socket(socket.AF_UNIX).connect, name)
def sent(text, address):
    return works(socket.socket(type=socket.SOCK_DGRAM).sendto, text, address)
def called(number, *arguments):
    return libc.syscall(SYSCALLS[number], *arguments) >= 0
def c_getenv(name):
    libc.getenv.restype = ctypes.c_char_p
    return libc.getenv(name)
"""


def _escape(kind: str, name: str, text: str, bites: bool = False) -> Escape:
    """`text` is an expression, or the body of f."""
    body = text if "return" in text else f"return bool({text})"
    helpers = HELPERS.replace("SYSCALLS", repr(syscalls.numbers()))
    helpers = helpers.replace("{", "{{").replace("}", "}}")
    return Escape(kind, name, f"{helpers}\ndef f():\n{textwrap.indent(body, '    ')}\n", bites)


ESCAPES = [
    _escape("file", "write into a host folder", 'written("{folder}/a")', True),
    _escape("file", "write below /usr", 'written("/usr/probe")'),
    _escape("file", "write below /etc", 'written("/etc/probe")'),
    _escape("file", "write into the root folder", 'written("/probe")'),
    _escape("file", "write a device folder", 'written("/dev/probe")'),
    _escape("file", "change the interpreter's library", "written(os.__file__)"),
    _escape("file", "read a host file", 'works(open, "{secret}")', True),
    _escape("file", "read the accounts", 'works(open, "/etc/passwd")', True),
    _escape("file", "read the host's name", 'works(open, "/etc/hostname")'),
    _escape("file", "a shell", 'os.system("touch {folder}/b") == 0', True),
    _escape("file", "posix.system", 'sys.modules["posix"].system("touch {folder}/c") == 0', True),
    _escape("file", "a subprocess", 'subprocess.call(["touch", "{folder}/d"]) == 0', True),
    _escape("file", "open by ctypes", 'libc.open(b"{folder}/e", 0o101, 0o600) >= 0', True),
    _escape("file", "make a disk's device", 'works(os.mknod, "/tmp/disk", 0o60600, 0x800)'),
    _escape("file", "mount a file system", 'libc.mount(b"x", b"/tmp", b"tmpfs", 0, None) == 0'),
    _escape("file", "make / writable", 'libc.mount(None, b"/", None, 32, None) == 0'),
    _escape("file", "leave by chroot", 'libc.chroot(b"/tmp") == 0'),
    _escape("file", "a file beyond the limit", 'works(os.truncate, "/tmp/big", 1 << 40)'),
    _escape(
        "file",
        "fill the temporary folder",
        """
written = 0
try:
    for number in range(100):
        with open(f"/tmp/{{number}}", "wb") as file: written += file.write(bytes(8 << 20))
except OSError: pass
return written > {tmp_bytes}
""",
    ),
    _escape(
        "symlink",
        "a link out of the sandbox",
        'os.symlink("{folder}", "/tmp/link")\nreturn os.path.exists("/tmp/link/secret")',
    ),
    _escape("symlink", "a hard link to a host file", 'works(os.link, "{secret}", "/tmp/hard")'),
    _escape(
        "symlink",
        "write through a link",
        'os.symlink("/usr", "/tmp/usr")\nreturn written("/tmp/usr/x")',
    ),
    _escape(
        "socket",
        "TCP to this machine",
        'works(socket.create_connection, ("127.0.0.1", {port}), 2)',
        True,
    ),
    _escape("socket", "an abstract socket", 'joins("\\0{name}")', True),
    _escape("socket", "a socket in a host folder", 'joins("{folder}/s")', True),
    _escape("socket", "UDP to the world", 'sent(b"x", ("192.0.2.1", 9))'),
    _escape(
        "socket", "IPv6 to the world", 'works(socket.create_connection, ("2001:db8::1", 9), 1)'
    ),
    _escape("socket", "raw packets", "works(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)"),
    _escape(
        "socket", "listen to the wire", "works(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 3)"
    ),
    _escape("DNS", "ask for a name", 'works(socket.getaddrinfo, "example.com", 80)'),
    _escape(
        "DNS",
        "a query made by hand",
        """
query = b"ab\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" b"\\7example\\3com\\0\\0\\1\\0\\1"
return sent(query, ("198.51.100.53", 53))
""",
    ),
    _escape("environment", "os.environ", '"{variable}" in os.environ'),
    _escape("environment", "getenv of C", 'c_getenv(b"{variable}") is not None'),
    _escape("environment", "/proc/self/environ", 'works(open, "/proc/self/environ")', True),
    _escape("environment", "/proc/1/environ", 'works(open, "/proc/1/environ")'),
    _escape("/proc", "see other processes", 'os.path.isdir("/proc") and os.listdir("/proc")', True),
    _escape("/proc", "the checker's memory", 'works(open, f"/proc/{{os.getppid()}}/mem", "rb")'),
    _escape("/proc", "change the kernel's settings", 'written("/proc/sys/kernel/core_pattern")'),
    _escape("/proc", "mount /proc", 'libc.mount(b"proc", b"/tmp", b"proc", 0, None) == 0'),
    _escape("/proc", "trace the checker", "libc.ptrace(16, os.getppid(), 0, 0) == 0"),
    _escape(
        "/proc",
        "read the checker's memory by a system call",
        """
class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
room = ctypes.create_string_buffer(64)
mine = Piece(ctypes.addressof(room), 64)
return libc.process_vm_readv(os.getppid(), ctypes.byref(mine), 1, ctypes.byref(mine), 1, 0) > 0
""",
    ),
    _escape(
        "fork bomb",
        "processes",
        """
forks = 0
try:
    while forks < 1000:
        if os.fork() == 0: time.sleep(600)
        forks += 1
except OSError: pass
return forks > {processes}
""",
    ),
    _escape(
        "fork bomb",
        "threads",
        """
started = 0
try:
    while started < 1000:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        started += 1
except (RuntimeError, MemoryError): pass
return started > {processes}
""",
    ),
    _escape("memory bomb", "one allocation", "works(bytearray, 1 << 36)"),
    _escape("memory bomb", "an anonymous mapping", "works(mmap.mmap, -1, 1 << 34)", True),
    _escape(
        "memory bomb", "raise the limit", "works(resource.setrlimit, resource.RLIMIT_AS, (-1, -1))"
    ),
    _escape("kernel", "read the session keyring", 'called("keyctl", 0, -3, 0)'),
    _escape("kernel", "join a keyring", 'called("keyctl", 1, None)'),
    _escape("kernel", "leave a key", 'called("add_key", b"user", b"probe", b"x", 1, -3)'),
    _escape("kernel", "ask for a key", 'called("request_key", b"user", b"probe", None, -3)'),
    _escape("kernel", "shared memory of System V", 'called("shmget", 0, 4096, 0o1600)'),
    _escape("kernel", "a queue of System V", 'called("msgget", 0, 0o1600)'),
    _escape("kernel", "a semaphore of System V", 'called("semget", 0, 1, 0o1600)'),
    _escape("kernel", "a file that is only memory", 'works(os.memfd_create, "probe")'),
    _escape("kernel", "a new user namespace", "libc.unshare(0x10000000) == 0"),
    _escape(
        "kernel",
        "a process in a new user namespace",
        """
pid = libc.syscall(SYSCALLS_CLONE, 0x10000000 | 17, 0, 0, 0, 0)
if pid == 0: os._exit(0)
return pid > 0
""".replace("SYSCALLS_CLONE", str(syscalls.numbers()["clone"])),
    ),
    _escape(
        "kernel",
        "io_uring",
        'called("io_uring_setup", 8, ctypes.create_string_buffer(120))',
    ),
    _escape("kernel", "userfaultfd", 'called("userfaultfd", 1)'),
    _escape("kernel", "bpf", 'called("bpf", 0, ctypes.create_string_buffer(128), 128)'),
    _escape(
        "kernel",
        "perf",
        """
event = bytearray(128)
event[0], event[4], event[8] = 1, 128, 0  # a software event: the CPU clock
event[40] = 0b01100000  # of user space only
room = (ctypes.c_char * 128).from_buffer(event)
return called("perf_event_open", room, 0, -1, -1, 0)
""",
    ),
    _escape("kernel", "VSOCK", "works(socket.socket, 40, socket.SOCK_STREAM)"),
    _escape("kernel", "the kernel's ciphers", "works(socket.socket, 38, socket.SOCK_SEQPACKET)"),
    _escape("kernel", "netlink", "works(socket.socket, 16, socket.SOCK_RAW)"),
    _escape("kernel", "a handle of a process", 'called("pidfd_open", os.getppid(), 0)'),
    _escape("kernel", "a limit of the checker", "works(resource.prlimit, os.getppid(), 0, (1, 1))"),
    _escape(
        "kernel",
        "a file that signals the checker",
        "import fcntl\nreturn works(fcntl.fcntl, socket.socketpair()[0], 8, os.getppid())",
    ),
    _escape("kernel", "signal the checker", "works(os.kill, os.getppid(), 0)"),
    _escape("kernel", "signal all processes", "works(os.kill, -1, 0)"),
    _escape(
        "memory bomb",
        "three million files",
        """
made = 0
try:
    while made < 20_000:
        os.close(os.open(f"/tmp/{{made}}", os.O_CREAT))
        made += 1
except OSError: pass
return made > {tmp_files}
""",
    ),
    _escape("signal", "end the checker", "works(os.kill, os.getppid(), 0)"),
    _escape("signal", "type on the terminal", 'works(os.open, "/dev/tty", os.O_RDWR)'),
    _escape("user", "become root", "works(os.setuid, 0) and os.getuid() == 0 and {by_root}"),
    _escape("user", "become another group", "works(os.setgroups, [0])"),
]

# what is judged with `assert f() == 1`; none of these functions gives 1
CHEATS = {
    "sys.exit(0) at once": "import sys\nsys.exit(0)",
    "sys.exit(0) when called": "import sys\ndef f(): sys.exit(0)",
    "os._exit(0) at once": "import os\nos._exit(0)",
    "os._exit(0) when called": "import os\ndef f(): os._exit(0)",
    "its own end by a signal": "import os\ndef f(): os.kill(os.getpid(), 9)",
    "an exit of the whole group": "import os\ndef f(): os.kill(0, 9)",
    "the end of all processes": "import os\ndef f():\n    os.kill(-1, 9)\n    os._exit(0)",
    "words at the exit": "import atexit\natexit.register(print, 'pass')\ndef f(): raise SystemExit",
    "a nonce guessed on every file": """
        import os
        def f():
            for fd in range(64):
                try: os.write(fd, b'started\\n' + b'0' * 32 + b'["pass", "", 0]\\n')
                except OSError: pass
            os._exit(0)
        """,
    "a nonce read from standard input": "import sys\ndef f(): print(sys.stdin.read() + '[]')",
    "a nonce looked for in the frames": """
        import sys
        def f():
            frame = sys._getframe()
            while frame:
                for scope in (frame.f_locals, frame.f_globals):
                    for value in list(scope.values()):
                        if isinstance(value, dict) and "nonce" in value: return 1
                frame = frame.f_back
        """,
    "a forged verdict on the pipe": """
        import json, os
        def f():
            text = json.dumps({"verdict": "pass", "detail": ""}).encode()
            for fd in range(3, 64):
                try: os.write(fd, b"%010d" % len(text) + text)
                except OSError: pass
            os._exit(0)
        """,
    "another verdict function": """
        import sys
        sys.modules["__main__"].check = lambda *a: ("pass", "")
        sys.modules["__main__"].describe = lambda *a: "pass"
        def f(): return 2
        """,
    "an edited list of results": """
        import gc
        def f():
            for thing in gc.get_objects():
                if isinstance(thing, list) and thing and all(isinstance(x, str) for x in thing):
                    thing[:] = ["pass"] * len(thing)
            return 2
        """,
    "patched exceptions": """
        import builtins
        builtins.AssertionError = builtins.Exception = KeyboardInterrupt
        def f(): return 2
        """,
    "patched json": """
        import json
        json.dumps = lambda *a, **k: '{"value": 1, "verdict": "pass"}'
        def f(): raise KeyError
        """,
    "an object that equals everything": """
        class Any:
            def __eq__(self, other): return True
        def f(): return Any()
        """,
    "a number that equals everything": """
        class Any(int):
            def __eq__(self, other): return True
            def __hash__(self): return 1
        def f(): return Any(5)
        """,
    "an answer too large to read": "def f(): return 'x' * (8 << 20)",
    "an answer too deep to read": """
        def f():
            deep = []
            for _ in range(400): deep = [deep]
            return deep
        """,
    "an answer without an end": """
        class Endless(list):
            def __iter__(self):
                while True: yield 1
        def f(): return Endless()
        """,
    "an endless text on standard output": """
        def f():
            for _ in range(300): print("x" * 10**5)
            return 2
        """,
    "an endless text on standard error": """
        import os
        def f():
            for _ in range(300): os.write(2, b"x" * 10**5)
            return 2
        """,
    "an endless error": "def f(): raise ValueError('x\\n' * 10**6)",
    "StopIteration in a loop of the test": "def f(): raise StopIteration",
    "memory until none is left": """
        kept = []
        def f():
            while True: kept.append(bytearray(1 << 22))
        """,
}
KINDS = {
    "file",
    "socket",
    "DNS",
    "environment",
    "/proc",
    "fork bomb",
    "kernel",
    "memory bomb",
    "signal",
    "symlink",
    "user",
}
