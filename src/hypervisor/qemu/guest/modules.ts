// Which kernel modules the guest needs, in the order in which they can be loaded: a module comes after those that its
// own .modinfo section ("depends=virtio,virtio_ring") names. depmod's index is not in the package: it is made when a
// kernel is installed.

import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { failed, unsupported } from '../../port.js';
import { run, xz } from './programs.js';

/** A network card, on either bus that QEMU's machines have for it. */
export const GUEST_MODULES: readonly string[] = ['virtio_pci', 'virtio_mmio', 'virtio_net'];

const MODULE_BYTES_MAX = 16 * 1024 * 1024;

/**
 * The modules' files, uncompressed, those needed by others first. What is built into the kernel is left out.
 * @param folder /lib/modules/VERSION as a kernel package holds it
 * @throws HypervisorError FAILED if the kernel has no such module
 */
export async function modulesInOrder(
  folder: string,
  wanted: readonly string[],
  signal: AbortSignal,
): Promise<Buffer[]> {
  // What is built in counts as loaded.
  const visited = new Set(
    (await readFile(join(folder, 'modules.builtin'), 'utf8')).split('\n').map(moduleName),
  );
  const files = new Map<string, string>();
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (/\.ko(\.\w+)?$/.test(entry.name))
      files.set(moduleName(entry.name), join(entry.parentPath, entry.name));
  }

  const ordered: Buffer[] = [];
  const visit = async (name: string, neededBy: string): Promise<void> => {
    if (visited.has(name)) return;
    visited.add(name);
    const file = files.get(name);
    if (file === undefined) throw failed('the kernel has no such module', { module: name, neededBy, folder });
    const bytes = await readModule(file, signal);
    for (const needed of dependencies(bytes)) await visit(needed, name);
    ordered.push(bytes);
  };
  for (const name of wanted) await visit(name, 'the guest');
  return ordered;
}

/** "kernel/drivers/char/hw_random/virtio-rng.ko.xz", or "virtio-rng" in another's .modinfo, is virtio_rng. */
function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_');
}

async function readModule(file: string, signal: AbortSignal): Promise<Buffer> {
  if (file.endsWith('.ko')) return readFile(file, { signal });
  if (file.endsWith('.ko.xz')) {
    return run(xz, ['--decompress', '--stdout', file], { signal, maxBuffer: MODULE_BYTES_MAX });
  }
  throw unsupported('a kernel module is compressed in a way that is not known', {
    file,
  });
}

/** @param bytes an ELF file whose .modinfo section holds "key=value" texts, each ended by NUL */
function dependencies(bytes: Buffer): string[] {
  const key = Buffer.from('\0depends=');
  const at = bytes.indexOf(key);
  if (at < 0) return [];
  const from = at + key.length;
  const names = bytes.toString('latin1', from, bytes.indexOf(0, from));
  return names
    .split(',')
    .filter((name) => name !== '')
    .map(moduleName);
}
