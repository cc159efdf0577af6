# shellcheck shell=bash disable=SC2207
# Made from the program's own help by tests/it/documents; a server that answers is asked for functions' names.
_tinyfaas() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} flags='' words=''
  COMPREPLY=()
  if [[ $COMP_CWORD == 1 && $cur != -* ]]; then
    COMPREPLY=($(compgen -W 'serve deploy invoke list logs delete wipe clean token new doctor' -- "$cur"))
    return
  fi
  [[ $command != -* ]] || command=serve
  case $command:$prev in
    serve:--async-calls | \
      serve:--body-timeout | \
      serve:--coap | \
      serve:--coap-max-body | \
      serve:--coap-observe-interval | \
      serve:--coap-rate | \
      serve:--concurrency | \
      serve:--cpu | \
      serve:--docker-host | \
      serve:--download-timeout | \
      serve:--engine-timeout | \
      serve:--expose | \
      serve:--grace | \
      serve:--grpc | \
      serve:--grpc-idle-timeout | \
      serve:--grpc-max-message | \
      serve:--handler-log | \
      serve:--handler-uid | \
      serve:--head-timeout | \
      serve:--health-timeout | \
      serve:--http | \
      serve:--idle | \
      serve:--idle-timeout | \
      serve:--install-timeout | \
      serve:--management | \
      serve:--max-body | \
      serve:--max-connections | \
      serve:--max-connections-per-client | \
      serve:--max-functions | \
      serve:--max-upload | \
      serve:--memory | \
      serve:--pids | \
      serve:--public-host | \
      serve:--queue | \
      serve:--runtime-base | \
      serve:--runtime-image | \
      serve:--stop-timeout | \
      serve:--timeout | \
      serve:--tls-doors | \
      serve:--tmp | \
      serve:--transfer-timeout | \
      deploy:--concurrency | \
      deploy:--cpu | \
      deploy:--env-var | \
      deploy:--host | \
      deploy:--idle | \
      deploy:--image | \
      deploy:--memory | \
      deploy:--name | \
      deploy:--pids | \
      deploy:--queue | \
      deploy:--subfolder | \
      deploy:--threads | \
      deploy:--timeout | \
      deploy:--url | \
      invoke:--data | \
      invoke:--header | \
      invoke:--host | \
      invoke:--http-port | \
      invoke:--method | \
      invoke:--path | \
      invoke:--query | \
      list:--host | \
      logs:--host | \
      logs:--since | \
      logs:--tail | \
      delete:--host | \
      wipe:--host | \
      clean:--docker-host | \
      clean:--instance | \
      doctor:--docker-host | \
      doctor:--host)
      # Nothing is known of it.
      return
      ;;
    serve:--backend | \
      doctor:--backend)
      COMPREPLY=($(compgen -W 'auto docker process' -- "$cur"))
      return
      ;;
    serve:--config | \
      serve:--management-client-ca | \
      serve:--tls-ca | \
      serve:--tls-cert | \
      serve:--tls-key | \
      serve:--token-file | \
      deploy:--auth | \
      deploy:--ca | \
      invoke:--ca | \
      invoke:--file | \
      list:--ca | \
      logs:--ca | \
      delete:--ca | \
      wipe:--ca | \
      token:--file | \
      doctor:--ca | \
      doctor:--config)
      compopt -o filenames 2>/dev/null
      COMPREPLY=($(compgen -f -- "$cur"))
      return
      ;;
    serve:--functions | \
      serve:--runtimes | \
      serve:--state-dir | \
      doctor:--runtimes | \
      doctor:--state-dir)
      compopt -o filenames 2>/dev/null
      COMPREPLY=($(compgen -d -- "$cur"))
      return
      ;;
    serve:--log)
      COMPREPLY=($(compgen -W 'off error warn info debug trace' -- "$cur"))
      return
      ;;
    serve:--log-format)
      COMPREPLY=($(compgen -W 'text json' -- "$cur"))
      return
      ;;
    serve:--network)
      COMPREPLY=($(compgen -W 'shared none' -- "$cur"))
      return
      ;;
    serve:--reach)
      COMPREPLY=($(compgen -W 'auto socket tcp' -- "$cur"))
      return
      ;;
    deploy:--env)
      COMPREPLY=($(compgen -W 'python3 nodejs binary go' -- "$cur"))
      return
      ;;
  esac
  case $command in
    serve) flags='--allow-local-urls --async-calls --backend --body-timeout --coap --coap-echo --coap-max-body --coap-multicast --coap-observe-interval --coap-rate --concurrency --config --cpu --docker-host --download-timeout --engine-timeout --expose --functions --grace --grpc --grpc-idle-timeout --grpc-max-message --handler-log --handler-uid --head-timeout --health-timeout --help --http --idle --idle-timeout --insecure-management --install-timeout --keep-handlers --log --log-format --management --management-client-ca --max-body --max-connections --max-connections-per-client --max-functions --max-upload --memory --network --no-hardening --pids --public-host --queue --reach --read-only --runtime-base --runtime-image --runtimes --state-dir --stop-timeout --timeout --tls-ca --tls-cert --tls-doors --tls-key --tmp --token-file --transfer-timeout' ;;
    deploy) flags='--auth --ca --concurrency --cpu --env --env-var --help --host --idle --image --json --memory --name --no-network --pids --queue --subfolder --threads --timeout --url --watch' ;;
    invoke) flags='--async --ca --data --file --header --help --host --http-port --method --path --query' ;;
    list) flags='--ca --help --host --json --long' ;;
    logs) flags='--ca --follow --help --host --since --tail' ;;
    delete) flags='--ca --help --host --json' ;;
    wipe) flags='--ca --help --host --json --yes' ;;
    clean) flags='--docker-host --help --instance --json' ;;
    token) flags='--file --help --json' words='new' ;;
    new) flags='--help --json' ;;
    doctor) flags='--backend --ca --config --docker-host --help --host --json --runtimes --state-dir' ;;
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    return
  fi
  case $command in
    invoke | logs | delete) words=$(tinyfaas list 2>/dev/null) ;;
    deploy)
      compopt -o filenames 2>/dev/null
      COMPREPLY=($(compgen -d -- "$cur") $(compgen -f -X '!*.zip' -- "$cur"))
      return
      ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _tinyfaas tinyfaas
