// A context comes back as it was, or is refused: damaged, cut, of another machine, or nothing of ours at all.

import { crc32 } from 'node:zlib';
import { expect } from 'chai';
import fc from 'fast-check';
import {
  decodeContext,
  encodeContext,
  type MachineContext,
  type MachineIdentity,
} from '../../../src/hypervisor/embedded/context.js';
import { openEmbeddedSource, openEmbeddedTarget } from '../../../src/hypervisor/embedded/index.js';
import { HypervisorError } from '../../../src/hypervisor/port.js';
import { MIB, expectCode } from '../support.js';
import { builtin } from './support.js';

const identity: MachineIdentity = { v86Version: '0.5.0', pages: 1024, fingerprint: 0xcafe };

function stateOf(length: number, writes: readonly (readonly [number, number])[]): ArrayBuffer {
  const state = new Uint8Array(length);
  for (const [at, octet] of writes) if (at < length) state[at] = octet;
  return state.buffer;
}

const contexts: fc.Arbitrary<MachineContext> = fc
  .record({
    clock: fc.double({ noNaN: true, noDefaultInfinity: true }),
    serialInput: fc.uint8Array({ maxLength: 20 }),
    length: fc.nat(40_000),
    writes: fc.array(fc.tuple(fc.nat(40_000), fc.nat(255)), { maxLength: 6 }),
  })
  .map(({ clock, serialInput, length, writes }) => ({ clock, serialInput, state: stateOf(length, writes) }));

function codeOfDecoding(blob: Uint8Array, as: MachineIdentity = identity): string {
  try {
    decodeContext(as, blob);
    return 'accepted';
  } catch (error) {
    if (error instanceof HypervisorError) return error.code;
    throw error;
  }
}

describe('embedded: the context', () => {
  it('comes back as it was', () => {
    fc.assert(
      fc.property(contexts, (context) => {
        const decoded = decodeContext(identity, encodeContext(identity, context));
        expect(Object.is(decoded.clock, context.clock)).to.equal(true);
        expect(Buffer.from(decoded.serialInput).equals(context.serialInput)).to.equal(true);
        expect(Buffer.from(decoded.state).equals(Buffer.from(context.state))).to.equal(true);
      }),
    );
  });

  it('does not carry zeroes', () => {
    const blob = encodeContext(identity, {
      clock: 1,
      serialInput: new Uint8Array(0),
      state: stateOf(2 ** 20, [[500_000, 1]]),
    });
    expect(blob.length).to.be.below(5000);
  });

  it('is refused when cut anywhere, or changed in any octet', () => {
    const blob = encodeContext(identity, {
      clock: 1.5,
      serialInput: Uint8Array.of(1, 2, 3),
      state: stateOf(10_000, [
        [3, 1],
        [9_999, 2],
      ]),
    });
    expect(codeOfDecoding(blob)).to.equal('accepted');
    for (let length = 0; length < blob.length; length += length < 200 ? 1 : 97) {
      expect(codeOfDecoding(blob.subarray(0, length)), `cut at ${length}`).to.equal('BAD_CONTEXT');
    }
    for (let at = 0; at < blob.length; at += at < 200 ? 1 : 97) {
      const changed = blob.slice();
      changed[at] = (changed[at] ?? 0) ^ 0x10;
      expect(codeOfDecoding(changed), `changed at ${at}`).to.equal('BAD_CONTEXT');
    }
  });

  it('is refused when it contradicts itself, its checksum right', () => {
    const whole = encodeContext(identity, {
      clock: 1.5,
      serialInput: Uint8Array.of(1, 2, 3),
      state: stateOf(10_000, [[3, 1]]),
    });
    fc.assert(
      fc.property(
        fc.constantFrom(16, 20, 24, 28, 32, 36, 40, 48, 88),
        fc.oneof(fc.nat(), fc.constantFrom(0xffffffff, 0x7fffffff, 0x80000000)),
        (at, value) => {
          const changed = whole.slice();
          const view = new DataView(changed.buffer);
          view.setUint32(at, value, true);
          view.setUint32(12, crc32(changed.subarray(16)), true);
          // A clock or a length of state may well be another: then it is what it says.
          expect(codeOfDecoding(changed)).to.be.oneOf(['accepted', 'BAD_CONTEXT']);
        },
      ),
    );
    expect(codeOfDecoding(Buffer.alloc(1000, 0xff))).to.equal('BAD_CONTEXT');
  });

  it('is refused by another machine, and by another v86, with what differs', () => {
    const blob = encodeContext(identity, {
      clock: 0,
      serialInput: new Uint8Array(0),
      state: new ArrayBuffer(16),
    });
    for (const other of [
      { ...identity, v86Version: '0.6.0' },
      { ...identity, pages: 2048 },
      { ...identity, fingerprint: 1 },
    ]) {
      expect(codeOfDecoding(blob, other)).to.equal('BAD_CONTEXT');
    }
  });

  it('of a machine is refused by one with more memory, or when v86 does not like it', async () => {
    const source = await openEmbeddedSource(builtin({ workingSetPages: 16, dirtyPages: 1 }, 4 * MIB));
    const larger = await openEmbeddedTarget(builtin({ workingSetPages: 16, dirtyPages: 1 }, 8 * MIB));
    const same = await openEmbeddedTarget(builtin({ workingSetPages: 16, dirtyPages: 1 }, 4 * MIB));
    try {
      await source.start();
      await source.suspend();
      const context = await source.hvmContext();
      const error = await expectCode(larger.setHvmContext(context), 'BAD_CONTEXT');
      expect(error.facts).to.include({ pages: 1024, expected: 2048 });
      await expectCode(same.setHvmContext(context.subarray(0, 5000)), 'BAD_CONTEXT');
      // v86's own state, broken, in a context that is well-formed: the checksum is made right again.
      const broken = context.slice();
      const json = Buffer.from(broken.buffer, broken.byteOffset, broken.length).indexOf('{"buffer_infos"');
      broken[json + 3] = 0;
      new DataView(broken.buffer, broken.byteOffset).setUint32(12, crc32(broken.subarray(16)), true);
      await expectCode(same.setHvmContext(broken), 'BAD_CONTEXT');
      await expectCode(same.start(), 'WRONG_STATE');
      // It can still be given the right one.
      await same.setHvmContext(context);
    } finally {
      await Promise.all([source.destroy(), larger.destroy(), same.destroy()]);
    }
  });
});
