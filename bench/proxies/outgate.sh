PORT=18190 MITM=1 H2=1
DESC="outgate, everything on: interception, 100 rules, secret scan, redaction, upload windows, decision committed before forwarding"
OUTGATE=${OUTGATE:-$RIG/../target/release/outgate}
PROXY_CA=$RIG_WORK/run/outgate/ca.pem
available() { [ -x "$OUTGATE" ]; }
start() {
  rm -rf "$PW/data"
  # A folder with records in it, for the curve over stored decisions (growth.sh).
  if [ -n "${OUTGATE_STORE:-}" ]; then cp -a "$OUTGATE_STORE" "$PW/data"; else mkdir -p "$PW/data"; fi
  chmod 700 "$PW/data"
  { printf 'version = 1\nallow = ["*.bench.test"]\n[addresses]\nallow = ["127.0.0.1:%s"]\n' "$ORIGIN_PORT"
    printf '[uploads]\nrequest_alert = "8 GiB"\nrequest_block = "16 GiB"\nwindow = "10m"\nwindow_alert = "8 TiB"\nwindow_block = "16 TiB"\nwindow_block_agent = "16 TiB"\n[secrets]\naction = "block"\n'
    for i in $(seq 1 $((${OUTGATE_RULES:-100} - 1))); do printf '[[rule]]\nname = "rule %s"\naction = "deny"\nto = ["*.team%s.example", "host%s.example.org:8443"]\nmethods = ["POST", "PUT"]\npaths = ["/private/%s/**"]\n' "$i" "$i" "$i" "$i"; done
  } > "$PW/policy.toml"
  printf 'listen = "127.0.0.1:%s"\nadmin = "127.0.0.1:0"\n[upstream]\nca_files = ["%s"]\n[limits]\nconnections = 20000\nconnections_per_agent = 20000\n%s' "$PORT" "$CA_DIR/origin-ca.pem" "${OUTGATE_CONFIG_EXTRA:-}" > "$PW/outgate.toml"
  "$OUTGATE" --data-dir "$PW/data" ca export "$PROXY_CA" >/dev/null 2>&1
  $RUN "$OUTGATE" --data-dir "$PW/data" --config "$PW/outgate.toml" --policy "$PW/policy.toml" serve >"$PW/out.log" 2>&1 & PIDS=$!
}
