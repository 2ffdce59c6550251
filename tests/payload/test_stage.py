"""Stages: stubs of what is there, what an installer leaves, and scripts that start with the env's Python."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayspawner.payload import space, stubs
from overlayspawner.payload.contract import OverlayError
from overlayspawner.payload.dists import Dist, details, listing, record, record_rows
from overlayspawner.payload.overlay import Env
from overlayspawner.payload.probe import Base
from overlayspawner.payload.removal import owned_files
from overlayspawner.payload.stage import Stage, record_row, shebang
from tests.support.changes import write
from tests.support.envs import put
from tests.support.wheels import make_wheel


@pytest.fixture
def env(tmp_path: Path) -> Env:
    made = Env(str(tmp_path / "env"), "3.11")
    os.makedirs(made.site_packages)
    os.makedirs(made.bin)
    os.makedirs(made.state)
    return made


@pytest.fixture
def image() -> Base:
    return Base(
        executable="/opt/image/bin/python3",
        interpreter="/opt/below/bin/python3.11",
        prefix="/opt/image",
        base_prefix="/opt/below",
        version="3.11",
        full_version="3.11.2",
        implementation="cpython",
        ext_suffix=".so",
        machine="x86_64",
        libc="glibc",
        site_dirs=[],
    )


def image_site(tmp_path: Path) -> Path:
    """Distributions in every form that images have."""
    site = tmp_path / "image"
    put(site, make_wheel(tmp_path / "w", "Proper.Name", "1.0", requires=["dep>=1"]))
    write(
        str(site),
        {
            "conda_thing-2.0.dist-info/METADATA": "Name: conda-thing\nVersion: 2.0\n",
            "conda_thing-2.0.dist-info/INSTALLER": "conda\n",
            "debian_dir-3.0.egg-info/PKG-INFO": "Name: debian-dir\nVersion: 3.0\n",
            "debian_dir-3.0.egg-info/requires.txt": "dep\n\n[extra]\nother\n\n[:python_version < '3']\nold\n",
            "debian_file-4.0-py3.11.egg-info": "Metadata-Version: 1.1\nName: debian-file\nVersion: 4.0\n",
            "unversioned.egg-info/PKG-INFO": "Name: unversioned\nVersion: 5.0\n",
            "develop.egg-link": f"{site}/src\n.",
            "src/develop.egg-info/PKG-INFO": "Name: develop\nVersion: 6.0\n",
            "~roken-1.0.dist-info/METADATA": "",
            "notes.txt": "",
        },
    )
    return site


def test_distributions_in_every_form(tmp_path: Path) -> None:
    found = {dist.name: dist for dist in listing(str(image_site(tmp_path)))}
    assert {name: dist.version for name, dist in found.items()} == {
        "proper-name": "1.0",
        "conda-thing": "2.0",
        "debian-dir": "3.0",
        "debian-file": "4.0",
        "unversioned": "5.0",
        "develop": "6.0",
    }
    assert details(found["proper-name"]).requires == ["dep>=1"]
    assert details(found["debian-dir"]).requires == [
        "dep",
        'other; extra == "extra"',
        "old; (python_version < '3')",
    ]
    assert details(found["proper-name"]).size > 0


def test_details_are_read_again_when_a_package_is_replaced(tmp_path: Path) -> None:
    site = tmp_path / "site"
    put(site, make_wheel(tmp_path / "w", "thing", "1.0", summary="first"))
    dist = listing(str(site))[0]
    assert details(dist).summary == "first"
    info = Path(dist.path)
    info.rename(tmp_path / "away")
    put(site, make_wheel(tmp_path / "w2", "thing", "1.0", summary="second"))
    assert details(dist).summary == "second"


def test_a_stub_is_a_real_directory_of_links(tmp_path: Path, env: Env) -> None:
    dists = listing(str(image_site(tmp_path)))
    with Stage(env) as stage:
        stage.add_stubs(dists)
        made = listing(stage.site)
        assert {(d.name, d.version) for d in made} == {(d.name, d.version) for d in dists}
        for stub in made:
            assert os.path.isdir(stub.path)
            assert not os.path.islink(stub.path)
            for name in ("METADATA", "WHEEL", "RECORD"):
                assert os.path.isfile(os.path.join(stub.path, name)), (stub, name)
            listed = {os.path.basename(path) for path, _ in record(stub)}
            assert listed == set(os.listdir(stub.path))
        result = stage.result()
        assert (result.dists, result.removed, result.tree) == ({}, set(), {})
    assert os.listdir(env.state) == []


def kept_stubs(env: Env, site: Path) -> dict[str, int]:
    """Have a stage make stubs, or take those that were kept; return their inodes."""
    space.prepare(env)  # where space is short none are kept
    with Stage(env) as stage:
        stage.add_stubs(listing(str(site)))
        found = {name: os.stat(os.path.join(stage.site, name)).st_ino for name in os.listdir(stage.site)}
        assert set(found) == {os.path.basename(stub.path) for stub in listing(stage.site)}
        result = stage.result()
        assert (result.dists, result.removed, result.tree) == ({}, set(), {})
        for stub in listing(stage.site):
            assert {os.path.basename(path) for path, _ in record(stub)} == set(os.listdir(stub.path))
            assert os.path.isfile(stub.metadata_file())
    return found


def shelved(env: Env) -> set[str]:
    """What stages left."""
    return {name for name in os.listdir(env.state) if name.startswith(("stubs", "stage-"))}


def settled(site: Path) -> Path:
    """Let the packages of a directory be older than a clock's tick."""
    for path in site.rglob("*-info"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return site


def test_stubs_are_kept_for_the_next_stage(tmp_path: Path, env: Env) -> None:
    site = settled(image_site(tmp_path))
    first = kept_stubs(env, site)
    assert len(first) > 2
    assert shelved(env) == {"stubs", "stubs.json"}
    assert kept_stubs(env, site) == first
    put(site, make_wheel(tmp_path / "w", "another", "1.0"))
    settled(site)
    more = kept_stubs(env, site)
    assert {name: more[name] for name in first} == first
    assert set(more) - set(first) == {"another-1.0.dist-info"}
    for path in site.glob("another*"):
        shutil.rmtree(path, ignore_errors=True)
    assert kept_stubs(env, site) == first
    assert shelved(env) == {"stubs", "stubs.json"}


def _half(shelf: Path, site: Path, name: str) -> None:
    made = (shelf / name).stat().st_mtime_ns
    (shelf / name / "METADATA").unlink()
    os.utime(shelf / name, ns=(made, made + 10_000_000))  # a clock's tick later, at least


def _replaced(shelf: Path, site: Path, name: str) -> None:
    (shelf / name).rename(shelf.parent / "away")
    (shelf / name).mkdir()


def _other_source(shelf: Path, site: Path, name: str) -> None:
    (site / name / "direct_url.json").write_text("{}")
    os.utime(site / name, (1_600_000_001, 1_600_000_001))


@pytest.mark.parametrize("damage", [_half, _replaced, _other_source])
def test_a_kept_stub_that_is_no_longer_right_is_made_anew(
    damage: Callable[[Path, Path, str], None], tmp_path: Path, env: Env
) -> None:
    site = settled(image_site(tmp_path))
    first = kept_stubs(env, site)
    name = "proper_name-1.0.dist-info"
    (source,) = site.glob("[Pp]roper*-info")
    assert name in first
    damage(Path(env.state, "stubs"), site, name if damage is not _other_source else source.name)
    again = kept_stubs(env, site)
    assert set(again) == set(first)
    changed = {n for n in first if again[n] != first[n]}
    # a file system may give a new directory the inode of the one that just went
    assert changed <= {name}
    stub = Path(env.state, "stubs", name)
    assert (stub / "direct_url.json").exists() == (damage is _other_source)
    assert (stub / "METADATA").read_text()


def test_what_else_lies_among_the_kept_stubs_goes(tmp_path: Path, env: Env) -> None:
    site = settled(image_site(tmp_path))
    first = kept_stubs(env, site)
    write(env.state, {"stubs/foreign-1.0.dist-info/METADATA": "Name: foreign\n", "stubs/file": ""})
    assert kept_stubs(env, site) == first
    elsewhere = tmp_path / "elsewhere"
    shelf = Path(env.state, "stubs")
    shelf.rename(elsewhere)
    shelf.symlink_to(elsewhere)
    assert set(kept_stubs(env, site)) == set(first)
    assert not shelf.is_symlink()
    assert set(os.listdir(elsewhere)) == set(first)


def test_no_stub_outlives_a_crash_of_the_machine(
    tmp_path: Path, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not flushed: what is in them after it may be zeros."""
    site = settled(image_site(tmp_path))
    kept_stubs(env, site)
    lost = [path for path in Path(env.state, "stubs").glob("*/RECORD") if not path.write_text("")]
    monkeypatch.setattr(stubs, "_boot", "another")
    kept_stubs(env, site)  # looks at each RECORD
    assert all(path.read_text() for path in lost)
    monkeypatch.setattr(stubs, "_boot", "")
    kept_stubs(env, site)
    assert shelved(env) == {"stubs.json"}


def test_a_stub_that_a_failed_installer_began_to_take_away_is_not_kept(tmp_path: Path, env: Env) -> None:
    site = settled(image_site(tmp_path))
    first = kept_stubs(env, site)
    name = sorted(first)[0]
    with pytest.raises(ValueError, match="failed"), Stage(env) as stage:
        stage.add_stubs(listing(str(site)))
        stub = os.path.join(stage.site, name)
        info = os.stat(stub)
        os.unlink(os.path.join(stub, "METADATA"))
        os.utime(stub, ns=(info.st_atime_ns, info.st_mtime_ns))  # a clock that ticks slowly
        raise ValueError("failed")
    assert set(os.listdir(os.path.join(env.state, "stubs"))) == set(first) - {name}
    assert set(kept_stubs(env, site)) == set(first)


def test_what_an_installer_left(tmp_path: Path, env: Env) -> None:
    site = image_site(tmp_path)
    with Stage(env) as stage:
        stage.add_stubs(listing(str(site)))
        # "uninstall" the stub by its RECORD, as uv does, and put in another version
        stub = next(d for d in listing(stage.site) if d.name == "proper-name")
        for path, _ in record(stub):
            os.unlink(os.path.join(stage.site, path))
        os.rmdir(stub.path)
        put(Path(stage.site), make_wheel(tmp_path / "w", "proper-name", "2.0"))
        write(
            stage.prefix,
            {".lock": "", "share/x/data": "1", "bin/pip": "", "bin/python3.11": "", "bin/tool": ""},
        )
        write(stage.site, {"pkg/__pycache__/a.cpython-311.pyc": "", "pkg/a.py": ""})
        result = stage.result()
        assert {name: d.version for name, d in result.dists.items()} == {"proper-name": "2.0"}
        assert result.removed == {"proper-name"}
        assert sorted(result.dropped) == ["bin/pip", "bin/python3.11"]
        lib = "lib/python3.11/site-packages"
        assert {path for path, _, _ in result.files()} == {
            "bin/tool",
            "share/x/data",
            f"{lib}/pkg/a.py",
            f"{lib}/proper_name.py",
            *(f"{lib}/proper_name-2.0.dist-info/{n}" for n in ("METADATA", "RECORD", "WHEEL")),
        }
        stage.take_back(result.dists["proper-name"])
        result = stage.result()
        assert result.dists == {}
        assert f"{lib}/proper_name.py" not in {path for path, _, _ in result.files()}


def test_an_incomplete_distribution_is_refused(tmp_path: Path, env: Env) -> None:
    with Stage(env) as stage:
        write(stage.site, {"half-1.0.dist-info/METADATA": "Name: half\nVersion: 1.0\n"})
        with pytest.raises(OverlayError) as e:
            stage.result()
    assert e.value.code == "bad-package"


DAMAGED = {
    "zeros": "\0" * 300,
    "many zeros": "\0" * 200_000,
    "a field over the limit": f"pkg.py,,4\n{'x' * 200_000},,\n",
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_counts_as_missing(text: str, tmp_path: Path, env: Env, image: Base) -> None:
    """Whether something installed has it or something new: no traceback, and no path that isn't one."""
    for site in (env.site_packages, str(tmp_path / "image")):
        write(
            site,
            {"pkg-1.0.dist-info/METADATA": "Name: pkg\nVersion: 1.0\n", "pkg-1.0.dist-info/RECORD": text},
        )
    (dist,) = listing(env.site_packages)
    assert record(dist) == []
    assert details(dist).size == 0
    assert record_rows(dist) is None
    write(dist.path, {"INSTALLER": "uv\n"})
    site = os.path.relpath(env.site_packages, env.path)
    info = [f"{site}/pkg-1.0.dist-info/{name}" for name in ("INSTALLER", "METADATA", "RECORD")]
    assert owned_files(env, [dist], listing(str(tmp_path / "image"))) == info
    with Stage(env) as stage:
        write(
            stage.prefix,
            {f"bin/{name}": f"#!{image.executable}\n" for name in ("one", "other")},
        )
        for name, rows in (("other", "../../../bin/other,,\n"), ("pkg", text)):
            write(
                stage.site,
                {
                    f"{name}-1.0.dist-info/METADATA": f"Name: {name}\nVersion: 1.0\n",
                    f"{name}-1.0.dist-info/RECORD": rows,
                },
            )
        assert stage.fix_scripts(image) == ["one", "other"]
        assert Path(stage.site, "other-1.0.dist-info/RECORD").read_text() != "../../../bin/other,,\n"
        assert Path(stage.site, "pkg-1.0.dist-info/RECORD").read_text() == text
        with pytest.raises(OverlayError) as e:
            stage.result()
    assert e.value.code == "bad-package"


@pytest.mark.parametrize("size", ["\u00b2", "-5", "9" * 5000])
def test_a_size_that_is_no_number_is_unknown(size: str, tmp_path: Path) -> None:
    write(str(tmp_path), {"pkg-1.0.dist-info/RECORD": f"pkg.py,,{size}\n"})
    (dist,) = listing(str(tmp_path))
    assert record(dist) == [("pkg.py", 0)]
    assert details(dist).size == 0


def test_a_stub_that_vanished_is_an_error(tmp_path: Path, env: Env) -> None:
    with Stage(env) as stage:
        stage.add_stubs(listing(str(image_site(tmp_path))))
        stub = listing(stage.site)[0]
        os.rename(stub.path, tmp_path / "away")
        with pytest.raises(OverlayError) as e:
            stage.result()
    assert e.value.code == "installer-failed"


def scripts(stage: Stage, image: Base) -> dict[str, str]:
    """Scripts as tools write them: name → first lines."""
    in_stage = os.path.join(stage.prefix, "bin", "python")
    return {
        "stage": f"#!{in_stage}\n",
        "stage-long": f"#!/bin/sh\n'''exec' \"{in_stage}\" \"$0\" \"$@\"\n' '''\n",
        "stage-uv": f"#!/bin/sh\n'''exec' '{in_stage}' \"$0\" \"$@\"\n' '''\n",
        "stage-pip": f"#!/bin/sh\n'''exec' {in_stage} \"$0\" \"$@\"\n' '''\n",
        "base": f"#!{image.executable}\n",
        "below": f"#!{image.interpreter}\n",
        "option": f"#!{image.executable} -E\n",
    }


UNTOUCHED = {
    "shell": "#!/bin/sh\necho x\n",
    "env-python": "#!/usr/bin/env python3\n",
    "foreign": "#!/usr/local/bin/python3\n",
    "perl": "#!/usr/bin/perl\n",
    "binary": "\x7fELF",
}


def test_scripts_get_the_envs_python(tmp_path: Path, env: Env, image: Base) -> None:
    with Stage(env) as stage:
        wrong = scripts(stage, image)
        folder = os.path.join(stage.prefix, "bin")
        right = {"right": f"#!{env.python}\nbody\n"}
        write(folder, {**{name: head + "body\n" for name, head in wrong.items()}, **UNTOUCHED, **right})
        cached = tmp_path / "cache"
        os.link(os.path.join(folder, "base"), cached)
        os.chmod(os.path.join(folder, "base"), 0o755)
        rows = "".join(f"../../../bin/{name},sha256=x,1\n" for name in wrong)
        write(
            stage.site,
            {"t-1.dist-info/METADATA": "", "t-1.dist-info/RECORD": rows + "t-1.dist-info/RECORD,,\n"},
        )
        changed = stage.fix_scripts(image)
        assert set(changed) == set(wrong)
        expected = shebang(env.python).decode() + "body\n"
        for name in wrong:
            text = Path(folder, name).read_text()
            assert text == (expected if name != "option" else f"#!{env.python} -E\nbody\n"), name
            row = ",".join(record_row(f"../../../bin/{name}", text.encode()))
            assert row in Path(stage.site, "t-1.dist-info", "RECORD").read_text()
        for name, text in {**UNTOUCHED, **right}.items():
            assert Path(folder, name).read_text() == text
        assert os.access(os.path.join(folder, "base"), os.X_OK)
        assert cached.read_text().startswith(f"#!{image.executable}\n")
        assert stage.fix_scripts(image) == []


def test_long_paths_and_spaces_take_a_way_that_works(tmp_path: Path) -> None:
    import subprocess
    import sys

    for folder in (tmp_path / "with space", tmp_path / ("long" * 40)):
        folder.mkdir()
        python = folder / "python"
        python.symlink_to(sys.executable)
        script = folder / "script"
        script.write_bytes(shebang(str(python)) + b"import sys; print(sys.argv[1:])\n")
        script.chmod(0o755)
        out = subprocess.run([str(script), "a b", "c"], capture_output=True, text=True, check=True).stdout
        assert out == "['a b', 'c']\n"


def test_a_record_cannot_reach_out(tmp_path: Path, env: Env) -> None:
    """A damaged or malicious RECORD lists files that are not the package's to remove."""
    outside = tmp_path / "precious"
    outside.write_text("")
    rows = [
        "../../../../precious",
        str(outside),
        "../../../bin/python",
        "../../../bin/pip",
        "../../../pyvenv.cfg",
        "../../../.overlay/lock",
        "../../../../../../../../etc/passwd",
        "mine.py",
    ]
    write(env.path, {"bin/python": "", "bin/pip": "", "pyvenv.cfg": "", ".overlay/lock": ""})
    write(
        env.site_packages,
        {"mine.py": "", "t-1.dist-info/RECORD": "".join(f"{row},,\n" for row in rows)},
    )
    site = os.path.relpath(env.site_packages, env.path)
    dist = Dist("t", "1", os.path.join(env.site_packages, "t-1.dist-info"), env.site_packages)
    assert owned_files(env, [dist], []) == [f"{site}/mine.py", f"{site}/t-1.dist-info/RECORD"]
