// dom0's file system, made of what Debian's packages hold: busybox, the toolstack's programs and libraries, the kernel
// modules that they need, and the first process.

import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import type { DebianTree } from './debian.js';
import { Initramfs } from '../../src/hypervisor/qemu/guest/initramfs.js';

// Seen from dist/test/xen.
const init = new URL('../../../test/xen/dom0-init.sh', import.meta.url);

const PROGRAMS = ['xl', 'libxl-save-helper', 'xenstored', 'xenconsoled', 'xen-init-dom0'];
const MODULES = ['xen-evtchn', 'xen-privcmd', 'xenfs/xenfs', 'xen-gntdev', 'xen-gntalloc'];
const LIBRARIES = /^(libxen|libxl|libyajl|libuuid|libz|liblzma|libgcc_s|libc|libm)[^/]*\.so\.[\d.]+$/;

export interface BootFiles {
  /** Paths of files. */
  readonly xen: string;
  readonly kernel: string;
  readonly initramfs: string;
}

/** Writes what the machine boots from into `scratch`. `images` (by name) are in dom0's folder /images. */
export async function buildDom0(
  debian: DebianTree,
  images: ReadonlyMap<string, Uint8Array>,
  scratch: string,
): Promise<BootFiles> {
  const { root, kernelVersion } = debian;
  const take = (...names: string[]) => readFile(path.join(root, ...names));
  const files = new Initramfs();
  files.file('init', await readFile(init)).directory('dev');
  files.file('bin/busybox', await take('bin/busybox'));
  files.file('lib64/ld-linux-x86-64.so.2', await take('lib/x86_64-linux-gnu/ld-linux-x86-64.so.2'));
  for (const program of PROGRAMS) {
    const name = `usr/lib/xen-4.17/bin/${program}`;
    files.file(name, await take(name));
  }
  for (const folder of ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu']) {
    for (const name of await readdir(path.join(root, folder))) {
      // A link is followed: libraries are wanted under the name by which programs ask for them.
      if (LIBRARIES.test(name)) files.file(`lib/x86_64-linux-gnu/${name}`, await take(folder, name));
    }
  }
  for (const module of MODULES) {
    const file = `${module}.ko`;
    const drivers = `lib/modules/${kernelVersion}/kernel/drivers/xen`;
    files.file(`modules/${path.basename(file)}`, await take(drivers, file));
  }
  for (const [name, bytes] of images) files.file(`images/${name}`, bytes);

  const boot: BootFiles = {
    xen: path.join(scratch, 'xen'),
    kernel: path.join(root, `boot/vmlinuz-${kernelVersion}`),
    initramfs: path.join(scratch, 'initramfs'),
  };
  await writeFile(boot.xen, await promisify(gunzip)(await take('boot/xen-4.17-amd64.gz')));
  await writeFile(boot.initramfs, files.bytes());
  return boot;
}
