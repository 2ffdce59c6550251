"""Every package of the local index, and what is special about it.

========================  ============================================================================
project                   what it is there for
========================  ============================================================================
tinyleaf 1.0 1.1 2.0      no dependencies, several versions
tinytree 1.0 2.0          1.0 needs ``tinyleaf<2``, 2.0 needs ``tinyleaf>=2``
tinyforest 1.0            needs tinytree: a dependency of a dependency
tinyextra 1.0             extras ``leaf`` and ``tree``
tinyscript 1.0            console script ``tinyscript-hello``
tinydata 1.0              package data and ``share/tinydata/data.txt`` below the prefix
tinymany 1.0              500 modules
tinybig 1.0               4 MB that do not compress
tinysdist 1.0             only as an sdist
tinyrefuse 1.0            an sdist whose build fails
tinyns-one, tinyns-two    two parts of the namespace package ``tinyns``
tinyhtml 1.0              HTML in its summary and description
tinyhtmlname 1.0          HTML where its metadata should have the name
tinytruncated 1.0         the second half of the wheel is missing; the hash fits
tinywronghash 1.0         the index names another hash
tinyleft, tinyright 1.0   contradict each other (``tinyleaf<2`` and ``tinyleaf>=2``)
tinyfuture 1.0            needs Python 4
tinypast 1.0 2.0          2.0 needs Python 4
tinyyanked 1.0 1.1        1.1 is yanked
tinypre 1.0 2.0rc1        a pre-release
tinylost 1.0              needs a project that does not exist
tinyneeds 1.0             needs tinyfuture: a dependency that is not for this Python
tinyother 1.0 2.0         1.0 is a wheel for any system, 2.0 for one that nobody has, and for Python 3.8
tinyforeign 1.0           only wheels for other systems
tinyonlypre 1.0rc1        nothing but a pre-release
tinyallyanked 1.0         nothing but a yanked version
tinyliar 1.0              its metadata has another name
tinyliarversion 1.0       its metadata has another version
tinyhuge 1.0              METADATA of 8 MB, half of it one summary
tinynocompiler 1.0        an sdist that calls a compiler; it has ``tiny.c``
tinynoheader 1.0          an sdist whose C file includes a header that is nowhere
tinynolibrary 1.0         an sdist that is linked with a library that is nowhere
tinynomodule 1.0          an sdist whose build imports a module that is nowhere
tinynoconfig 1.0          an sdist that asks ``tinydb_config``, which is nowhere
tinyverbose 1.0           an sdist whose build prints very much, secrets and HTML among it, and fails
========================  ============================================================================
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from tests.support.wheels import make_sdist, make_wheel


@dataclass
class Entry:
    """One file of the index.

    Parameters
    ----------
    path:
        The file.
    project:
        Its project, normalised.
    requires_python:
        As the index tells it, without opening the file.
    yanked:
        The reason, or empty.
    sha256:
        What the index says instead of the file's hash.
    """

    path: Path
    project: str
    requires_python: str = ""
    yanked: str = ""
    sha256: str = ""


HTML = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"


def build(directory: Path) -> list[Entry]:
    """Write all packages into a directory and return them."""
    out: list[Entry] = []

    def wheel(name: str, version: str, *, yanked: str = "", sha256: str = "", **options: object) -> Path:
        path = make_wheel(directory, name, version, **options)  # type: ignore[arg-type]
        python = str(options.get("requires_python", ""))
        out.append(Entry(path, name, requires_python=python, yanked=yanked, sha256=sha256))
        return path

    for version in ("1.0", "1.1", "2.0"):
        wheel("tinyleaf", version)
    wheel("tinytree", "1.0", requires=["tinyleaf>=1.0,<2"])
    wheel("tinytree", "2.0", requires=["tinyleaf>=2"])
    wheel("tinyforest", "1.0", requires=["tinytree"])
    wheel("tinyextra", "1.0", extras={"leaf": ["tinyleaf"], "tree": ["tinytree<2"]})
    wheel(
        "tinyscript",
        "1.0",
        files={"tinyscript.py": "import sys\n\n\ndef main():\n    print('hello from', sys.prefix)\n"},
        scripts={"tinyscript-hello": "tinyscript:main"},
    )
    wheel(
        "tinydata",
        "1.0",
        files={"tinydata/__init__.py": "", "tinydata/inside.txt": "inside\n"},
        data={"share/tinydata/data.txt": "data\n"},
    )
    many: dict[str, str | bytes] = {"tinymany/__init__.py": ""}
    many.update({f"tinymany/part{i // 50}/m{i}.py": f"N = {i}\n" for i in range(500)})
    wheel("tinymany", "1.0", files=many)
    noise = random.Random(1).randbytes(4_000_000)  # not for secrets: the same bytes in every run
    wheel("tinybig", "1.0", files={"tinybig/__init__.py": "", "tinybig/noise.bin": noise})
    out.append(Entry(make_sdist(directory, "tinysdist", "1.0", requires=["tinyleaf"]), "tinysdist"))
    out.append(Entry(make_sdist(directory, "tinyrefuse", "1.0", refuses=True), "tinyrefuse"))
    wheel("tinyns-one", "1.0", files={"tinyns/one.py": "N = 1\n"})
    wheel("tinyns-two", "1.0", files={"tinyns/two.py": "N = 2\n"})
    wheel("tinyhtml", "1.0", summary=HTML, description=HTML)
    wheel("tinyhtmlname", "1.0", metadata=f"Metadata-Version: 2.1\nName: {HTML}\nVersion: 1.0\n")
    truncated = wheel("tinytruncated", "1.0", files={"tinytruncated.py": noise[:20_000]})
    truncated.write_bytes(truncated.read_bytes()[:8_000])
    wheel("tinywronghash", "1.0", sha256="0" * 64)
    wheel("tinyleft", "1.0", requires=["tinyleaf<2"])
    wheel("tinyright", "1.0", requires=["tinyleaf>=2"])
    wheel("tinyfuture", "1.0", requires_python=">=4")
    wheel("tinypast", "1.0")
    wheel("tinypast", "2.0", requires_python=">=4")
    wheel("tinyyanked", "1.0")
    wheel("tinyyanked", "1.1", yanked="it was a mistake")
    wheel("tinypre", "1.0")
    wheel("tinypre", "2.0rc1")
    wheel("tinylost", "1.0", requires=["tinynowhere>=1"])
    wheel("tinyneeds", "1.0", requires=["tinyfuture"])
    wheel("tinyother", "1.0")
    wheel("tinyother", "2.0", tag="cp38-cp38-win_amd64")
    wheel("tinyother", "2.0", tag="cp38-cp38-macosx_11_0_arm64")
    wheel("tinyforeign", "1.0", tag="py3-none-win_amd64")
    wheel("tinyforeign", "1.0", tag="cp38-cp38-manylinux_2_17_s390x")
    wheel("tinyonlypre", "1.0rc1")
    wheel("tinyallyanked", "1.0", yanked="it was a mistake")
    for name, text in (
        ("tinyliar", "Metadata-Version: 2.1\nName: tinyleaf\nVersion: 1.0\n"),
        ("tinyliarversion", "Metadata-Version: 2.1\nName: tinyliarversion\nVersion: 9.0\n"),
    ):
        wheel(name, "1.0", metadata=text)
    wheel("tinyhuge", "1.0", summary="long " * 800_000, description="text\n" * 800_000)
    cc = "import os, subprocess\nos.chdir(HERE)\nsubprocess.run(['gcc', '-c', 'tiny.c'], check=True)\n"
    ld = "subprocess.run(['gcc', 'tiny.o', '-ltinynowhere', '-o', 'tiny'], check=True)\n"
    main = "int main(void) { return 0; }\n"
    for name, builds, text in (
        ("tinynocompiler", cc, main),
        ("tinynoheader", cc, "#include <tiny/nowhere.h>\n" + main),
        ("tinynolibrary", cc + ld, main),
        ("tinynomodule", "import tinynowhere\n", ""),
        ("tinynoconfig", "import subprocess\nsubprocess.run(['tinydb_config', '--libs'])\n", ""),
        ("tinyverbose", VERBOSE, ""),
    ):
        path = make_sdist(directory, name, "1.0", builds=builds, extra={"tiny.c": text})
        out.append(Entry(path, name))
    return out


VERBOSE = f"""
for n in range(2000):
    print("line", n, "x" * 10_000)
print("\\033[31mred\\033[0m \\007 https://someone:hidden-word@index.example/simple?token=hidden-token&a=b")
print({HTML!r})
raise SystemExit("error: the end")
"""


def old_distributions(directory: Path) -> list[Path]:
    """Write stand-ins for old releases of what a Jupyter server needs.

    Each has the old version and lacks what today's server imports from it, so that a server that sees one
    of them in ``~/.local`` dies as it does with the real old release.
    """
    return [
        make_wheel(
            directory,
            "traitlets",
            "4.3.3",
            files={
                "traitlets/__init__.py": "class HasTraits:\n    pass\n",
                "traitlets/config/__init__.py": "class Application:\n    pass\n",
            },
        ),
        make_wheel(
            directory,
            "sqlalchemy",
            "1.3.24",
            files={"sqlalchemy/__init__.py": '__version__ = "1.3.24"\n'},
        ),
        make_wheel(
            directory,
            "jupyter-client",
            "6.1.12",
            files={"jupyter_client/__init__.py": "raise ImportError('too old')\n"},
        ),
    ]
