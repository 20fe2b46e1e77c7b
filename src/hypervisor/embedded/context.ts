// The HVM_CONTEXT of an embedded machine: what v86 saves of vCPU and devices (RAM and disk left out), the guest's clock,
// and the serial input that the guest has not read yet, which v86 forgets. Mostly zeroes (video memory), so only the
// blocks that are not zero are kept.
//
//    0  magic "ROMULV86"
//    8  u32  version of this format
//   12  u32  CRC-32 of everything from octet 16 on
//   16  f64  guest clock, milliseconds
//   24  u32  pages of RAM
//   28  u32  fingerprint of the machine's hardware (CRC-32: see machine.ts)
//   32  u32  octets of v86's state
//   36  u32  octets of serial input
//   40  u32  blocks that follow
//   44  u32  zero
//   48  32 octets: v86's version, ASCII, padded with zeroes
//   80  serial input, padded to 8
//       u32 index of each block, padded to 8
//       the blocks, 4096 octets each (the state is padded to whole blocks)

import { crc32 } from 'node:zlib';
import { valueAt } from '../../stream/bounds.js';
import { HypervisorError } from '../port.js';

const MAGIC = Buffer.from('ROMULV86', 'ascii');
const FORMAT = 1;
const HEADER_BYTES = 80;
const VERSION_BYTES = 32;
const BLOCK_BYTES = 4096;
/** No v86 state that we accept is larger: the floppy, which is part of it, is limited in the configuration. */
const STATE_BYTES_MAX = 96 * 1024 * 1024;

const zeroBlock = Buffer.alloc(BLOCK_BYTES);

export interface MachineContext {
  readonly clock: number;
  readonly serialInput: Uint8Array;
  /** As v86 saves and restores it. */
  readonly state: ArrayBuffer;
}

/** What a context must agree with. */
export interface MachineIdentity {
  readonly v86Version: string;
  readonly pages: number;
  readonly fingerprint: number;
}

function align8(length: number): number {
  return Math.ceil(length / 8) * 8;
}

/** The blob; it shares no memory with the context. */
export function encodeContext(identity: MachineIdentity, context: MachineContext): Uint8Array<ArrayBuffer> {
  const state = Buffer.from(context.state);
  const blockCount = Math.ceil(state.length / BLOCK_BYTES);
  const indices = new Uint32Array(blockCount);
  let kept = 0;
  for (let block = 0; block < blockCount; block++) {
    const start = block * BLOCK_BYTES;
    const end = Math.min(start + BLOCK_BYTES, state.length);
    if (zeroBlock.compare(state, start, end, 0, end - start) !== 0) indices[kept++] = block;
  }
  const inputAt = HEADER_BYTES;
  const indicesAt = inputAt + align8(context.serialInput.length);
  const blocksAt = indicesAt + align8(kept * 4);
  const blob = new Uint8Array(blocksAt + kept * BLOCK_BYTES);
  const view = new DataView(blob.buffer);
  blob.set(MAGIC);
  view.setUint32(8, FORMAT, true);
  view.setFloat64(16, context.clock, true);
  view.setUint32(24, identity.pages, true);
  view.setUint32(28, identity.fingerprint, true);
  view.setUint32(32, state.length, true);
  view.setUint32(36, context.serialInput.length, true);
  view.setUint32(40, kept, true);
  blob.set(Buffer.from(identity.v86Version.slice(0, VERSION_BYTES), 'ascii'), 48);
  blob.set(context.serialInput, inputAt);
  for (let k = 0; k < kept; k++) {
    const block = valueAt(indices, k);
    view.setUint32(indicesAt + k * 4, block, true);
    blob.set(state.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES), blocksAt + k * BLOCK_BYTES);
  }
  view.setUint32(12, crc32(blob.subarray(16)), true);
  return blob;
}

/** @throws HypervisorError BAD_CONTEXT if the blob is damaged, or is of another machine than `identity` */
export function decodeContext(identity: MachineIdentity, blob: Uint8Array): MachineContext {
  const refuse = (message: string, facts: Record<string, string | number>): HypervisorError =>
    new HypervisorError('BAD_CONTEXT', message, { length: blob.length, ...facts });
  if (blob.length < HEADER_BYTES) throw refuse('the context is shorter than its header', {});
  if (MAGIC.compare(blob, 0, MAGIC.length) !== 0) {
    throw refuse('the context is not one of an embedded machine', {
      magic: Buffer.from(blob.subarray(0, 8)).toString('hex'),
    });
  }
  const view = new DataView(blob.buffer, blob.byteOffset, blob.length);
  const agree = (key: string, found: string | number, expected: string | number, message: string): void => {
    if (found !== expected) throw refuse(message, { [key]: found, expected });
  };
  agree('format', view.getUint32(8, true), FORMAT, 'the context has an unknown format');
  const checksum = view.getUint32(12, true);
  const actual = crc32(blob.subarray(16));
  if (checksum !== actual) throw refuse('the context is damaged', { checksum, actual });
  const padded = Buffer.from(blob.subarray(48, 48 + VERSION_BYTES)).toString('latin1');
  const [version = ''] = padded.split('\0');
  agree('version', version, identity.v86Version, 'the context was saved by another version of v86');
  const pages = view.getUint32(24, true);
  agree('pages', pages, identity.pages, 'the context is of a machine with another memory size');
  const other = 'the context is of a machine with other hardware (ACPI, firmware or disk sizes)';
  agree('fingerprint', view.getUint32(28, true), identity.fingerprint, other);
  const clock = view.getFloat64(16, true);
  const stateBytes = view.getUint32(32, true);
  const inputBytes = view.getUint32(36, true);
  const kept = view.getUint32(40, true);
  const indicesAt = HEADER_BYTES + align8(inputBytes);
  const blocksAt = indicesAt + align8(kept * 4);
  if (
    !Number.isFinite(clock) ||
    stateBytes > STATE_BYTES_MAX ||
    blob.length !== blocksAt + kept * BLOCK_BYTES
  ) {
    throw refuse('the context contradicts itself', { clock, stateBytes, inputBytes, blocks: kept });
  }
  const blockCount = Math.ceil(stateBytes / BLOCK_BYTES);
  const state = new Uint8Array(blockCount * BLOCK_BYTES);
  for (let k = 0; k < kept; k++) {
    const block = view.getUint32(indicesAt + k * 4, true);
    if (block >= blockCount)
      throw refuse('the context has a block outside its state', { block, blocks: blockCount });
    state.set(
      blob.subarray(blocksAt + k * BLOCK_BYTES, blocksAt + (k + 1) * BLOCK_BYTES),
      block * BLOCK_BYTES,
    );
  }
  return {
    clock,
    serialInput: blob.slice(HEADER_BYTES, HEADER_BYTES + inputBytes),
    state: state.buffer.slice(0, stateBytes),
  };
}

/** Pages of RAM of the machine that the context is of. @throws HypervisorError BAD_CONTEXT if it is none of ours */
export function contextPages(blob: Uint8Array): number {
  if (blob.length < HEADER_BYTES || MAGIC.compare(blob, 0, MAGIC.length) !== 0) {
    throw new HypervisorError('BAD_CONTEXT', 'the context is not one of an embedded machine', {
      length: blob.length,
    });
  }
  return new DataView(blob.buffer, blob.byteOffset, blob.length).getUint32(24, true);
}
