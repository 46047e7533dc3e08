#!/bin/sh
# Installs volcast on this machine, or takes it away again.
#
#     sudo scripts/install.sh [BINARY]       (default: dist/volcast)
#     sudo scripts/install.sh --uninstall
#
# Run it again after an upgrade: only what differs is replaced, and settings
# that are already in /etc/volcast stay as they are. DESTDIR puts everything
# under another root, for packages and tests; systemd is then left alone.

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
DESTDIR=${DESTDIR:-}
bin=$DESTDIR/usr/local/bin/volcast
units=$DESTDIR/etc/systemd/system
settings=$DESTDIR/etc/volcast
state=$DESTDIR/var/lib/volcast
changed=0

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

# Whether there is a systemd to talk to about what gets installed.
systemd_runs() {
    [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]
}

# put MODE SOURCE TARGET: installs a file unless it is there as it should be.
put() {
    if cmp -s "$2" "$3" && [ "$(stat -c %a "$3")" = "$1" ]; then
        return
    fi
    # By way of a new file: a running binary cannot be written to, and nobody
    # should meet half of one.
    install -D -m "$1" "$2" "$3.new"
    mv -f "$3.new" "$3"
    echo "installed $3"
    changed=1
}

# put_settings SOURCE TARGET: as above, but what an operator wrote is left alone.
put_settings() {
    if [ -e "$2" ]; then
        return
    fi
    put 600 "$1" "$2"
}

# take TARGET: removes a file that is there.
take() {
    if [ -e "$1" ]; then
        rm -f "$1"
        echo "removed $1"
        changed=1
    fi
}

install_all() {
    binary=${1:-$root/dist/volcast}
    [ -f "$binary" ] || fail "Cannot install $binary: no such file; make it with \`deno task compile\`"

    put 755 "$binary" "$bin"
    put 644 "$root/scripts/systemd/volcast@.service" "$units/volcast@.service"
    backoff=volcast@.service.d/backoff.conf
    if [ "$(systemd_version)" -ge 254 ]; then
        put 644 "$root/scripts/systemd/$backoff" "$units/$backoff"
    fi
    if [ ! -d "$settings" ]; then
        install -d -m 755 "$settings"
    fi
    for name in origin edge; do
        put_settings "$root/scripts/systemd/$name.env" "$settings/$name.env"
    done

    if [ "$changed" = 0 ]; then
        echo "Nothing changed: volcast is installed already."
        return
    fi
    if systemd_runs; then
        systemctl daemon-reload
    fi
    cat <<END

Next, on the server where releases are made:
  1. Put a token and your options into $settings/origin.env
  2. install -d -m 0700 $state/origin
     $bin init $state/origin/origin.vol --size 100GiB
  3. systemctl enable --now volcast@origin
or at a site that follows it:
  1. Put its parent, its name and its token into $settings/edge.env
  2. systemctl enable --now volcast@edge
Servers that run already keep the old binary until
  systemctl restart 'volcast@*.service'
END
}

uninstall_all() {
    if systemd_runs && [ -e "$units/volcast@.service" ]; then
        systemctl stop 'volcast@*.service'
        # Of the template: that is, of every instance.
        systemctl disable --quiet volcast@.service
    fi
    take "$bin"
    take "$units/volcast@.service"
    take "$units/volcast@.service.d/backoff.conf"
    if [ -d "$units/volcast@.service.d" ]; then
        # Stays if the operator put drop-ins of their own there.
        rmdir "$units/volcast@.service.d" 2>/dev/null || true
    fi
    if [ "$changed" = 0 ]; then
        echo "Nothing changed: volcast is not installed."
    elif systemd_runs; then
        systemctl daemon-reload
    fi
    echo "Volumes in $state and settings in $settings are kept; remove them by hand if you mean to."
}

# The version of the systemd that is here, 0 if there is none.
systemd_version() {
    systemctl --version 2>/dev/null | sed -n 's/^systemd \([0-9]*\).*/\1/p' | grep . || echo 0
}

case ${1:-} in
--uninstall)
    [ $# -eq 1 ] || fail "--uninstall takes nothing else"
    uninstall_all
    ;;
-*) fail "Unknown option $1; usage: install.sh [BINARY] | --uninstall" ;;
*)
    [ $# -le 1 ] || fail "Usage: install.sh [BINARY] | --uninstall"
    install_all "$@"
    ;;
esac
