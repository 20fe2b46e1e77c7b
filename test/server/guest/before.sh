#!/bin/sh
# Called by mmdebstrap, before packages are installed beside the essential ones: of the kernel's modules the initrd gets
# those that the guest needs to find its disk. Most of them, well compressed, would take half a minute.
set -eu
root=$1
mkdir -p "$root/etc/initramfs-tools/conf.d" "$root/etc/initramfs-tools/hooks"
cat > "$root/etc/initramfs-tools/conf.d/server" <<INNER
MODULES=list
COMPRESS=zstd
COMPRESSLEVEL=3
INNER
cat > "$root/etc/initramfs-tools/hooks/server" <<'INNER'
#!/bin/sh
[ "$1" != prereqs ] || exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk ext4
INNER
chmod 755 "$root/etc/initramfs-tools/hooks/server"
