// Reading a disk that is written to meanwhile. What a read gives is as old as the moment in which the disk served it,
// which nobody knows; a write that we hear of while it is under way may be newer, or may be in it. So what is written is
// cut out of what is read, and the write alone tells of it.
//
//   asked ──────────── served ─────────── answered
//            write 1              write 2              write 3
//            in it, or cut        not in it: cut       comes later than the answer, and is applied later
//
// That is enough because a write is on the disk before we hear of it: what a read that is asked afterwards gives is not
// older. And because whoever applies both applies the answers before the writes that were heard of after them.

/** A read that is under way. */
export class MaskedRead {
  readonly offset: number;
  readonly length: number;
  /** What is left of it: start and end of each range in turn, ascending. */
  left: number[];

  constructor(offset: number, length: number) {
    this.offset = offset;
    this.length = length;
    this.left = length === 0 ? [] : [offset, offset + length];
  }
}

export class Mask {
  readonly #reads: MaskedRead[] = [];

  /** Nothing is read: writes need not be told. */
  get isIdle(): boolean {
    return this.#reads.length === 0;
  }

  /** Before the read is asked for. */
  begin(offset: number, length: number): MaskedRead {
    const read = new MaskedRead(offset, length);
    this.#reads.push(read);
    return read;
  }

  /** The range was written. */
  cut(offset: number, length: number): void {
    const end = offset + length;
    for (const read of this.#reads) {
      if (length > 0 && offset < read.offset + read.length && end > read.offset) {
        read.left = without(read.left, offset, end);
      }
    }
  }

  /** Once its answer is here, or will never be. */
  end(read: MaskedRead): void {
    const index = this.#reads.indexOf(read);
    if (index < 0) throw new RangeError(`the read at ${read.offset} is not under way`);
    this.#reads.splice(index, 1);
  }
}

/** The ranges without what lies within start … end - 1. */
function without(ranges: readonly number[], start: number, end: number): number[] {
  const left: number[] = [];
  for (let at = 0; at + 1 < ranges.length; at += 2) {
    const first = ranges[at] ?? Infinity;
    const last = ranges[at + 1] ?? -Infinity;
    if (first < Math.min(last, start)) left.push(first, Math.min(last, start));
    if (Math.max(first, end) < last) left.push(Math.max(first, end), last);
  }
  return left;
}
