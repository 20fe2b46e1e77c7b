// All of a QEMU's memory blocks as it has them, its firmware and its tables too, read past QEMU: which block lies where
// in its address space is found by their sizes.
//
//   info ramblock     pc.bios … 0x40000        /proc/PID/maps     7f…-7f… rw-p  0x40000 long, anonymous
//
// QEMU maps each block by itself, with a page that nobody may touch behind it. Blocks of one size are taken together: of
// two QEMUs the same contents must be there, in whatever order.

import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import type { QmpClient } from '../../../src/hypervisor/qemu/monitor/qmp.js';

/** Of what is as large as a block: how QEMU aligns memory on x86. */
const BLOCK_ALIGNMENT = 2 ** 21;

export interface RamBlock {
  readonly name: string;
  /** Octets that are mapped. */
  readonly bytes: number;
}

export interface BlockContents {
  readonly names: readonly string[];
  readonly bytes: number;
  /** Of what is mapped at this size, sorted. */
  readonly hashes: readonly string[];
  /** So many of them are not all zero. */
  readonly filled: number;
}

export async function ramBlocks(qmp: QmpClient): Promise<RamBlock[]> {
  const text = await qmp.human('info ramblock');
  return [...text.matchAll(/^\s*(\S+)\s+\d+ [KMG]iB\s+0x[0-9a-f]+\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)/gm)].map(
    ([, name = '', total = '']) => ({ name, bytes: Number(total) }),
  );
}

/** All blocks but guest RAM (`ram`), by their size. Fails if one is not found. */
export function blockContents(pid: number, blocks: readonly RamBlock[], ram: string): BlockContents[] {
  const sizes = [...new Set(blocks.filter(({ name }) => name !== ram).map(({ bytes }) => bytes))];
  const mapped = guarded(pid);
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  try {
    return sizes
      .sort((a, b) => a - b)
      .map((bytes) => {
        const names = blocks.filter((block) => block.bytes === bytes).map(({ name }) => name);
        const contents = mapped
          .filter((mapping) => mapping.bytes === bytes)
          .map(({ from }) => contentsAt(memory, from, bytes));
        if (contents.length < names.length) throw new Error(`not in QEMU's memory: ${names.join(', ')}`);
        const hashes = contents.map(({ hash }) => hash).sort();
        return { names, bytes, hashes, filled: contents.filter(({ isZero }) => !isZero).length };
      });
  } finally {
    closeSync(memory);
  }
}

/** Memory with a page behind it that nobody may touch. */
function guarded(pid: number): { from: number; bytes: number }[] {
  const mappings = [
    ...readFileSync(`/proc/${pid}/maps`, 'latin1').matchAll(/^([0-9a-f]+)-([0-9a-f]+) (\S+) (.*)$/gm),
  ].map(([, from = '', to = '', rights = '', rest = '']) => ({
    ...{ from: parseInt(from, 16), to: parseInt(to, 16), rights },
    isNamed: /\s\S+\s\S+\s\d+\s+\S/.test(` ${rest}`),
  }));
  return mappings.flatMap(({ from, to, rights, isNamed }, k) =>
    from % BLOCK_ALIGNMENT === 0 &&
    rights === 'rw-p' &&
    !isNamed &&
    mappings[k + 1]?.from === to &&
    mappings[k + 1]?.rights === '---p'
      ? [{ from, bytes: to - from }]
      : [],
  );
}

function contentsAt(memory: number, from: number, bytes: number): { hash: string; isZero: boolean } {
  const contents = Buffer.alloc(bytes);
  for (let at = 0; at < bytes;) at += readSync(memory, contents, at, bytes - at, from + at);
  return {
    hash: createHash('sha256').update(contents).digest('hex'),
    isZero: contents.every((octet) => octet === 0),
  };
}
