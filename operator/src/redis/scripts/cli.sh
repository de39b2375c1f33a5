# Asks the server of this pod, or, with -h, another one.
cli_program=$(command -v valkey-cli || command -v redis-cli)
IFS= read -r password <"$secret_dir/operator-password"
limit=
[ -z "$(command -v timeout)" ] || limit='timeout 3'
export REDISCLI_AUTH="$password" VALKEYCLI_AUTH="$password"
ask() {
  if [ -n "$tls" ]; then
    set -- --tls --cacert "$tls_dir/ca.crt" --cert "$tls_dir/tls.crt" --key "$tls_dir/tls.key" "$@"
  fi
  # An address that nobody has any more may swallow what is sent to it.
  $limit "$cli_program" --no-auth-warning --user operator -p "$port" "$@" 2>&1
}
own=${POD_IP:-127.0.0.1}

