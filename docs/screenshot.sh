#!/usr/bin/env bash
# Makes docs/report.png, which the README shows: the report of a short comparison, as Chromium draws it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for needed in chromium build/release/tilegrad; do
  command -v "$needed" >/dev/null || {
    echo "screenshot: $needed is missing; ./dev setup and ./dev build provide it" >&2
    exit 1
  }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A context at which the score matrices of naive attention weigh something.
build/release/tilegrad compare --text /usr/share/common-licenses/GPL-3 --context 256 --batch 4 --steps 150 --out "$work/run"
HOME=$work chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/browser" \
  --blink-settings=preferredColorScheme=1 --window-size=1100,1765 --virtual-time-budget=5000 \
  --screenshot="$work/report.png" "file://$work/run/report.html" 2>"$work/log" || {
  cat "$work/log" >&2
  exit 1
}
mv "$work/report.png" docs/report.png
echo "screenshot: docs/report.png, $(wc -c <docs/report.png) bytes"
