// The bodies of libxl's records: values come back, and what cannot be one is refused.

import { expect } from 'chai';
import fc from 'fast-check';
import {
  CheckpointState,
  EmulatorId,
  LibxlRecordType,
  checkLibxlRecord,
  decodeEmulatorContext,
  encodeEmulatorContext,
} from '../../src/stream/libxl.js';
import { concatenate } from '../../src/stream/writer.js';
import { counting, expectStreamError, recordOf } from './streams.js';
import {
  decodeCheckpointState,
  decodeEmulatorXenstoreData,
  encodeCheckpointState,
  encodeEmulatorXenstoreData,
} from './codecs.js';

const { EMULATOR_XENSTORE_DATA, EMULATOR_CONTEXT, CHECKPOINT_STATE } = LibxlRecordType;
const emulatorHeader = fc.record({
  emulatorId: fc.constantFrom(...Object.values(EmulatorId)),
  index: fc.integer({ min: 0, max: 0xffffffff }),
});

describe('libxl records', () => {
  it('emulator contexts and xenstore data come back', () => {
    const text = fc
      .uint8Array({ maxLength: 12 })
      .map((octets) => Buffer.from(octets.filter((octet) => octet !== 0)).toString('latin1'));
    fc.assert(
      fc.property(
        emulatorHeader,
        fc.array(fc.tuple(text, text)),
        fc.uint8Array(),
        (header, entries, context) => {
          const data = recordOf(EMULATOR_XENSTORE_DATA, encodeEmulatorXenstoreData({ ...header, entries }));
          checkLibxlRecord(data);
          expect(decodeEmulatorXenstoreData(data)).to.deep.equal({ ...header, entries });
          const blob = recordOf(EMULATOR_CONTEXT, encodeEmulatorContext({ ...header, context }));
          checkLibxlRecord(blob);
          expect(decodeEmulatorContext(blob)).to.deep.equal({ ...header, context });
        },
      ),
    );
  });

  it('CHECKPOINT_STATE comes back; a state that is none is refused', () => {
    for (const state of Object.values(CheckpointState)) {
      const body = encodeCheckpointState(state);
      expect(decodeCheckpointState(recordOf(CHECKPOINT_STATE, body))).to.equal(state);
      // With its own padding counted, as the specification draws it.
      checkLibxlRecord(recordOf(CHECKPOINT_STATE, concatenate([body, new Uint8Array(4)])));
    }
    for (const body of [Uint8Array.of(4, 0, 0, 0), Uint8Array.of(0, 0, 0, 1), Uint8Array.of(0, 0, 0)]) {
      expectStreamError('BAD_RECORD', () => checkLibxlRecord(recordOf(CHECKPOINT_STATE, body)));
    }
  });

  it('xenstore data that is not pairs, with their NULs, is refused', () => {
    const check = (text: string) =>
      checkLibxlRecord(recordOf(EMULATOR_XENSTORE_DATA, Buffer.from(`\x02\0\0\0\0\0\0\0${text}`, 'latin1')));
    check('');
    check('key\0value\0');
    check('\0\0');
    for (const text of ['key', 'key\0', 'key\0value', 'key\0value\0more\0', '\0']) {
      expectStreamError('BAD_RECORD', () => check(text));
    }
  });

  it('emulator records without a header or of another emulator are refused', () => {
    for (const type of [EMULATOR_CONTEXT, EMULATOR_XENSTORE_DATA]) {
      expectStreamError('BAD_RECORD', () => checkLibxlRecord(recordOf(type, counting(7))));
      const { facts } = expectStreamError('BAD_RECORD', () =>
        checkLibxlRecord(recordOf(type, Uint8Array.of(3, 0, 0, 0, 0, 0, 0, 0))),
      );
      expect(facts).to.deep.equal({ offset: 0, type, length: 8 });
    }
  });

  it('the empty ones are empty, types that are not named are left alone', () => {
    for (const type of [LibxlRecordType.END, LibxlRecordType.LIBXC_CONTEXT, LibxlRecordType.CHECKPOINT_END]) {
      checkLibxlRecord(recordOf(type));
      expectStreamError('BAD_RECORD', () => checkLibxlRecord(recordOf(type, counting(1))));
    }
    checkLibxlRecord(recordOf(6, counting(3)));
    checkLibxlRecord(recordOf(0x80000001, counting(3)));
  });
});
