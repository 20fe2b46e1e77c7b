// What the tests of embedded machines share: a console that can be waited on, whole copies of RAM, small images.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  openEmbeddedTarget,
  type BuiltinGuest,
  type EmbeddedConfig,
} from '../../../src/hypervisor/embedded/index.js';
import {
  HypervisorError,
  type Domain,
  type DomainEvent,
  type HypervisorErrorCode,
  type SourceDomain,
  type TargetDomain,
} from '../../../src/hypervisor/port.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';

export const MIB = 1024 * 1024;

export function builtin(guest: Partial<BuiltinGuest> = {}, memoryBytes = 16 * MIB): EmbeddedConfig {
  return { name: 'test', memoryBytes, guest: { kind: 'builtin', ...guest } };
}

/** All that a domain said, and the means to wait for it. */
export class Console {
  text = '';
  private waiting: { readonly found: () => boolean; readonly resolve: () => void }[] = [];

  constructor(domain: Domain) {
    domain.output$.subscribe((bytes) => {
      this.text += Buffer.from(bytes).toString('latin1');
      this.waiting = this.waiting.filter((wait) => {
        if (!wait.found()) return true;
        wait.resolve();
        return false;
      });
    });
  }

  until(found: () => boolean): Promise<void> {
    if (found()) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push({ found, resolve }));
  }

  untilText(text: string): Promise<void> {
    return this.until(() => this.text.includes(text));
  }

  /** The numbers of the ticks that were said, whole lines only. */
  ticks(): number[] {
    return [...this.text.matchAll(/^tick (\d+) ok$/gm)].map((match) => Number(match[1]));
  }
}

export function firstEvent(domain: Domain): Promise<DomainEvent> {
  return new Promise((resolve) => {
    domain.events$.subscribe(resolve);
  });
}

export async function expectCode(
  promise: Promise<unknown>,
  code: HypervisorErrorCode,
): Promise<HypervisorError> {
  try {
    await promise;
  } catch (error) {
    if (!(error instanceof HypervisorError)) throw error;
    expect(error.code, error.message).to.equal(code);
    return error;
  }
  throw new Error(`it should have failed with ${code}`);
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

/** Runs `use` with the name of a file that holds `code` as a multiboot image, loaded and entered at 1 MiB. */
export async function withImage(code: Uint8Array, use: (file: string) => Promise<void>): Promise<void> {
  const loadAt = 0x100000;
  const headerBytes = 32;
  const image = Buffer.alloc(headerBytes + code.length);
  const flags = 0x10000; // the header says where to load and to enter
  image.writeUInt32LE(0x1badb002, 0);
  image.writeUInt32LE(flags, 4);
  image.writeInt32LE(-(0x1badb002 + flags) | 0, 8);
  image.writeUInt32LE(loadAt, 12); // this header
  image.writeUInt32LE(loadAt, 16); // first octet
  image.writeUInt32LE(loadAt + image.length, 20); // end of what is loaded
  image.writeUInt32LE(loadAt + image.length, 24); // end of what is cleared
  image.writeUInt32LE(loadAt + headerBytes, 28); // entry
  image.set(code, headerBytes);
  const folder = await mkdtemp(join(tmpdir(), 'romulus-image-'));
  try {
    const file = join(folder, 'image');
    await writeFile(file, image);
    await use(file);
  } finally {
    await rm(folder, { recursive: true });
  }
}
