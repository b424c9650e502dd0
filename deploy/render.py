"""Renders the kustomizations of deploy/kubernetes, so that what would reach a cluster can be checked without one.

    python -m deploy.render deploy/kubernetes/overlays/production

It knows the fields that our kustomizations use and refuses every other one. It leaves out the hash that Kustomize adds
to the names of generated ConfigMaps; `kubectl apply -k` remains what installs.
"""

import copy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

# Lists of the Kubernetes API that are merged by the entry's name instead of being replaced.
_MERGE_KEYS = {
    "containers": "name", "env": "name", "initContainers": "name", "ports": "containerPort",
    "volumeMounts": "mountPath", "volumes": "name",
}  # fmt: skip
_CLUSTER_WIDE = frozenset({"Namespace"})


class RenderError(Exception):
    """A kustomization cannot be rendered. The message names the file."""


def main(arguments: list[str]) -> None:
    """Print the rendered manifests of one folder."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    try:
        manifests = render(Path(arguments[0]))
    except RenderError as error:
        sys.exit(str(error))
    sys.stdout.write(yaml.safe_dump_all(manifests, sort_keys=False))


def render(folder: Path) -> list[Manifest]:
    """Return the manifests of a kustomization, in its order. Raises RenderError."""
    manifests: list[Manifest] = []
    _apply(folder, manifests, kind="Kustomization")
    return manifests


def _apply(folder: Path, manifests: list[Manifest], *, kind: str) -> None:
    """Add to and change the manifests as a kustomization (or a component) says."""
    file = folder / "kustomization.yaml"
    try:
        wanted = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RenderError(f"{file} cannot be read: {error}") from None
    if wanted.pop("kind", None) != kind:
        raise RenderError(f"{file} is no {kind}")
    wanted.pop("apiVersion", None)
    steps: dict[str, Callable[[Any], None]] = {
        "resources": lambda value: _add_resources(folder, manifests, value),
        "components": lambda value: _apply_components(folder, manifests, value),
        "configMapGenerator": lambda value: _generate(file, manifests, value),
        "patches": lambda value: _patch_all(folder, manifests, value),
        "images": lambda value: _set_images(manifests, value),
        "labels": lambda value: _add_labels(manifests, value),
        "namespace": lambda value: _set_namespace(manifests, value),
    }
    unknown = sorted(set(wanted) - set(steps))
    if unknown:
        raise RenderError(f"{file} uses {', '.join(unknown)}, which deploy/render.py does not know")
    for name, step in steps.items():  # Kustomize's own order, too
        if name in wanted:
            step(wanted[name])


def _apply_components(folder: Path, manifests: list[Manifest], names: list[str]) -> None:
    for name in names:
        _apply(folder / name, manifests, kind="Component")


def _add_resources(folder: Path, manifests: list[Manifest], names: list[str]) -> None:
    for name in names:
        path = folder / name
        for manifest in render(path) if path.is_dir() else read(path):
            if _find(manifests, manifest) is not None:
                raise RenderError(f"{path} holds {_title(manifest)} a second time")
            manifests.append(manifest)


def read(file: Path) -> list[Manifest]:
    """Return the documents of a file. Raises RenderError."""
    try:
        return [document for document in yaml.safe_load_all(file.read_text()) if document]
    except (OSError, yaml.YAMLError) as error:
        raise RenderError(f"{file} cannot be read: {error}") from None


def _generate(file: Path, manifests: list[Manifest], generators: list[dict[str, Any]]) -> None:
    for generator in generators:
        unknown = set(generator) - {"name", "behavior", "literals"}
        if unknown:
            raise RenderError(f"{file}: a ConfigMap uses {', '.join(sorted(unknown))}, which is not known here")
        data = dict(entry.split("=", 1) for entry in generator["literals"])
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
        known = _find(manifests, made)
        match generator.get("behavior", "create"):
            case "create" if known is None:
                manifests.append(made)
            case "merge" if known is not None:
                known["data"] |= data
            case behavior:
                raise RenderError(f"{file}: {behavior} of the ConfigMap {generator['name']} is not possible")


def _patch_all(folder: Path, manifests: list[Manifest], patches: list[dict[str, str]]) -> None:
    for patch in patches:
        if set(patch) != {"path"}:
            raise RenderError(f"{folder}: patches name a `path` and nothing else here")
        for change in read(folder / patch["path"]):
            target = _find(manifests, change)
            if target is None:
                raise RenderError(f"{folder / patch['path']} changes {_title(change)}, which is not there")
            merged = merge(target, change)
            target.clear()
            target.update(merged)


def merge(target: Any, change: Any, *, field: str = "") -> Any:
    """Return the target with a strategic merge patch applied: None removes, named entries of lists are merged."""
    if isinstance(target, Mapping) and isinstance(change, Mapping):
        result = {key: value for key, value in target.items() if key not in change or change[key] is not None}
        for key, value in change.items():
            if value is not None:
                result[key] = merge(result.get(key), value, field=key)
        return result
    key = _MERGE_KEYS.get(field)
    if isinstance(target, list) and isinstance(change, list) and key and all(key in entry for entry in change):
        result_list = copy.deepcopy(target)
        for entry in change:
            at = next((index for index, known in enumerate(result_list) if known.get(key) == entry[key]), None)
            if at is None:
                result_list.append(merge({}, entry))
            else:
                result_list[at] = merge(result_list[at], entry)
        return result_list
    if isinstance(change, Mapping):
        return {key: merge(None, value, field=key) for key, value in change.items() if value is not None}
    return copy.deepcopy(change)


def _set_images(manifests: list[Manifest], images: list[dict[str, str]]) -> None:
    for image in images:
        used = False
        for container in containers(manifests):
            name, _, tag = container["image"].partition(":")
            if name == image["name"]:
                used = True
                container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"
        if not used:
            raise RenderError(f"No container has the image {image['name']}")


def containers(manifests: list[Manifest]) -> list[dict[str, Any]]:
    """Return every container of every Deployment."""
    return [
        container
        for manifest in manifests
        if manifest["kind"] == "Deployment"
        for container in manifest["spec"]["template"]["spec"]["containers"]
    ]


def _add_labels(manifests: list[Manifest], entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        for manifest in manifests:
            _labels(manifest).update(entry["pairs"])
            if entry.get("includeTemplates") and "template" in manifest.get("spec", {}):
                _labels(manifest["spec"]["template"]).update(entry["pairs"])


def _labels(manifest: Manifest) -> dict[str, str]:
    found: dict[str, str] = manifest.setdefault("metadata", {}).setdefault("labels", {})
    return found


def _set_namespace(manifests: list[Manifest], namespace: str) -> None:
    for manifest in manifests:
        if manifest["kind"] in _CLUSTER_WIDE:
            manifest["metadata"]["name"] = namespace
        else:
            manifest["metadata"]["namespace"] = namespace


def _find(manifests: list[Manifest], wanted: Manifest) -> Manifest | None:
    return next((known for known in manifests if _title(known) == _title(wanted)), None)


def _title(manifest: Manifest) -> str:
    return f"{manifest.get('kind')} {manifest.get('metadata', {}).get('name')}"


if __name__ == "__main__":
    main(sys.argv[1:])
