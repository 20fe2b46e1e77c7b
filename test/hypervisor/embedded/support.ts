// What the tests of embedded machines share: their configuration, whole copies of RAM, a standby.

import { CHUNK_BYTES } from '../../../src/disk/dirty-map.js';
import {
  openEmbeddedTarget,
  type BuiltinGuest,
  type EmbeddedConfig,
} from '../../../src/hypervisor/embedded/index.js';
import type { Domain, SourceDomain, TargetDomain } from '../../../src/hypervisor/port.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { MIB } from '../support.js';

export function builtin(guest: Partial<BuiltinGuest> = {}, memoryBytes = 16 * MIB): EmbeddedConfig {
  return { name: 'test', memoryBytes, guest: { kind: 'builtin', ...guest } };
}

export async function allFrames(domain: Domain): Promise<Uint32Array> {
  const { p2mSize } = await domain.info();
  return Uint32Array.from({ length: p2mSize }, (_, pfn) => pfn);
}

export async function copyRam(domain: SourceDomain): Promise<Buffer> {
  const frames = await allFrames(domain);
  const slab = new Uint8Array(new SharedArrayBuffer(frames.length * PAGE_SIZE));
  await domain.copyPages(frames, frames.length, slab, 0);
  return Buffer.from(slab);
}

/** Of all chunks of its disk. */
export async function diskSums(domain: SourceDomain | TargetDomain): Promise<string> {
  const [disk] = domain.disks?.disks ?? [];
  if (!domain.disks || !disk) throw new Error('it has no disk');
  const sums = await domain.disks.sums(0, 0, Math.ceil(disk.bytes / CHUNK_BYTES));
  return Buffer.from(sums).toString('hex');
}

/** A standby with RAM and context of a suspended domain. */
export async function standbyOf(
  source: SourceDomain,
  config: EmbeddedConfig,
): Promise<TargetDomain & SourceDomain> {
  const frames = await allFrames(source);
  const [ram, context] = await Promise.all([copyRam(source), source.hvmContext()]);
  const target = await openEmbeddedTarget({ ...config, name: 'standby' });
  try {
    await target.populate(frames, frames.length, new Uint32Array(frames.length));
    await target.writePages(frames, frames.length, ram);
    await target.setHvmContext(context);
  } catch (error) {
    await target.destroy();
    throw error;
  }
  return target;
}
