// What QEMU has in memory beside guest RAM (firmware, option ROMs, ACPI tables) and a device state without RAM does not
// bring. It is not constant: the packages of two hosts differ, and firmware has the ACPI tables made anew while it runs.
// A "full" state is what `migrate` writes where shared memory is left out; we keep of it what a standby needs:
//
//   QEVM  3  [ configuration ]  ram: START … PART … END   devices, vCPUs …  EOF  [ description ]     as QEMU writes it
//   QEVM  3  ram: START, END (without guest RAM)          devices, vCPUs …  EOF                      as we ship it
//   QEVM  3                                               devices, vCPUs …  EOF                      any other checkpoint
//
// Source: QEMU 7.2, migration/savevm.c and ram.c. All numbers are big-endian.
//
//   section  u8 type  u32 id  [START: u8 length, name  u32 instance  u32 version]  contents  u8 0x7e  u32 id
//   list     u64 total | MEM_SIZE   { u8 length, name  u64 used  u64 address }…   u64 EOS
//   pages    { u64 offset | flags  [not CONTINUE: u8 length, block]  4096 octets, or of ZERO one }…   u64 EOS

import { PAGE_SIZE } from '../../../stream/format.js';
import { HypervisorError } from '../../port.js';
import { DEVICE_STATE_HEADER, DEVICE_STATE_HEADER_BYTES, checkDeviceState } from './device-state.js';

const Section = { START: 1, PART: 2, END: 3, FOOTER: 0x7e } as const;
const Flag = { ZERO: 0x02, MEM_SIZE: 0x04, PAGE: 0x08, EOS: 0x10, CONTINUE: 0x20 } as const;
const FLAGS = BigInt(PAGE_SIZE - 1);
/** The head of the section of RAM, behind its id: its name, instance 0, version. */
const RAM_HEAD = Buffer.from('\x03ram\0\0\0\0\0\0\0\x04', 'latin1');
const HEAD_BYTES = 5;
/** A configuration section stands before it in a QEMU that writes one; nothing else does. */
const RAM_AT_MAX = 4096;
const BLOCKS_MAX = 4096;

interface Block {
  readonly name: Buffer;
  readonly usedBytes: bigint;
  readonly address: bigint;
}

/** A page of a block: where its octets are in the state; of a page of zeroes null. */
interface Page {
  readonly block: Block;
  readonly offset: bigint;
  readonly at: number | null;
}

interface Memory {
  readonly sectionId: number;
  readonly blocks: readonly Block[];
  readonly pages: readonly Page[];
  /** Where the devices begin. */
  readonly end: number;
}

/** A device state, taken apart. Both are views of it. */
export interface StateParts {
  /** The section of memory; null: the state has none. */
  readonly memory: Uint8Array | null;
  /** All that follows it. */
  readonly devices: Uint8Array;
}

/**
 * Of a full state as QEMU wrote it: as we ship it, without the block of guest RAM.
 * @throws HypervisorError BAD_CONTEXT
 */
export function packFullState(state: Uint8Array, ram: string): Uint8Array {
  checkDeviceState(state);
  const at = findMemory(state);
  if (at === null) throw bad('QEMU’s state has no section of memory', { length: state.length });
  const { sectionId, blocks, pages, end } = readMemory(state, at);
  const others = blocks.filter(({ name }) => name.toString('latin1') !== ram);
  const parts: Uint8Array[] = [
    state.subarray(0, DEVICE_STATE_HEADER_BYTES),
    sectionHead(Section.START, sectionId),
    RAM_HEAD,
    u64(others.reduce((sum, { usedBytes }) => sum + usedBytes, 0n) | BigInt(Flag.MEM_SIZE)),
    ...others.flatMap(({ name, usedBytes, address }) => [
      Buffer.of(name.length),
      name,
      u64(usedBytes),
      u64(address),
    ]),
    u64(BigInt(Flag.EOS)),
    sectionHead(Section.FOOTER, sectionId),
    sectionHead(Section.END, sectionId),
  ];
  for (const { block, offset, at: data } of pages) {
    if (block.name.toString('latin1') === ram) continue;
    const flag = BigInt(data === null ? Flag.ZERO : Flag.PAGE);
    parts.push(u64(offset | flag), Buffer.of(block.name.length), block.name);
    parts.push(data === null ? Buffer.of(0) : state.subarray(data, data + PAGE_SIZE));
  }
  parts.push(u64(BigInt(Flag.EOS)), sectionHead(Section.FOOTER, sectionId), state.subarray(end));
  return Buffer.concat(parts);
}

/** Takes a state as we ship it apart. @throws HypervisorError BAD_CONTEXT */
export function splitState(state: Uint8Array): StateParts {
  checkDeviceState(state);
  // Here or nowhere: elsewhere it may be what a guest has put into its registers.
  const at = DEVICE_STATE_HEADER_BYTES;
  if (!isMemory(state, at)) return { memory: null, devices: state.subarray(at) };
  const { end } = readMemory(state, at);
  return { memory: state.subarray(at, end), devices: state.subarray(end) };
}

/** One that QEMU loads. */
export function joinState({ memory, devices }: StateParts): Uint8Array {
  return Buffer.concat([DEVICE_STATE_HEADER, ...(memory === null ? [] : [memory]), devices]);
}

function isMemory(state: Uint8Array, at: number): boolean {
  const head = Buffer.from(state.buffer, state.byteOffset, state.length).subarray(at + HEAD_BYTES);
  return state[at] === Section.START && head.subarray(0, RAM_HEAD.length).equals(RAM_HEAD);
}

/** Where the section of memory begins in what QEMU wrote, if there is one: it is the first. */
function findMemory(state: Uint8Array): number | null {
  const head = Buffer.from(state.buffer, state.byteOffset, Math.min(state.length, RAM_AT_MAX));
  const at = head.indexOf(RAM_HEAD) - HEAD_BYTES;
  return at >= DEVICE_STATE_HEADER_BYTES && head[at] === Section.START ? at : null;
}

function readMemory(state: Uint8Array, at: number): Memory {
  const reader = new Reader(state, at);
  reader.u8();
  const sectionId = reader.u32();
  reader.skip(RAM_HEAD.length);
  const blocks = readBlocks(reader);
  reader.footer(sectionId);
  const byName = new Map(blocks.map((block) => [block.name.toString('latin1'), block]));
  const pages: Page[] = [];
  // A page may be of the block of the page before, in the section before.
  let block: Block | undefined;
  for (let type: number | null = null; type !== Section.END;) {
    type = reader.u8();
    if ((type !== Section.PART && type !== Section.END) || reader.u32() !== sectionId) {
      throw reader.bad('another section stands inside that of memory');
    }
    block = readPages(reader, byName, pages, block);
    reader.footer(sectionId);
  }
  return { sectionId, blocks, pages, end: reader.at };
}

function readBlocks(reader: Reader): Block[] {
  const total = reader.u64();
  if ((total & FLAGS) !== BigInt(Flag.MEM_SIZE)) throw reader.bad('the list of blocks does not begin');
  const blocks: Block[] = [];
  for (let left = total & ~FLAGS; left > 0n;) {
    const block = { name: reader.name(), usedBytes: reader.u64(), address: reader.u64() };
    if (block.usedBytes <= 0n || block.usedBytes > left || blocks.length === BLOCKS_MAX) {
      throw reader.bad('a block has no possible size');
    }
    left -= block.usedBytes;
    blocks.push(block);
  }
  if (reader.u64() !== BigInt(Flag.EOS)) throw reader.bad('the list of blocks does not end');
  return blocks;
}

/** Returns the block of the last page, if there was one yet. */
function readPages(
  reader: Reader,
  byName: ReadonlyMap<string, Block>,
  pages: Page[],
  last: Block | undefined,
): Block | undefined {
  let block = last;
  for (;;) {
    const word = reader.u64();
    const flags = Number(word & FLAGS);
    if (flags === Flag.EOS) return block;
    const kind = flags & ~Flag.CONTINUE;
    if (kind !== Flag.ZERO && kind !== Flag.PAGE) throw reader.bad('a page has an unknown form', { flags });
    if ((flags & Flag.CONTINUE) === 0) block = byName.get(reader.name().toString('latin1'));
    if (block === undefined) throw reader.bad('a page is of no block');
    const offset = word & ~FLAGS;
    if (offset >= block.usedBytes) throw reader.bad('a page lies outside its block');
    pages.push({ block, offset, at: kind === Flag.PAGE ? reader.at : null });
    reader.skip(kind === Flag.PAGE ? PAGE_SIZE : 1);
  }
}

class Reader {
  at: number;
  readonly #state: Uint8Array;
  readonly #view: DataView;

  constructor(state: Uint8Array, at: number) {
    this.at = at;
    this.#state = state;
    this.#view = new DataView(state.buffer, state.byteOffset, state.length);
  }

  u8(): number {
    return this.#view.getUint8(this.skip(1));
  }

  u32(): number {
    return this.#view.getUint32(this.skip(4));
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.skip(8));
  }

  name(): Buffer {
    const length = this.u8();
    const at = this.skip(length);
    return Buffer.from(this.#state.subarray(at, at + length));
  }

  footer(sectionId: number): void {
    if (this.u8() !== Section.FOOTER || this.u32() !== sectionId) throw this.bad('a section has no end');
  }

  /** Returns where it was. */
  skip(octets: number): number {
    const { at } = this;
    if (at + octets > this.#state.length) throw this.bad('it ends too early');
    this.at = at + octets;
    return at;
  }

  bad(what: string, facts: Record<string, number> = {}): HypervisorError {
    return bad(`QEMU’s memory cannot be read: ${what}`, { offset: this.at, ...facts });
  }
}

function bad(message: string, facts: Record<string, number>): HypervisorError {
  return new HypervisorError('BAD_CONTEXT', message, facts);
}

function sectionHead(type: number, sectionId: number): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head[0] = type;
  head.writeUInt32BE(sectionId, 1);
  return head;
}

function u64(value: bigint): Buffer {
  const octets = Buffer.alloc(8);
  octets.writeBigUInt64BE(value);
  return octets;
}
