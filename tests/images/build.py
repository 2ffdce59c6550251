#!/usr/bin/env python3
"""Build the images that the tests and the demo run, without any container registry.

    python3 tests/images/build.py [NAME ...]      build what is missing, print one tag a line
    python3 tests/images/build.py --list          the names
    python3 tests/images/build.py --clean         remove them all

The root file system comes from Debian's packages (mmdebstrap), the Python packages from the index
that this machine's pip is set up for. They are downloaded here and installed inside without any
network, so neither an index nor its credentials nor this machine's certificates get into an image.

Each image is tagged `overlayspawner-test/NAME:HASH`, HASH being that of its recipe and of what it
is built on, and `:latest`; a tag that is there is not built again. Only the standard library is
needed, and a `docker` that answers. Building is safe to call twice, also at the same time.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("OVERLAYSPAWNER_CACHE") or HERE.parent.parent / ".cache") / "images"
REPOSITORY = "overlayspawner-test"
PUBLIC_MIRROR = "http://deb.debian.org/debian"
ARCHIVE = "http://archive.debian.org/debian"  # where releases go that are no longer maintained

# Root file systems: Debian's suite, its Python, and the minor version of its glibc 2, the newest that a wheel
# may ask for.
ROOTS = {
    "debian": ("bookworm", "3.11", 36),
    "bullseye": ("bullseye", "3.9.2", 31),  # there are packages that refuse 3.9.0
    "trixie": ("trixie", "3.13", 41),
    "sid": ("sid", "3.14", 41),
}
# name → what it stands on; each has a Dockerfile.
PARENTS = {
    "stacks": "debian",
    "venv": "debian",
    "nopython": "debian",
    "entrypoint": "stacks",
    "guests": "stacks",
}
# Other ways in which an image can have its Python; only `tests/layouts` need them.
LAYOUTS = {
    "py39": "bullseye",
    "py313": "trixie",
    "py314": "sid",
    "usrlocal": "debian",
    "conda": "stacks",
    "purevenv": "venv",
}
# name → the requirements of the wheels that its build finds in `wheels/`
NEEDS_WHEELS = {
    "stacks": "requirements.txt",
    "venv": "requirements.txt",
    "usrlocal": "requirements.txt",
    "guests": "guests/requirements.txt",
    "py39": "py39/requirements.txt",
    "py313": "py313/requirements.txt",
    "py314": "py314/requirements.txt",
}
# name → what of this folder its build finds besides its own
SHARED = {
    **{name: ["layout"] for name in LAYOUTS},
    "usrlocal": ["layout", "stacks/conda_prefix.py"],
}


class BuildError(Exception):
    """Something a person has to mend; the text says what."""


def say(text: str) -> None:
    print(f"images: {text}", file=sys.stderr, flush=True)


def run(*command: str, log: Path | None = None, **options: object) -> None:
    """Run a command quietly; on failure its output is shown."""
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )  # type: ignore[call-overload]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(result.stdout, encoding="utf-8")
    if result.returncode != 0:
        sys.stderr.write(result.stdout[-6000:])
        raise BuildError(
            f"`{command[0]} {command[1]}` failed with status {result.returncode}; its output is above"
        )


def exists(tag: str) -> bool:
    return (
        subprocess.run(
            ["docker", "image", "inspect", tag],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
        == 0
    )


def recipe_hash(name: str) -> str:
    """The first 16 digits of the hash of all that decides what the image holds."""
    suite, python, _ = ROOTS[root_of(name)]
    digest = hashlib.sha256(f"{platform.machine()} {suite} {python}\n".encode())
    if name not in ROOTS:
        digest.update(recipe_hash(parent_of(name)).encode())
    if name in NEEDS_WHEELS:
        digest.update((HERE / NEEDS_WHEELS[name]).read_bytes())
    for part in (name, *SHARED.get(name, ())):
        found = HERE / part
        for path in sorted(found.rglob("*")) if found.is_dir() else [found]:
            if path.is_file() and "__pycache__" not in path.parts:
                mode = path.stat().st_mode & 0o111
                digest.update(f"{path.relative_to(HERE)} {bool(mode)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def parent_of(name: str) -> str:
    """The image that another one's Dockerfile begins with."""
    return PARENTS.get(name) or LAYOUTS[name]


def root_of(name: str) -> str:
    """The root file system that an image stands on in the end."""
    while name not in ROOTS:
        name = parent_of(name)
    return name


def tag_of(name: str) -> str:
    """The tag of the image as its recipe is now."""
    return f"{REPOSITORY}/{name}:{recipe_hash(name)}"


def need(program: str, package: str) -> None:
    """See to a program of Debian's; raises BuildError where it can't be installed."""
    if shutil.which(program):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BuildError(
            f"{program} is needed to build the test images: install Debian's package `{package}`"
        )
    say(f"installing {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", env=environment)
    run("apt-get", "install", "-y", "--no-install-recommends", package, env=environment)


def build_root(name: str, tag: str) -> None:
    """A root file system that other images stand on."""
    need("mmdebstrap", "mmdebstrap")
    suite = ROOTS[name][0]
    say(f"making a root file system of Debian {suite} (about 20 s)")
    try:
        debootstrap(name, suite, tag, os.environ.get("DEBIAN_MIRROR") or PUBLIC_MIRROR)
    except BuildError:
        if suite != "bullseye":
            raise
        say(f"trying {ARCHIVE}")
        debootstrap(name, suite, tag, ARCHIVE)


def debootstrap(name: str, suite: str, tag: str, mirror: str) -> None:
    packages = ",".join((HERE / name / "packages.txt").read_text(encoding="utf-8").split())
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        archive = str(Path(folder) / "root.tar")
        command = [
            "mmdebstrap",
            "--variant=apt",
            f"--include={packages}",
            '--aptopt=APT::Install-Recommends "false"',
            # sid's lists are valid for a week; a mirror, or this machine's clock, may be further off
            *(['--aptopt=Acquire::Check-Valid-Until "false"'] if name != "debian" else []),
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            # The image names the public mirror whatever mirror this machine uses, and no proxy.
            f'--customize-hook=echo "deb {PUBLIC_MIRROR} {suite} main" > "$1/etc/apt/sources.list"',
            '--customize-hook=cd "$1/etc" && rm -f resolv.conf hostname apt/apt.conf.d/99mmdebstrap',
            suite,
            archive,
            f"deb {mirror} {suite} main",
        ]
        run(*command, log=CACHE / f"{name}.log")
        run("docker", "import", "--change", 'CMD ["bash"]', archive, tag)


def wheelhouse(name: str) -> Path:
    """A folder with every wheel that an image holds, downloaded with this machine's pip settings."""
    requirements = HERE / NEEDS_WHEELS[name]
    _, python, glibc = ROOTS[root_of(name)]
    machine = platform.machine()
    key = hashlib.sha256(f"{machine} {python}\n".encode() + requirements.read_bytes()).hexdigest()[:16]
    folder = CACHE / f"wheels-{key}"
    if (folder / ".complete").exists():
        return folder
    say(f"downloading the images' packages for Python {python} (about a minute)")
    folder.mkdir(parents=True, exist_ok=True)
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(glibc, 4, -1)]
    tags += [
        f"manylinux2014_{machine}",
        f"manylinux2010_{machine}",
        f"manylinux1_{machine}",
        f"linux_{machine}",
    ]
    platforms = [part for name in tags for part in ("--platform", name)]
    short = "".join(python.split(".")[:2])
    run(
        sys.executable,
        *("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"),
        *("--python-version", python, "--implementation", "cp"),
        *("--abi", f"cp{short}", "--abi", "abi3", "--abi", "none"),
        *platforms,
        # an image's own list is complete
        *(["--no-deps"] if requirements.parent != HERE else []),
        *("--dest", str(folder), "-r", str(requirements)),
    )
    (folder / ".complete").touch()
    return folder


def build_from_dockerfile(name: str, tag: str) -> None:
    base = image(parent_of(name))
    wheels = wheelhouse(name) if name in NEEDS_WHEELS else None
    say(f"building {tag}" + (" (about a minute)" if wheels else ""))
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        context = Path(folder) / "context"
        shutil.copytree(HERE / name, context, ignore=shutil.ignore_patterns("__pycache__"))
        for part in SHARED.get(name, ()):
            (context / part).parent.mkdir(exist_ok=True)
            if (HERE / part).is_dir():
                shutil.copytree(HERE / part, context / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(HERE / part, context / part)
        if wheels is not None:
            (context / "wheels").mkdir()
            for wheel in wheels.glob("*.whl"):
                os.link(wheel, context / "wheels" / wheel.name)
        # The plain builder is everywhere; BuildKit needs a plug-in that Debian doesn't install.
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        run(
            *("docker", "build", "--network", "none", "--force-rm"),
            *("--build-arg", f"BASE={base}", "--tag", tag, str(context)),
            log=CACHE / f"{name}.log",
            env=environment,
        )
    # What the first stages left, with all the wheels in it, has served its purpose.
    run("docker", "image", "prune", "--force", "--filter", f"label={REPOSITORY}.stage=build")


def clean() -> None:
    """Remove the images of every recipe there was; one that a container still uses stays."""
    listing = subprocess.run(
        ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{REPOSITORY}/*"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    for tag in listing.stdout.split():
        removed = subprocess.run(["docker", "image", "rm", tag], capture_output=True, text=True, check=False)
        if removed.returncode != 0:
            say(f"{tag} stays: {removed.stderr.strip()}")


def image(name: str) -> str:
    """Build the image unless it is there; returns its tag. Raises BuildError."""
    if name not in {*ROOTS, *PARENTS, *LAYOUTS}:
        raise BuildError(f"there is no test image {name!r}; there are: {', '.join([*PARENTS, *LAYOUTS])}")
    tag = tag_of(name)
    if not exists(tag):
        if name in ROOTS:
            build_root(name, tag)
        else:
            build_from_dockerfile(name, tag)
    run("docker", "tag", tag, f"{REPOSITORY}/{name}:latest")
    return tag


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the test images that are missing; print their tags.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(PARENTS)} (all of these when none is given), {', '.join(LAYOUTS)}",
    )
    parser.add_argument("--wheels", metavar="NAME", help="only print the folder of an image's wheels")
    parser.add_argument("--list", action="store_true", help="only print the names")
    parser.add_argument("--clean", action="store_true", help="remove the images instead")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join([*PARENTS, *LAYOUTS]))
        return 0
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        with open(CACHE / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if arguments.clean:
                clean()
                return 0
            if arguments.wheels:
                print(wheelhouse(arguments.wheels))
                return 0
            for name in arguments.names or PARENTS:
                print(image(name), flush=True)
    except (BuildError, OSError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
