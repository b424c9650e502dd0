"""Brings one commit's images into a cluster: points an overlay at them, applies it, and waits for every Deployment.

    python -m deploy.release images                                     the services that have an image, one a line
    python -m deploy.release roll-out staging ghcr.io/owner/name TAG    needs kubectl, and KUBECONFIG with the rights

The images are REGISTRY/concerto-<service>:TAG. Waits 10 minutes for each Deployment; exit code 1 with one message when
something is missing or a Deployment does not become ready. The old pods serve on then.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from deploy import render
from deploy.render import RenderError
from deploy.tools import BUILD, ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = KUBERNETES / "overlays"
PREFIX = "concerto-"
PLACEHOLDER = ".invalid"
PATIENCE = "10m"


class ReleaseError(Exception):
    """Nothing was rolled out, or not everything. The message says what to do."""


def main(arguments: Sequence[str]) -> None:
    """Do what the arguments say."""
    try:
        match arguments:
            case ["images"]:
                sys.stdout.writelines(f"{service}\n" for service in images())
            case ["roll-out", overlay, registry, tag]:
                roll_out(overlay, registry=registry, tag=tag)
            case _:
                sys.exit(__doc__)
    except (ReleaseError, RenderError) as error:
        sys.exit(str(error))


def images() -> list[str]:
    """Return the services that have an image, as the base of the manifests has them. Raises RenderError."""
    return list(_image_names(render.render(KUBERNETES / "base")))


def roll_out(overlay: str, *, registry: str, tag: str) -> None:
    """Apply an overlay with the images of one commit, and wait. Raises ReleaseError and RenderError."""
    if shutil.which("kubectl") is None:
        raise ReleaseError("kubectl is not in the PATH.")
    folder = write(overlay, registry=registry, tag=tag, folder=BUILD / "release" / overlay)
    manifests = render.render(folder)
    # Where a name was forgotten, pods would wait for an address that does not exist.
    left = sorted({line.strip() for line in yaml.safe_dump_all(manifests).splitlines() if PLACEHOLDER in line})
    if left:
        names = "\n".join(left)
        raise ReleaseError(f"Put your own names into deploy/kubernetes first (docs/deployment.md, step 3):\n{names}")
    _kubectl("apply", "-k", str(folder))
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
            _kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", f"--timeout={PATIENCE}")


def write(overlay: str, *, registry: str, tag: str, folder: Path) -> Path:
    """Write a kustomization over the overlay that names the images, and return its folder.

    Raises ReleaseError for an overlay that does not exist, and RenderError.
    """
    known = sorted(path.name for path in OVERLAYS.iterdir())
    if overlay not in known:
        raise ReleaseError(f"There is no overlay {overlay!r}, only {', '.join(known)}.")
    folder.mkdir(parents=True, exist_ok=True)
    names = _image_names(render.render(OVERLAYS / overlay))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(OVERLAYS / overlay, folder)],
        "images": [
            {"name": name, "newName": f"{registry}/{PREFIX}{service}", "newTag": tag} for service, name in names.items()
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization, sort_keys=False))
    return folder


def _image_names(manifests: Sequence[render.Manifest]) -> Mapping[str, str]:
    """Return the names of the images without their tags, by service."""
    found: dict[str, str] = {}
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                name = str(container["image"]).rpartition(":")[0]
                found[name.rpartition("/")[2].removeprefix(PREFIX)] = name
    return found


def _kubectl(*arguments: str) -> None:
    done = subprocess.run(["kubectl", *arguments], cwd=ROOT, check=False)
    if done.returncode:
        raise ReleaseError(f"`kubectl {' '.join(arguments)}` failed. Pods of the release before serve on.")


if __name__ == "__main__":
    main(sys.argv[1:])
