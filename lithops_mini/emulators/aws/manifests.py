"""Images in the repositories of the registry: found by tag or digest, and put there by their manifests."""

from __future__ import annotations

import hashlib
import json

from moto.ecr.models import Image, Repository

from lithops_mini.emulators.aws.account import ACCOUNT


class Wrong(Exception):
    """A request that the registry cannot answer: ``args`` are the status, the code, and a sentence."""


class Pushed(Image):
    """An image whose size is that of its layers; moto takes its configuration's."""

    def get_image_size_in_bytes(self) -> int:
        manifest = json.loads(self.image_manifest)
        return sum(each["size"] for each in [manifest.get("config", {"size": 0}), *manifest.get("layers", ())])


def find(repository: Repository, reference: str) -> Image | None:
    """The image with this tag or digest."""
    matches = (each for each in repository.images if reference in (*each.image_tags, each.get_image_digest()))
    return next(matches, None)


def put(repository: Repository, reference: str, data: bytes, kind: str) -> str:
    """Make an image of a manifest, under a tag or its digest, and return its digest. ``Wrong`` if it is none.

    ``kind``: the manifest's media type, unless it says it itself.
    """
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if reference.startswith("sha256:") and reference != digest:
        raise Wrong(400, "DIGEST_INVALID", f"the manifest is {digest}, and not {reference}")
    try:
        manifest = json.loads(data)
        named = [each["digest"] for each in [*manifest.get("layers", ()), *filter(None, [manifest.get("config")])]]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise Wrong(400, "MANIFEST_INVALID", f"this is no manifest: {error}") from error
    for each in named:
        if each not in repository.layers:
            raise Wrong(400, "MANIFEST_BLOB_UNKNOWN", f"there is no layer {each} in {repository.name}")
    image = find(repository, digest)
    if image is None:
        image = Pushed(ACCOUNT, "", data.decode(), repository.name, manifest.get("mediaType") or kind, digest)
        image.image_tags = []
    if reference != digest:
        _move_tag(repository, reference, image)
    if image not in repository.images:
        repository.images.append(image)
    return digest


def _move_tag(repository: Repository, tag: str, image: Image) -> None:
    other = find(repository, tag)
    if other is not None and other is not image:
        if repository.is_tag_immutable():
            raise Wrong(400, "TAG_INVALID", f"the tag {tag} of {repository.name} is immutable")
        other.remove_tag(tag)
    image.update_tag(tag)
