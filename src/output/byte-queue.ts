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
  private readonly blocks: Block[] = [];
  private held = 0;

  get length(): number {
    return this.held;
  }

  push(bytes: Uint8Array): void {
    let from = 0;
    while (from < bytes.length) {
      let block = this.blocks.at(-1);
      if (block === undefined || block.end === block.memory.length) {
        block = { memory: new Uint8Array(BLOCK_BYTES), start: 0, end: 0 };
        this.blocks.push(block);
      }
      const count = Math.min(bytes.length - from, block.memory.length - block.end);
      block.memory.set(bytes.subarray(from, from + count), block.end);
      block.end += count;
      from += count;
    }
    this.held += bytes.length;
  }

  /** Hands the first `count` octets to `write`, in order; a piece is gone from the queue before it is written. */
  take(count: number, write: (bytes: Uint8Array) => void): void {
    let left = Math.min(count, this.held);
    while (left > 0) {
      const block = this.blocks[0];
      if (block === undefined) return;
      const piece = block.memory.subarray(block.start, Math.min(block.end, block.start + left));
      block.start += piece.length;
      left -= piece.length;
      this.held -= piece.length;
      if (block.start === block.memory.length) this.blocks.shift();
      write(piece);
    }
  }

  clear(): void {
    this.blocks.length = 0;
    this.held = 0;
  }
}
