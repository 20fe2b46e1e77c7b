// The frames of guest RAM that a reset of the machine writes: images that QEMU was told to put there (a kernel for PVH,
// -device loader), as "info roms" lists them.
//
//   addr=0000000000100000 size=0x021400 mem=ram name="vmlinux segment 0"       guest RAM, written at each reset
//   addr=00000000ffff0000 size=0x010000 mem=ram name="bios-microvm.bin"        a block of its own
//   addr=00000000fffc0000 size=0x040000 mem=rom name="bios-256k.bin"           a block of its own
//   /rom@etc/acpi/tables size=0x200000 name="etc/acpi/tables"                  a block of its own

import { valueAt } from '../../../stream/bounds.js';
import { PAGE_SIZE } from '../../../stream/format.js';
import { badConfiguration } from '../../port.js';
import type { RamAccess } from './ram-access.js';

/** Up to here RAM lies in its file at its own address, on every machine type. */
const LOW_RAM_END = 0x8000_0000;
/** Here, up to 4 GiB, lies no RAM, but firmware. */
const FIRMWARE_START = 0xfe00_0000;
const FIRMWARE_END = 0x1_0000_0000;

/**
 * Rising. `roms`: what "info roms" says.
 * @throws HypervisorError BAD_CONFIGURATION if QEMU puts something where it cannot be followed
 */
export function framesIn(roms: string): Uint32Array {
  const frames = new Set<number>();
  for (const match of roms.matchAll(/^addr=([0-9a-f]+) size=0x([0-9a-f]+) mem=ram\b/gm)) {
    const start = Number.parseInt(valueAt(match, 1), 16);
    const end = start + Number.parseInt(valueAt(match, 2), 16);
    if (start >= FIRMWARE_START && end <= FIRMWARE_END) continue;
    if (end > LOW_RAM_END) {
      throw badConfiguration(
        'QEMU is told to put an image into memory above 2 GiB, where a standby cannot keep it',
        { start, end },
      );
    }
    for (let frame = Math.floor(start / PAGE_SIZE); frame * PAGE_SIZE < end; frame++) frames.add(frame);
  }
  return Uint32Array.from(frames).sort();
}

/** What those frames of a filled memory held before a QEMU was let at it, until it can do no more harm. */
export class ResetFrames {
  readonly #ram: RamAccess;
  #frames: Uint32Array = new Uint32Array(0);
  #content: Uint8Array = new Uint8Array(0);
  #kept = false;
  /** What is being written into memory, while nothing is kept. */
  #writing: Promise<unknown> = Promise.resolve();

  constructor(ram: RamAccess) {
    this.#ram = ram;
  }

  /** Which they are; before memory is filled. */
  learn(frames: Uint32Array): void {
    this.#frames = frames;
    this.#content = new Uint8Array(frames.length * PAGE_SIZE);
  }

  /** A reset may be under way: memory is not to be trusted, nor written. */
  get areKept(): boolean {
    return this.#kept;
  }

  /** Memory is written: a reset that comes meanwhile waits for it. @throws as `work` */
  async whileWriting(work: () => Promise<void>): Promise<void> {
    const written = work();
    this.#writing = written.catch(() => undefined); // told to the caller
    await written;
  }

  /** Before a reset. What is kept already is the truth until putBack(). @throws HypervisorError FAILED */
  async keep(): Promise<void> {
    if (this.#kept || this.#frames.length === 0) return;
    this.#kept = true; // at once: no write begins from here on
    try {
      await this.#writing;
      await this.#ram.read(this.#frames, this.#frames.length, this.#content, 0);
    } catch (error) {
      this.#kept = false; // what was read is nothing to put back
      throw error;
    }
  }

  /** After the last reset: memory is the truth again. @throws HypervisorError FAILED: then it is not */
  async putBack(): Promise<void> {
    if (!this.#kept) return;
    await this.#ram.write(this.#frames, this.#frames.length, this.#content);
    this.#kept = false;
  }
}
