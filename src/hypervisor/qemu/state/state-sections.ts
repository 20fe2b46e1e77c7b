// The sections of a device state, which are the devices of the machine: one for each, in QEMU's order.
//
//   "QEVM" version │ 04 id len name instance version  data …  7e id │ 04 id len name … │ … 7e id │ 00
//                    ╰── header ───────────────────╯          ╰─ footer
//
// The data does not say how long it is, so a header is found behind the footer of the section before. To look whether a
// state has the same sections as one before, the headers are known, and looked for as they were: the same machine is
// always found the same, whatever its guest puts into the data. Another machine has another header somewhere, or another
// end.
//
// One section is not of a device: "globalstate" says what the guest does, as in any migration of QEMU: 'running', or by
// what it was stopped. xen-save-devices-state writes 'running' always; we write what is true.
//
//   … 04 id 0b "globalstate" 0 1 │ u32 length of the word │ the word, in 100 octets │ 7e id │ …

const START = 8;
const SECTION_FULL = 4;
const FOOTER = 0x7e;
const END = 0;
/** Around a name: type, id and its length before it; instance and version behind. */
const HEADER_BEFORE = 6;
const HEADER_AFTER = 8;
const FOOTER_BYTES = 5;

const GLOBAL_STATE = Buffer.from('\x0bglobalstate\0\0\0\0\0\0\0\x01', 'latin1');
const RUN_STATE_BYTES = 100;
/** QEMU's word for a guest that runs. */
export const RUNNING = 'running';

export class StateSections {
  /** "0000:00:02.0/virtio-rng 0", in QEMU's order. */
  readonly names: readonly string[];
  /** The first header; each further one with the footer before it; the last footer and the end. */
  readonly #needles: readonly Buffer[];

  private constructor(names: readonly string[], needles: readonly Buffer[]) {
    this.names = names;
    this.#needles = needles;
  }

  /** Those of a state. One whose data looks like sections of its own has more: then it is not found again. */
  static of(state: Uint8Array): StateSections {
    const blob = bufferOf(state);
    const names: string[] = [];
    const needles: Buffer[] = [];
    let from = START;
    let at = START;
    for (let header = headerAt(blob, at); header !== null;) {
      needles.push(blob.subarray(from, header.end));
      names.push(`${header.name} ${header.instance}`);
      const { footer } = header;
      from = blob.indexOf(footer, header.end);
      while (from >= 0 && headerAt(blob, from + FOOTER_BYTES) === null) {
        if (from === blob.length - FOOTER_BYTES - 1) break;
        from = blob.indexOf(footer, from + 1);
      }
      if (from < 0) break;
      at = from + FOOTER_BYTES;
      header = headerAt(blob, at);
    }
    needles.push(blob.subarray(Math.max(0, blob.length - FOOTER_BYTES - 1)));
    return new StateSections(
      names,
      needles.map((needle) => Buffer.from(needle)),
    );
  }

  /** A state has these sections, all of them, and no other. */
  match(state: Uint8Array): boolean {
    const blob = bufferOf(state);
    const [first, ...rest] = this.#needles;
    if (first === undefined || blob.indexOf(first, START) !== START) return false;
    let at = START + first.length;
    for (const needle of rest) {
      const found = needle === rest.at(-1) ? blob.length - needle.length : blob.indexOf(needle, at);
      if (found < at || blob.compare(needle, 0, needle.length, found, found + needle.length) !== 0)
        return false;
      at = found + needle.length;
    }
    return at === blob.length && blob[at - 1] === END;
  }
}

/** What the guest of a state does: 'running', or what it was stopped by. Null: the state does not say. */
export function runStateOf(state: Uint8Array): string | null {
  const blob = bufferOf(state);
  const at = findRunState(blob);
  if (at === null) return null;
  const word = blob.subarray(at + 4, at + 4 + RUN_STATE_BYTES);
  return word.toString('latin1', 0, Math.max(0, word.indexOf(0)));
}

/** Writes what its guest does into a state, in place. False: the state has no place for it. */
export function setRunState(state: Uint8Array, runState: string): boolean {
  const blob = bufferOf(state);
  const at = findRunState(blob);
  if (at === null || runState.length >= RUN_STATE_BYTES) return false;
  blob.writeUInt32BE(runState.length + 1, at);
  blob.fill(0, at + 4, at + 4 + RUN_STATE_BYTES);
  blob.write(runState, at + 4, 'latin1');
  return true;
}

/** Where the length of the word is. The section is among the last: what the guest could put in its place is before it. */
function findRunState(blob: Buffer): number | null {
  for (let at = blob.lastIndexOf(GLOBAL_STATE); at >= START; at = blob.lastIndexOf(GLOBAL_STATE, at - 1)) {
    const data = at + GLOBAL_STATE.length;
    const footer = data + 4 + RUN_STATE_BYTES;
    const isSection = blob[at - HEADER_BEFORE + 1] === SECTION_FULL && blob[footer] === FOOTER;
    if (isSection && blob.compare(blob, at - 4, at, footer + 1, footer + FOOTER_BYTES) === 0) return data;
    if (at === 0) break;
  }
  return null;
}

interface Header {
  readonly name: string;
  readonly instance: number;
  /** Behind it. */
  readonly end: number;
  /** Of its section. */
  readonly footer: Buffer;
}

function headerAt(blob: Buffer, at: number): Header | null {
  if (at + HEADER_BEFORE > blob.length || blob[at] !== SECTION_FULL) return null;
  const nameEnd = at + HEADER_BEFORE + blob.readUInt8(at + 5);
  const end = nameEnd + HEADER_AFTER;
  if (nameEnd === at + HEADER_BEFORE || end > blob.length) return null;
  const name = blob.toString('latin1', at + HEADER_BEFORE, nameEnd);
  if (!/^[\x20-\x7e]+$/.test(name)) return null;
  const footer = Buffer.concat([Buffer.of(FOOTER), blob.subarray(at + 1, at + 5)]);
  return { name, instance: blob.readUInt32BE(nameEnd), end, footer };
}

function bufferOf(state: Uint8Array): Buffer {
  return Buffer.from(state.buffer, state.byteOffset, state.byteLength);
}
