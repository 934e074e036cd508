"""What the tests of `deploy/` share: the image, built once, and the rendered manifests."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.image import Containers, Image, build_image, make_data_folder, remove_images
from tests.support.manifests import (
    Manifests,
    all_combinations,
    build_combination,
    require_kustomize,
)
from tests.support.programs import skipped_without_programs


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """Yield the image that `deploy/Dockerfile` makes. Skip where it can't be built."""
    with skipped_without_programs():
        built = build_image()
    try:
        yield built
    finally:
        remove_images()


@pytest.fixture
def containers(image: Image, tmp_path: Path) -> Iterator[Containers]:
    """Yield what runs commands of the image, with an empty data folder; all are ended afterwards."""
    containers = Containers(image, tmp_path, make_data_folder(tmp_path))
    yield containers
    containers.close()


@pytest.fixture(scope="session")
def kustomize() -> None:
    """Skip where kustomize is missing."""
    with skipped_without_programs():
        require_kustomize()


@pytest.fixture(scope="session")
def combined(kustomize: None, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Manifests]:
    """Return the base with every choice of components, rendered, by their names."""
    folder = tmp_path_factory.mktemp("combination")
    return {" ".join(["base", *chosen]): build_combination(chosen, folder) for chosen in all_combinations()}
