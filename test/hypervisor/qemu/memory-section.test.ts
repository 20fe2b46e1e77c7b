// QEMU's memory beside guest RAM, as it stands in a state: taken out, shipped and put together again; and whatever is no
// such thing is refused.

import { expect } from 'chai';
import fc from 'fast-check';
import { codeOf } from '../../../src/errors.js';
import { packFullState, splitState } from '../../../src/hypervisor/qemu/state/memory-section.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';

const HEADER = Buffer.from('QEVM\0\0\0\x03', 'latin1');
const DEVICES = Buffer.from('\x04 devices and vCPUs \0', 'latin1');
const SECTION_ID = 2;

const u32 = (value: number): Buffer => {
  const octets = Buffer.alloc(4);
  octets.writeUInt32BE(value);
  return octets;
};
const u64 = (value: number): Buffer => {
  const octets = Buffer.alloc(8);
  octets.writeBigUInt64BE(BigInt(value));
  return octets;
};
const named = (name: string): Buffer => Buffer.concat([Buffer.of(name.length), Buffer.from(name, 'latin1')]);
const footer = Buffer.concat([Buffer.of(0x7e), u32(SECTION_ID)]);
const EOS = u64(0x10);

interface Block {
  readonly name: string;
  readonly pages: number;
}

/** As migration/ram.c writes it: a list of all blocks, then pages, of which those of one block follow each other. */
function fullState(
  blocks: readonly Block[],
  sent: readonly [block: number, page: number, fill: number][],
): Buffer {
  const total = blocks.reduce((sum, { pages }) => sum + pages * PAGE_SIZE, 0);
  const parts = [
    ...[HEADER, Buffer.of(1), u32(SECTION_ID), named('ram'), u32(0), u32(4), u64(total | 0x04)],
    ...blocks.flatMap(({ name, pages }) => [named(name), u64(pages * PAGE_SIZE), u64(0xfffc_0000)]),
    ...[EOS, footer, Buffer.of(2), u32(SECTION_ID)],
  ];
  let last = -1;
  for (const [index, page, fill] of sent) {
    const flags = (fill === 0 ? 0x02 : 0x08) | (index === last ? 0x20 : 0);
    parts.push(u64(page * PAGE_SIZE + flags));
    if (index !== last) parts.push(named(blocks[index]?.name ?? ''));
    parts.push(fill === 0 ? Buffer.of(0) : Buffer.alloc(PAGE_SIZE, fill));
    last = index;
  }
  parts.push(EOS, footer, Buffer.of(3), u32(SECTION_ID), EOS, footer, DEVICES);
  return Buffer.concat(parts);
}

const BLOCKS: readonly Block[] = [
  { name: 'pc.ram', pages: 32 },
  { name: 'pc.bios', pages: 3 },
  { name: '/rom@etc/acpi/tables', pages: 2 },
];

describe('qemu: memory beside guest RAM', () => {
  it('is kept without guest RAM, and put together again', () => {
    const state = fullState(BLOCKS, [
      [1, 0, 7],
      [1, 1, 0],
      [0, 5, 9],
      [2, 1, 8],
    ]);
    const packed = packFullState(state, 'pc.ram');
    const { memory, devices } = splitState(packed);
    expect(Buffer.from(devices)).to.deep.equal(DEVICES);
    if (memory === null) throw new Error('there is no memory');
    expect(Buffer.from(memory).includes('pc.ram')).to.equal(false);
    for (const text of ['pc.bios', '/rom@etc/acpi/tables'])
      expect(Buffer.from(memory).includes(text)).to.equal(true);
    expect(Buffer.concat([HEADER, memory, devices]).equals(packed)).to.equal(true);
    // 2 pages of data, and no more than names and numbers beside them.
    expect(memory.length - 2 * PAGE_SIZE).to.be.within(1, 300);
    // What was packed is a full state like any other.
    expect(Buffer.from(packFullState(packed, 'pc.ram')).equals(packed)).to.equal(true);
  });

  it('may begin a section with a page of the block of the section before', () => {
    const state = fullState(BLOCKS, [[1, 0, 7]]);
    const end = state.lastIndexOf(Buffer.concat([Buffer.of(3), u32(SECTION_ID)])) + 5;
    const page = Buffer.concat([u64(2 * PAGE_SIZE + 0x28), Buffer.alloc(PAGE_SIZE, 5)]);
    const split = Buffer.concat([state.subarray(0, end), page, state.subarray(end)]);
    const whole = fullState(BLOCKS, [
      [1, 0, 7],
      [1, 2, 5],
    ]);
    expect(Buffer.from(packFullState(split, 'pc.ram')).equals(packFullState(whole, 'pc.ram'))).to.equal(true);
  });

  it('is found behind a configuration section', () => {
    const state = fullState(BLOCKS, [[1, 0, 7]]);
    const configured = Buffer.concat([
      HEADER,
      Buffer.from('\x07\0\0\0\x03q35', 'latin1'),
      state.subarray(HEADER.length),
    ]);
    expect(Buffer.from(packFullState(configured, 'pc.ram')).equals(packFullState(state, 'pc.ram'))).to.equal(
      true,
    );
  });

  it('is not in a device state: that is all devices', () => {
    const state = Buffer.concat([HEADER, DEVICES]);
    expect(splitState(state)).to.deep.equal({ memory: null, devices: Buffer.from(DEVICES) });
    expect(() => packFullState(state, 'pc.ram')).to.throw('no section of memory');
  });

  it('is at the beginning or nowhere: a guest may write what looks like it into its devices', () => {
    const imitated = fullState(BLOCKS, [[1, 0, 7]]).subarray(HEADER.length);
    const devices = Buffer.concat([DEVICES, imitated]);
    expect(splitState(Buffer.concat([HEADER, devices]))).to.deep.equal({ memory: null, devices });
    const packed = packFullState(fullState(BLOCKS, [[1, 0, 7]]), 'pc.ram');
    const parts = splitState(Buffer.concat([packed, imitated]));
    expect(parts.memory).to.deep.equal(splitState(packed).memory);
    expect(Buffer.from(parts.devices).equals(devices)).to.equal(true);
  });

  it('cut or changed anywhere: refused, or read; never anything else', () => {
    const state = fullState(BLOCKS, [
      [1, 0, 7],
      [2, 0, 0],
      [0, 1, 1],
    ]);
    const tame = (given: Uint8Array): void => {
      for (const work of [() => packFullState(given, 'pc.ram'), () => splitState(given)]) {
        try {
          work();
        } catch (error) {
          expect(codeOf(error)).to.equal('BAD_CONTEXT');
        }
      }
    };
    for (let length = 0; length < 400; length++) tame(state.subarray(0, length));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(state.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }),
        fc.nat(state.length),
        (changes, length) => {
          const spoilt = Buffer.from(state);
          for (const [at, octet] of changes) spoilt[at % 500] = octet;
          tame(spoilt);
          tame(spoilt.subarray(0, length));
        },
      ),
      { numRuns: 2000 },
    );
  });
});
