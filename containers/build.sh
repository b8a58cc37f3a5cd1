#!/usr/bin/env bash
# Build the image with docker, podman or buildah (or ENGINE), and the SIF from it. See containers/README.md.
#   containers/build.sh image     VARIANT=cpu|cuda, BASE_IMAGE, BUILD_IMAGE, IMAGE=name:tag, IMAGE_FLAGS=further build options
#   containers/build.sh sif       IMAGE, SIF=file
set -euo pipefail
CDPATH= cd "$(dirname "$0")/.."

VARIANT=${VARIANT:-cpu}
IMAGE=${IMAGE:-recurlab:$VARIANT}
SIF=${SIF:-containers/recurlab.sif}
case $VARIANT in
  cpu) BASE_IMAGE=${BASE_IMAGE:-python:3.11-slim-bookworm} BUILD_IMAGE=${BUILD_IMAGE:-$BASE_IMAGE} ;;
  cuda)
    BASE_IMAGE=${BASE_IMAGE:-nvidia/cuda:13.0.2-runtime-ubuntu24.04}
    BUILD_IMAGE=${BUILD_IMAGE:-nvidia/cuda:13.0.2-devel-ubuntu24.04}
    ;;
  *) echo "VARIANT: got $VARIANT, expected cpu or cuda" >&2; exit 2 ;;
esac

engine() {
  if [ -n "${ENGINE:-}" ]; then echo "$ENGINE"
  elif docker info >/dev/null 2>&1; then echo docker
  elif command -v buildah >/dev/null; then echo buildah
  elif command -v podman >/dev/null; then echo podman
  else echo "no container engine found; install docker, podman or buildah" >&2; exit 2; fi
}

image() {
  local engine; engine=$(engine)
  local source; source=$(git config --get remote.origin.url || true)
  case $source in https://*) ;; *) source=unknown ;; esac
  local words=(build --file containers/Dockerfile --tag "$IMAGE"
    --build-arg VARIANT="$VARIANT" --build-arg BASE_IMAGE="$BASE_IMAGE" --build-arg BUILD_IMAGE="$BUILD_IMAGE"
    --build-arg VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"
    --build-arg COMMIT="$(git describe --always --abbrev=40 --dirty=+ 2>/dev/null || echo unknown)" --build-arg SOURCE="$source")
  # shellcheck disable=SC2086  # the options are words
  "$engine" "${words[@]}" ${IMAGE_FLAGS:-} .
  echo "$IMAGE: built by $engine"
}

sif() {
  command -v apptainer >/dev/null || { echo "apptainer: not on PATH; it is needed to build the SIF" >&2; exit 2; }
  local engine work digest; engine=$(engine)
  work=$(mktemp -d)
  # shellcheck disable=SC2064  # expand now
  trap "rm -rf '$work'" EXIT
  case $engine in
    docker) docker save --output "$work/image.tar" "$IMAGE"; digest=$(docker image inspect --format '{{.Id}}' "$IMAGE") ;;
    buildah) buildah push --quiet "$IMAGE" "docker-archive:$work/image.tar:$IMAGE"; digest=$(buildah inspect --type image --format '{{.FromImageDigest}}' "$IMAGE") ;;
    podman) podman save --quiet --output "$work/image.tar" "$IMAGE"; digest=$(podman image inspect --format '{{.Digest}}' "$IMAGE") ;;
  esac
  # Write to a temporary name and rename: a running workflow keeps its open file.
  mkdir -p "$(dirname "$SIF")"
  # lz4 decompresses in two thirds of the time of zstd, and is a seventh larger.
  apptainer build --force --mksquashfs-args "-comp lz4 -Xhc" --build-arg ARCHIVE="$work/image.tar" --build-arg DIGEST="$digest" "$SIF.new" containers/pipeline.def
  mv "$SIF.new" "$SIF"
  echo "$SIF: made from $IMAGE, $digest"
}

case ${1:-} in
  image) image ;;
  sif) sif ;;
  *) echo "got '${1:-}', expected image or sif" >&2; exit 2 ;;
esac
