#!/bin/sh
# Called by mmdebstrap when all packages are installed: what an administrator would do to this server.
set -eu
root=$1

echo server > "$root/etc/hostname"
echo '127.0.0.1 localhost server' > "$root/etc/hosts"
echo '/dev/vda / ext4 defaults 0 1' > "$root/etc/fstab"
cat > "$root/etc/systemd/network/lan.network" <<END_OF_FILE
[Match]
Name=eth0
[Network]
Address=$ADDRESS
LinkLocalAddressing=no
IPv6AcceptRA=no
END_OF_FILE
install -d -m 700 "$root/root/.ssh"
install -m 600 "$KEY_FILE" "$root/root/.ssh/authorized_keys"
echo 'UseDNS no' > "$root/etc/ssh/sshd_config.d/server.conf"

# What is of no use to this guest, and would only make it start later.
systemctl --quiet --root="$root" enable systemd-networkd
systemctl --quiet --root="$root" mask systemd-networkd-wait-online getty@tty1 serial-getty@ttyS0 getty.target \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap fstrim.timer \
  systemd-update-utmp systemd-update-utmp-runlevel systemd-timesyncd systemd-journal-flush systemd-binfmt \
  systemd-logind systemd-pstore systemd-sysusers systemd-user-sessions modprobe@.service \
  sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount dev-mqueue.mount
# Of a processor that has all that QEMU can emulate.
echo 'install kvm_amd /bin/true' > "$root/etc/modprobe.d/server.conf"

# Debian's Redis as it comes, but for who may connect, and that no write is acknowledged before it is on the disk.
cat >> "$root/etc/redis/redis.conf" <<END_OF_FILE
bind 0.0.0.0
protected-mode no
appendonly yes
appendfsync always
END_OF_FILE

# Debian's PostgreSQL as it comes, but for its size, who may connect, and that it knows a page that was spoilt.
cluster=$(echo "$root"/etc/postgresql/*/main)
cat > "$cluster/conf.d/server.conf" <<END_OF_FILE
listen_addresses = '*'
shared_buffers = 32MB
max_wal_size = 128MB
min_wal_size = 64MB
checkpoint_timeout = 30s
jit = off
END_OF_FILE
cat > "$cluster/pg_hba.conf" <<END_OF_FILE
local all all trust
host all all ${ADDRESS%.*}.0/24 trust
END_OF_FILE
chroot "$root" su postgres -c '
  set -e
  cd /
  bin=$(echo /usr/lib/postgresql/*/bin)
  data=$(echo /var/lib/postgresql/*/main)
  $bin/pg_checksums --enable -D "$data" > /dev/null
  configuration=$(echo /etc/postgresql/*/main/postgresql.conf)
  $bin/pg_ctl -D "$data" -w -s -o "-c config_file=$configuration -c fsync=off" -l /tmp/log start
  $bin/createdb bench
  $bin/pgbench -q -i -s 2 bench > /tmp/log 2>&1
  $bin/psql -q bench -c "CREATE TABLE acknowledged (number bigint PRIMARY KEY, said text NOT NULL); CREATE EXTENSION amcheck"
  $bin/pg_ctl -D "$data" -w -s stop
  rm /tmp/log
'
