#!/bin/sh
# Installs, under the target folder, the client libraries that tests/clients drives through the gateway.
# Run again at will: what is there already is left alone. Needs python3 with venv, and npm.
set -eu
cd "$(dirname "$0")/.."
clients="${CARGO_TARGET_DIR:-target}/clients"
mkdir -p "$clients"

wanted="requests httpx[http2] websockets anthropic openai"
if [ "$(cat "$clients/python.done" 2>/dev/null || true)" != "$wanted" ]; then
    python3 -m venv "$clients/python"
    # The names are split on purpose.
    # shellcheck disable=SC2086
    "$clients/python/bin/pip" install --quiet --disable-pip-version-check $wanted
    printf '%s\n' "$wanted" >"$clients/python.done"
fi

# Undici 7 offers EnvHttpProxyAgent and still runs on the Node releases in use. Playwright drives the browser that looks
# at the console: Debian's own, it brings none.
wanted="undici@7 playwright-core@1"
if [ "$(cat "$clients/node.done" 2>/dev/null || true)" != "$wanted" ]; then
    # shellcheck disable=SC2086
    npm install --silent --no-audit --no-fund --prefix "$clients/node" $wanted
    printf '%s\n' "$wanted" >"$clients/node.done"
fi
