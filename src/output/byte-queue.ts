// A queue of octets: what is held behind a gate. A guest that prints one octet at a time must not cost an object for
// each, so octets are copied into blocks. Blocks are never reused: what was taken may still be on its way to a file.
//
//   blocks: [ taken | held ······ ][ held ···· | free ]

const BLOCK_BYTES = 64 * 1024;

interface Block {
  readonly memory: Uint8Array;
  /** Held are start … end - 1. */
  start: number;
  end: number;
}

export class ByteQueue {
  #blocks: Block[] = [];
  #held = 0;

  get length(): number {
    return this.#held;
  }

  push(bytes: Uint8Array): void {
    let from = 0;
    while (from < bytes.length) {
      let block = this.#blocks.at(-1);
      if (block === undefined || block.end === block.memory.length) {
        block = { memory: new Uint8Array(BLOCK_BYTES), start: 0, end: 0 };
        this.#blocks.push(block);
      }
      const count = Math.min(bytes.length - from, block.memory.length - block.end);
      block.memory.set(bytes.subarray(from, from + count), block.end);
      block.end += count;
      from += count;
    }
    this.#held += bytes.length;
  }

  /** Some of the first `count` octets, in one piece of at most a block, which stay in the queue; null: there are none. */
  peek(count: number): Uint8Array | null {
    const block = this.#blocks[0];
    if (block === undefined || block.start === block.end || count <= 0) return null;
    return block.memory.subarray(block.start, Math.min(block.end, block.start + count));
  }

  /** Removes the first `count` octets, or as many as there are. */
  drop(count: number): void {
    let left = Math.min(count, this.#held);
    let emptied = 0;
    for (const block of this.#blocks) {
      if (left === 0) break;
      const part = Math.min(left, block.end - block.start);
      block.start += part;
      left -= part;
      this.#held -= part;
      if (block.start < block.memory.length) break;
      emptied++;
    }
    if (emptied > 0) this.#blocks = this.#blocks.slice(emptied);
  }

  clear(): void {
    this.#blocks = [];
    this.#held = 0;
  }
}
