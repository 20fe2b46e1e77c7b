// What runs in a memory domain of the tests: a guest whose whole memory follows from how far it has come. Write number
// n changes one page and page 0, which holds n, and then says one line of 8 octets. So a copy of its memory tells by
// itself whether it is consistent, and its output up to a point has 8 octets for each write up to that point.

import type { MemoryDomain } from '../memory/domain.js';
import { PAGE_SIZE } from '../../src/stream/format.js';

export const LINE_BYTES = 8;
const WRITE_BYTES = 64;

export function lineOf(n: number): string {
  return `${String(n).padStart(LINE_BYTES - 1, '0')}\n`;
}

function placeOf(n: number, pages: number): { pfn: number; offset: number } {
  const hash = Math.imul(n, 0x9e3779b1) >>> 0;
  return { pfn: 1 + (hash % (pages - 1)), offset: ((hash >>> 8) % (PAGE_SIZE / WRITE_BYTES)) * WRITE_BYTES };
}

function contentOf(n: number): Uint8Array {
  return new Uint8Array(WRITE_BYTES).fill((n * 31 + 7) & 255);
}

function counterOf(n: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, n, true);
  return bytes;
}

/** How far the guest has come, by its memory. */
export function progressOf(memory: Uint8Array): number {
  return new DataView(memory.buffer, memory.byteOffset).getUint32(0, true);
}

/** The memory after write number n. */
export function memoryAfter(n: number, pages: number): Uint8Array {
  const memory = new Uint8Array(pages * PAGE_SIZE);
  for (let i = 1; i <= n; i++) {
    const { pfn, offset } = placeOf(i, pages);
    memory.set(contentOf(i), pfn * PAGE_SIZE + offset);
  }
  memory.set(counterOf(n), 0);
  return memory;
}

/** Runs the guest: `writesPerTurn` writes every `turnMs`, while the domain runs. */
export class MemoryGuest {
  private readonly timer: NodeJS.Timeout;
  writesPerTurn: number;
  /** What it does beside write number n, at the same moment. */
  readonly #beside: ((n: number) => void) | undefined;

  constructor(
    readonly domain: MemoryDomain,
    options: { turnMs?: number; writesPerTurn?: number; beside?: (n: number) => void } = {},
  ) {
    this.#beside = options.beside;
    this.writesPerTurn = options.writesPerTurn ?? 20;
    this.timer = setInterval(() => this.turn(), options.turnMs ?? 2);
    domain.events$.subscribe({ complete: () => this.end() });
  }

  get progress(): number {
    return progressOf(this.domain.memory);
  }

  turn(): void {
    for (let i = 0; i < this.writesPerTurn && this.domain.state === 'running'; i++) {
      const n = this.progress + 1;
      const { pfn, offset } = placeOf(n, this.domain.pages);
      this.domain.write(pfn, contentOf(n), offset);
      this.domain.write(0, counterOf(n));
      this.#beside?.(n);
      this.domain.say(Buffer.from(lineOf(n)));
    }
  }

  end(): void {
    clearInterval(this.timer);
  }
}
