#!/usr/bin/env bash
# Calls TensorFlow Serving over REST, with only curl and base64.
#
#   client.sh status             which versions are loaded
#   client.sh metadata           the signatures
#   client.sh classify cat.jpg   the best classes of one image file
#
# SERVING_MODEL is the address of the model, by default http://localhost:8501/v1/models/bit_r50x1;
# append /labels/stable or /versions/1 for one version.
set -euo pipefail

model=${SERVING_MODEL:-http://localhost:8501/v1/models/bit_r50x1}
# --fail-with-body: an error of the server is printed, and the exit status is 22.
curl=(curl --silent --show-error --fail-with-body --max-time 30)

case "${1:-} $#" in
  "status 1")
    "${curl[@]}" "$model"
    ;;
  "metadata 1")
    "${curl[@]}" "$model/metadata"
    ;;
  "classify 2")
    image=$(base64 <"$2" | tr -d '\n')
    # The server decodes {"b64": ...} itself; the model gets the bytes of the file. Through a pipe,
    # as an image is longer than an argument may be.
    printf '{"signature_name": "image_bytes", "instances": [{"b64": "%s"}]}' "$image" |
      "${curl[@]}" --data-binary @- "$model:predict"
    ;;
  *)
    echo "Usage: client.sh status | metadata | classify IMAGE" >&2
    exit 2
    ;;
esac
echo
