// What libvirt or xenopsd keeps around a stream and is not taken into the stream that a verb writes: said, since some of
// it belongs to the guest (its device model's state, its firmware's variables).

import type { StreamVisitor, WrapperPart } from '../../stream/examine/visitor.js';

/** Parts that frame the file and hold nothing. */
const FRAMING: readonly string[] = ['signature', 'Libxc', 'Libxl', 'End_of_image'];
/** A real file has one of each kind. */
const PARTS_MAX = 16;

export class LeftOut implements StreamVisitor {
  readonly #parts: WrapperPart[] = [];

  wrapper(part: WrapperPart): void {
    if (!FRAMING.includes(part.name) && this.#parts.length < PARTS_MAX) {
      this.#parts.push(part);
    }
  }

  report(to: NodeJS.WritableStream): void {
    for (const { kind, name, offset, length } of this.#parts) {
      to.write(`left out: ${kind}'s ${name}, ${length} octets at ${offset}\n`);
    }
  }
}
