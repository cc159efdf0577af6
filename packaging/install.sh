#!/bin/sh
# Installs tinyFaaS from its unpacked tarball, or removes it again. Any POSIX shell will do, busybox's too.
#
#   ./install.sh [--init systemd|openrc|procd|none]
#   install.sh --uninstall [--yes]      also from PREFIX/share/tinyfaas, where a copy is kept
#
# PREFIX (/usr/local) is where the files go, DESTDIR goes before each path (for images and packages; nothing is started or
# stopped then). Settings in /etc/tinyfaas are kept when they are there. --uninstall asks before it deletes settings and what is
# deployed; --yes deletes them, and where nobody can be asked they stay.
set -eu

PREFIX=${PREFIX:-/usr/local} DESTDIR=${DESTDIR:-}
here=$(cd "$(dirname "$0")" && pwd)
action=install init='' yes=''

die() {
  echo "install.sh: $*" >&2
  exit "${status:-1}"
}

while [ $# -gt 0 ]; do
  case $1 in
    --uninstall) action=uninstall ;;
    --yes) yes=1 ;;
    --init)
      [ $# -gt 1 ] || status=2 die "--init needs systemd, openrc, procd or none"
      init=$2
      shift
      ;;
    -h | --help)
      sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    *) status=2 die "unknown argument $1: see --help" ;;
  esac
  shift
done
# The copy that is kept knows where it was put.
case $here in
  */share/tinyfaas) [ -f "$here/installed" ] && PREFIX=${here%/share/tinyfaas} && PREFIX=${PREFIX#"$DESTDIR"} ;;
esac
case $PREFIX$DESTDIR in
  *[!A-Za-z0-9/._+-]*) status=2 die "PREFIX and DESTDIR: use letters, digits and /._+- alone" ;;
esac
case $PREFIX in
  /*) ;;
  *) status=2 die "PREFIX: $PREFIX is no absolute path" ;;
esac
root=$DESTDIR$PREFIX
kept=$root/share/tinyfaas

if [ -z "$init" ]; then
  if [ -d "$DESTDIR/run/systemd/system" ]; then
    init=systemd
  elif [ -f "$DESTDIR/etc/openwrt_release" ]; then
    init=procd
  elif [ -x "$DESTDIR/sbin/openrc-run" ]; then
    init=openrc
  else
    init=none
  fi
fi

# put MODE FILE PATH: copies FILE to PATH (below DESTDIR), whole or not at all, and remembers it. Paths in it are ours.
put() {
  mkdir -p "$DESTDIR${3%/*}"
  case $3 in
    */bin/*) cp "$here/$2" "$DESTDIR$3.new" ;;
    *) sed -e "s,/usr/bin/tinyfaas,$PREFIX/bin/tinyfaas,g" -e "s,/var/lib/tinyfaas,$state,g" "$here/$2" >"$DESTDIR$3.new" ;;
  esac
  chmod "$1" "$DESTDIR$3.new"
  # A program that runs cannot be written to, but it can be replaced.
  mv "$DESTDIR$3.new" "$DESTDIR$3"
  echo "$3" >>"$list"
}

tree() { # FOLDER PATH
  (cd "$here" && find "$1" -type f) | sort | while read -r file; do
    mode=644
    [ ! -x "$here/$file" ] || mode=755
    put $mode "$file" "$2/${file#*/}"
  done
}

install() {
  case $init in
    systemd | openrc | none) state=/var/lib/tinyfaas ;;
    procd) state=/srv/tinyfaas ;;
    *) status=2 die "--init $init: use systemd, openrc, procd or none" ;;
  esac
  [ -f "$here/bin/tinyfaas" ] || die "$here/bin/tinyfaas is missing: run this from the unpacked tarball"
  mkdir -p "$kept"
  list=$kept/installed.new
  : >"$list"
  chmod 644 "$list"
  put 755 bin/tinyfaas "$PREFIX/bin/tinyfaas"
  put 644 man/tinyfaas.1 "$PREFIX/share/man/man1/tinyfaas.1"
  put 644 completions/tinyfaas.bash "$PREFIX/share/bash-completion/completions/tinyfaas"
  put 644 completions/_tinyfaas "$PREFIX/share/zsh/site-functions/_tinyfaas"
  put 644 completions/tinyfaas.fish "$PREFIX/share/fish/vendor_completions.d/tinyfaas.fish"
  for file in README.md LICENSE LICENSES CHANGELOG.md; do
    put 644 $file "$PREFIX/share/doc/tinyfaas/$file"
  done
  tree examples "$PREFIX/share/tinyfaas/examples"
  tree runtimes "$PREFIX/share/tinyfaas/runtimes"
  put 755 install.sh "$PREFIX/share/tinyfaas/install.sh"
  case $init in
    systemd)
      put 644 systemd/tinyfaas.service "$PREFIX/lib/systemd/system/tinyfaas.service"
      put 644 systemd/tinyfaas-http.socket "$PREFIX/lib/systemd/system/tinyfaas-http.socket"
      put 644 systemd/process-cgroups.conf "$PREFIX/share/tinyfaas/process-cgroups.conf"
      ;;
    openrc) put 755 openrc/tinyfaas /etc/init.d/tinyfaas ;;
    procd) put 755 procd/tinyfaas /etc/init.d/tinyfaas ;;
  esac
  echo "$state" >"$kept/state"
  # What an earlier version installed and this one does not.
  if [ -f "$kept/installed" ]; then
    while read -r file; do
      grep -qxF "$file" "$list" || rm -f "$DESTDIR$file"
    done <"$kept/installed"
  fi
  mv "$list" "$kept/installed"
  settings=/etc/tinyfaas/tinyfaas.json
  if [ ! -e "$DESTDIR$settings" ]; then
    mkdir -p "$DESTDIR/etc/tinyfaas"
    cp "$here/tinyfaas.json" "$DESTDIR$settings"
    chmod 644 "$DESTDIR$settings"
  else
    echo "$settings is kept as it is"
  fi
  [ -n "$DESTDIR" ] || prepare
  echo "installed $PREFIX/bin/tinyfaas"
}

# The user that the service runs as, in the group that reaches the Docker engine.
prepare() {
  [ "$(id -u)" = 0 ] || return 0
  case $init in
    systemd | openrc)
      if ! id tinyfaas >/dev/null 2>&1; then
        useradd --system --user-group --home-dir "$state" --no-create-home --shell /usr/sbin/nologin tinyfaas 2>/dev/null ||
          adduser -S -D -H -h "$state" -s /sbin/nologin tinyfaas || die "cannot make the user tinyfaas"
        grep -q '^tinyfaas:' /etc/group || addgroup -S tinyfaas
      fi
      if grep -q '^docker:' /etc/group; then
        usermod -a -G docker tinyfaas 2>/dev/null || addgroup tinyfaas docker
      fi
      ;;
  esac
  case $init in
    systemd)
      systemctl daemon-reload
      systemctl try-restart tinyfaas
      echo "start it: systemctl enable --now tinyfaas"
      ;;
    openrc) echo "start it: rc-update add tinyfaas && rc-service tinyfaas start" ;;
    procd) echo "start it: /etc/init.d/tinyfaas enable && /etc/init.d/tinyfaas start" ;;
    none) echo "start it: $PREFIX/bin/tinyfaas serve --config $settings" ;;
  esac
}

# ask WHAT FOLDER: deletes it if that is wanted.
ask() {
  [ -d "$DESTDIR$2" ] || return 0
  answer=$yes
  if [ -z "$answer" ] && [ -t 0 ]; then
    printf 'Delete %s in %s? [y/N] ' "$1" "$DESTDIR$2"
    read -r answer || answer=
  fi
  case $answer in
    1 | y | Y | yes) rm -rf "$DESTDIR${2:?}" ;;
    *) echo "kept: $1 in $DESTDIR$2" ;;
  esac
}

uninstall() {
  [ -f "$kept/installed" ] || die "nothing is installed below $root: name the PREFIX and DESTDIR that were used"
  state=$(cat "$kept/state")
  if [ -z "$DESTDIR" ]; then
    if [ -d /run/systemd/system ]; then
      systemctl disable --now tinyfaas-http.socket tinyfaas.service || true
    elif [ -x /etc/init.d/tinyfaas ]; then
      /etc/init.d/tinyfaas stop || true
      rc-update del tinyfaas 2>/dev/null || /etc/init.d/tinyfaas disable 2>/dev/null || true
    fi
  fi
  cp "$kept/installed" "$kept/installed.old"
  while read -r file; do
    rm -f "$DESTDIR$file"
    # Folders that were ours alone, up to the first that is not.
    folder=${file%/*}
    while [ -n "$folder" ] && rmdir "$DESTDIR$folder" 2>/dev/null; do
      folder=${folder%/*}
    done
  done <"$kept/installed.old"
  rm -f "$kept/installed" "$kept/installed.old" "$kept/state"
  folder=$PREFIX/share/tinyfaas
  while [ -n "$folder" ] && rmdir "$DESTDIR$folder" 2>/dev/null; do
    folder=${folder%/*}
  done
  ask "what is deployed" "$state"
  ask "the settings" /etc/tinyfaas
  for folder in "${state%/*}" /etc; do
    rmdir "$DESTDIR$folder" 2>/dev/null || true
  done
  [ -n "$DESTDIR" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
  echo "removed $root/bin/tinyfaas"
}

$action
