#!/bin/sh
# The Debian 12 that the test of a server runs: systemd, sshd, PostgreSQL, Redis, from Debian's packages. As root:
#
#   build.sh FOLDER ADDRESS      FOLDER is there and empty; ADDRESS is the guest's, as in 10.77.0.2/24
#
#   FOLDER/root.qcow2     its disk: ext4, no partitions
#   FOLDER/kernel, FOLDER/initrd
#   FOLDER/key            of a user who is let in as root
#   FOLDER/pgbench, FOLDER/lib/       what runs that elsewhere: pgbench, and what it is linked with
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=$1
export ADDRESS="$2"
root=$folder/root
bytes=2G

ssh-keygen -q -t ed25519 -N '' -C test -f "$folder/key"
export KEY_FILE="$folder/key.pub"

# Documents, translations and apt's lists are left out, and nothing is flushed in between: whoever is interrupted makes it anew.
TMPDIR=$folder mmdebstrap --quiet --mode=root --variant=minbase --format=directory \
  --include=systemd-sysv,iproute2,openssh-server,postgresql,postgresql-contrib,redis-server,linux-image-cloud-amd64 \
  --aptopt='APT::Sandbox::User "root"' --aptopt='Acquire::Retries "2"' --aptopt='Acquire::http::Timeout "20"' \
  --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --essential-hook="$here/before.sh" --customize-hook="$here/customise.sh" \
  bookworm "$root" 'deb http://deb.debian.org/debian bookworm main'

cp "$root"/boot/vmlinuz-* "$folder/kernel"
cp "$root"/boot/initrd.img-* "$folder/initrd"
rm "$root"/boot/initrd.img-*

mkdir "$folder/lib"
pgbench=/usr/lib/postgresql/15/bin/pgbench
cp "$root$pgbench" "$folder/pgbench"
for library in $(chroot "$root" ldd "$pgbench" | grep -o '/[^ ]*'); do cp -L "$root$library" "$folder/lib/"; done

# Nothing is left to be initialised by the guest in the background.
mke2fs -q -t ext4 -L root -N 65536 -J size=32 -E lazy_itable_init=0,lazy_journal_init=0 -d "$root" "$folder/root.raw" $bytes
qemu-img convert -q -f raw -O qcow2 "$folder/root.raw" "$folder/root.qcow2"
rm -r "$root" "$folder/root.raw" "$folder/key.pub"
