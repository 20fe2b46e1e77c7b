// The disk of the guest that numbers what it writes (guest/sequence.c), as somebody else reads it: of one moment, or a mix.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const BLOCK_BYTES = 4096;
export const BLOCKS = 1024;
export const DISK_BYTES = BLOCKS * BLOCK_BYTES;
const SECTOR_WORDS = 128;
const BLOCK_WORDS = BLOCK_BYTES / 4;
const MULTIPLIER = 0x2e5;
const MAGIC = 0x5e90e7ce;
/** Writes that are under way at once. */
const DEPTH = 8;
const INVERSE = Array.from({ length: BLOCKS }, (_, n) => n).find((n) => (n * MULTIPLIER) % BLOCKS === 1) ?? 0;

export const SEQUENCE_GUEST = fileURLToPath(
  new URL('../../../../../../test/hypervisor/qemu/disks/guest/sequence.elf', import.meta.url),
);

/** For QEMU: the guest, and its disk, named "disk". */
export function sequenceArguments(drive: string): string[] {
  return [
    ...['-kernel', SEQUENCE_GUEST, '-drive', `if=none,id=disk,${drive}`],
    ...['-device', 'virtio-blk-pci,drive=disk,disable-modern=on'],
  ];
}

export interface Sequences {
  /** The highest number. */
  readonly last: number;
  /** Up to this one there are no gaps: the disk of a moment in which nothing was under way has the same. */
  readonly whole: number;
}

/** @throws Error saying which block is of another moment */
export function sequencesIn(octets: Uint8Array): Sequences {
  const words = new Uint32Array(octets.buffer, octets.byteOffset, DISK_BYTES / 4);
  const numbers = Array.from({ length: BLOCKS }, (_, block) => numberIn(words, block));
  const last = Math.max(...numbers);
  let whole = last;
  for (const [block, is] of numbers.entries()) {
    const due = lastOf(block, last);
    if (is === due) continue;
    if (due + DEPTH <= last || is !== lastOf(block, due - 1)) {
      throw new Error(`a mix: block ${block} has number ${is}, not ${due}, where ${last} is the last`);
    }
    whole = Math.min(whole, due - 1);
  }
  return { last, whole };
}

function numberIn(words: Uint32Array, block: number): number {
  const at = block * BLOCK_WORDS;
  const [magic, number = 0, nonce] = words.subarray(at, at + 3);
  if (magic === 0 && words.subarray(at, at + BLOCK_WORDS).every((word) => word === 0)) return 0;
  for (let sector = at; sector < at + BLOCK_WORDS; sector += SECTOR_WORDS) {
    if (words[sector] !== MAGIC) throw new Error(`block ${block} is none`);
    if (words[sector + 1] !== number || words[sector + 2] !== nonce)
      throw new Error(`block ${block} is torn`);
  }
  return number;
}

/** The last write up to this one that went to the block; 0: none did. */
function lastOf(block: number, number: number): number {
  const back = (number - ((block * INVERSE) % BLOCKS) + BLOCKS) % BLOCKS;
  return back < number ? number - back : 0;
}

const CLUSTER_MASK = 0x00ff_ffff_ffff_fe00n;

/** What the guest sees, of an image that nobody writes to now; qcow2: without a backing file, not compressed. */
export function plainOf(file: string, format: string): Uint8Array {
  const octets = readFileSync(file);
  return format === 'raw' ? octets : plainOfQcow2(octets);
}

function plainOfQcow2(octets: Buffer): Uint8Array {
  const clusterBytes = 2 ** octets.readUInt32BE(20);
  const plain = new Uint8Array(Number(octets.readBigUInt64BE(24)));
  const l1 = Number(octets.readBigUInt64BE(40));
  const l2Entries = clusterBytes / 8;
  for (let at = 0; at < plain.length; at += clusterBytes) {
    const cluster = at / clusterBytes;
    const l2 = Number(octets.readBigUInt64BE(l1 + 8 * Math.floor(cluster / l2Entries)) & CLUSTER_MASK);
    if (l2 === 0) continue;
    const entry = octets.readBigUInt64BE(l2 + 8 * (cluster % l2Entries));
    const from = Number(entry & CLUSTER_MASK);
    if (from === 0 || (entry & 1n) === 1n) continue; // not there, or zeroes
    const bytes = Math.min(clusterBytes, plain.length - at);
    plain.set(octets.subarray(from, from + bytes), at);
  }
  return plain;
}
