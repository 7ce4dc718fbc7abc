"""Files as bytes, decompressed (gzip, bzip2, xz and zstd, recognized by their first bytes) and in
UTF-8: text in UTF-16, as Windows programs write it, is converted.

pyarrow, which decompresses zstd, is imported where it is used: `finetune plan` must not import it.
"""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TextIO, cast

ENDINGS = (".gz", ".zst", ".bz2", ".xz")
DAMAGED = (EOFError, zlib.error, lzma.LZMAError)  # besides OSError: what damaged data raises


def _zstd(path: Path) -> IO[bytes]:
    import pyarrow as pa

    file = io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return cast(IO[bytes], file)


OPENERS: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": lambda path: cast(IO[bytes], gzip.GzipFile(path)),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _zstd,
}


class _Converted(io.RawIOBase):
    """The UTF-8 form of a file in UTF-16."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            raw = self._file.read(io.DEFAULT_BUFFER_SIZE)
            try:
                text = self._decoder.decode(raw, not raw)
            except UnicodeDecodeError as error:  # the file ends within a character
                raise EOFError(str(error)) from error
            self._rest = text.encode("utf-8", "surrogatepass")
            if not raw:
                break
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def open_bytes(path: Path) -> IO[bytes]:
    """A file, or what is compressed in it; text in UTF-16 is converted to UTF-8.

    Raises:
        OSError: It can't be read.
    """
    with _decompressed(path) as file:
        start = file.read(4)
    file = _decompressed(path)  # not all of them can be rewound
    if encoding := _utf16(start):
        return cast(IO[bytes], io.BufferedReader(_Converted(file, encoding)))
    return file


def _utf16(start: bytes) -> str:
    """The encoding of text in UTF-16, by its first four bytes: a byte order mark, or two ASCII
    characters, with which data files begin; "" for another encoding."""
    if start == codecs.BOM_UTF32_LE:  # it begins with the mark of UTF-16
        return ""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    has_value = [bool(byte) for byte in start]
    is_little = has_value == [True, False, True, False]
    return "utf-16-le" if is_little else "utf-16-be" if has_value == [False, True] * 2 else ""


def _decompressed(path: Path) -> IO[bytes]:
    """A file, or what is compressed in it.

    Raises:
        OSError: It can't be read.
    """
    file = path.open("rb")
    try:
        start = file.read(8)
        opener = next((OPENERS[mark] for mark in OPENERS if start.startswith(mark)), None)
        if opener is None:
            file.seek(0)
            return file
    except BaseException:
        file.close()
        raise
    file.close()
    return opener(path)


def open_text(path: Path) -> TextIO:
    """A file as text in UTF-8. Bytes that are not UTF-8 become surrogates, so that they are
    reported where a text is checked, by row."""
    return io.TextIOWrapper(
        open_bytes(path), encoding="utf-8-sig", errors="surrogateescape", newline=""
    )


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed, by its first bytes."""
    with path.open("rb") as file:
        return file.read(8).startswith(tuple(OPENERS))


def plain_name(name: str) -> str:
    """The name of a file without the ending of its compression, in lower case."""
    name = name.lower()
    return next((name.removesuffix(e) for e in ENDINGS if name.endswith(e)), name)
