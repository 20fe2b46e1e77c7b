// The layers around libxc's stream: whole files that xl wrote decode to their record lists and encode to the same
// bytes, however they are cut, and whatever is wrong in them is said.

import { expect } from 'chai';
import fc from 'fast-check';
import { StreamError } from '../../src/stream/error.js';
import { RecordType, paddedLength } from '../../src/stream/format.js';
import {
  CheckpointState,
  EmulatorId,
  LibxlRecordType,
  checkLibxlRecord,
  encodeEmulatorContext,
  encodeLibxlHeader,
} from '../../src/stream/libxl.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { RecordReader, layerOf } from '../../src/stream/record-reader.js';
import { concatenate, encodeHeaders, encodeRecord } from '../../src/stream/writer.js';
import { decodeXlHeader, encodeXlHeader, xlConfigText, xlHeaderOf } from '../../src/stream/xl.js';
import { readFixture, readRecordList } from '../fixtures/xen.js';
import { type LayeredItem, itemLength, itemOf, itemParts, itemsOf } from './layered.js';
import {
  counting,
  expectSameBytes,
  expectStreamError,
  pageDataBody,
  seeded,
  shrunk,
  takeAll,
} from './streams.js';
import { encodeCheckpointState, encodeEmulatorXenstoreData } from './codecs.js';

const { END, LIBXC_CONTEXT, EMULATOR_XENSTORE_DATA, EMULATOR_CONTEXT, CHECKPOINT_END, CHECKPOINT_STATE } =
  LibxlRecordType;

function readItems(bytes: Uint8Array): LayeredItem[] {
  const reader = new RecordReader();
  const items = itemsOf(bytes, reader);
  reader.end();
  return items;
}

/** What a record list says of an item: layer, and name of the record type. */
function nameOf(item: LayeredItem): string {
  if (item.kind !== 'record') {
    return `${item.layer} header`;
  }
  const types = Object.entries(item.layer === 'libxl' ? LibxlRecordType : RecordType);
  return `${item.layer} ${types.find(([, type]) => type === item.record.type)?.[0] ?? '?'}`;
}

/** The lists name libxc's two headers apart, an item has both. */
function expectedList(name: string) {
  const expected: { offset: number; length: number; name: string }[] = [];
  for (const { offset, length, layer, name: recordName, detail } of readRecordList(name).records) {
    const last = expected.at(-1);
    if (layer === 'libxc' && recordName === 'domain' && last !== undefined) {
      last.length += length;
    } else if (layer !== 'tail') {
      const isHeader = recordName.startsWith('header') || detail.startsWith('header');
      expected.push({ offset, length, name: `${layer} ${isHeader ? 'header' : recordName}` });
    }
  }
  return expected;
}

const libxcHeaders = encodeHeaders({ domainType: 2, xenMajor: 4, xenMinor: 17 });
const checkpoint = encodeRecord(RecordType.CHECKPOINT);
const libxcEnd = encodeRecord(RecordType.END);
const pages = encodeRecord(RecordType.PAGE_DATA, pageDataBody([[1, 0]]));

/** A libxl stream up to and with libxc's headers. */
const opening = concatenate([encodeLibxlHeader(), encodeRecord(LIBXC_CONTEXT), libxcHeaders]);

describe('layers', () => {
  describe('files that xl wrote', () => {
    const tails: Readonly<Record<string, number>> = { 'pv-live': 44 };
    for (const name of ['pv-save', 'hvm-save', 'pv-live', 'pv-remus-6ckpt', 'hvm-remus-6ckpt']) {
      it(`${name}: the record list, and the same bytes again`, () => {
        const bytes = readFixture(name);
        const reader = new RecordReader();
        const items = itemsOf(bytes, reader);
        expect(layerOf(bytes)).to.equal('xl');
        const list = items.map((item) => ({
          offset: item.offset,
          length: itemLength(item),
          name: nameOf(item),
        }));
        expect(list).to.deep.equal(expectedList(name));

        expect(reader.pendingBytes).to.equal(tails[name] ?? 0);
        expect(reader.finished).to.equal(!name.includes('remus'));
        if (reader.pendingBytes > 0) {
          expectStreamError('TRAILING_DATA', () => reader.end());
        } else {
          reader.end();
        }
        const remaining = bytes.subarray(reader.offset);
        expectSameBytes(concatenate([...items.flatMap(itemParts), remaining]), bytes);

        const libxc = items.filter((item) => item.layer === 'libxc');
        expectSameBytes(concatenate(libxc.flatMap(itemParts)), readFixture(`${name}.libxc`));
        for (const item of items) {
          if (item.layer === 'xl') {
            expect(JSON.parse(xlConfigText(item.header))).to.have.property('b_info');
            expectSameBytes(
              encodeXlHeader(xlHeaderOf(xlConfigText(item.header))),
              bytes.subarray(0, itemLength(item)),
            );
          } else if (item.layer === 'libxl' && item.kind === 'record') {
            checkLibxlRecord(item.record);
          }
        }
      });
    }

    it('a bare libxc stream is one layer', () => {
      const bytes = readFixture('pv-remus-6ckpt.libxc');
      const reader = new RecordReader();
      const items = itemsOf(bytes, reader);
      expect(layerOf(bytes)).to.equal('libxc');
      expect(new Set(items.map((item) => item.layer))).to.deep.equal(new Set(['libxc']));
      reader.end();
      expectSameBytes(concatenate(items.flatMap(itemParts)), bytes);
    });
  });

  describe('cuts', () => {
    /** A checkpointed file with everything in it, small. */
    function small(): Uint8Array {
      const [first = new Uint8Array(0)] = itemParts(
        readItems(readFixture('pv-remus-6ckpt'))[0] as LayeredItem,
      );
      const libxc = shrunk(readFixture('pv-save.libxc'), 1);
      const emulator = { emulatorId: EmulatorId.QEMU_UPSTREAM, index: 0 };
      return concatenate([
        first,
        encodeLibxlHeader(),
        encodeRecord(LIBXC_CONTEXT),
        libxc.subarray(0, libxc.length - 8),
        checkpoint,
        encodeRecord(
          EMULATOR_XENSTORE_DATA,
          encodeEmulatorXenstoreData({ ...emulator, entries: [['k', 'v']] }),
        ),
        encodeRecord(EMULATOR_CONTEXT, encodeEmulatorContext({ ...emulator, context: counting(13) })),
        encodeRecord(CHECKPOINT_END),
        encodeRecord(CHECKPOINT_STATE, encodeCheckpointState(CheckpointState.NEW)),
        pages,
        checkpoint,
        encodeRecord(CHECKPOINT_END),
        pages,
        libxcEnd,
        encodeRecord(END),
      ]);
    }

    it('any cut gives the same records', () => {
      const bytes = small();
      const headers = readItems(bytes).findIndex((item) => item.kind === 'headers');
      const expected = readItems(bytes)
        .slice(headers + 1)
        .map((item) => [item.offset, nameOf(item), itemLength(item)]);
      fc.assert(
        fc.property(
          fc.array(fc.nat({ max: bytes.length }), { maxLength: 40 }),
          fc.boolean(),
          (cuts, eager) => {
            const edges = [0, ...cuts.sort((one, other) => one - other), bytes.length];
            const reader = new RecordReader();
            const records: StreamRecord[] = [];
            edges.slice(1).forEach((edge, index) => {
              reader.push(bytes.subarray(edges[index], edge));
              if (eager) {
                records.push(...takeAll(reader));
              }
            });
            records.push(...takeAll(reader));
            reader.end();
            const items = records.map(itemOf);
            expect(items.map((item) => [item.offset, nameOf(item), itemLength(item)])).to.deep.equal(
              expected,
            );
            expectSameBytes(concatenate(items.flatMap(itemParts)), bytes.subarray(items[0]?.offset));
          },
        ),
        { numRuns: 60 },
      );
    });

    it('cut anywhere, the stream ends at a boundary or is TRUNCATED', () => {
      const bytes = small();
      const items = readItems(bytes);
      const headers = items.find((item) => item.kind === 'headers')?.offset ?? 0;
      const boundaries = new Set([...items.map((item) => item.offset), bytes.length]);
      for (let length = 0; length <= bytes.length; length += 1) {
        const reader = new RecordReader();
        reader.push(bytes.subarray(0, length));
        takeAll(reader);
        if (boundaries.has(length) && length > headers) {
          reader.end();
        } else {
          expectStreamError('TRUNCATED', () => reader.end());
        }
      }
    });

    it('mutants give typed errors or what stands in the bytes', () => {
      const bytes = small();
      const offsets = readItems(bytes).map((item) => item.offset);
      const random = seeded(4711);
      const codes = new Set<string>();
      for (let round = 0; round < 5000; round += 1) {
        const mutant = bytes.slice(0, bytes.length - random(2) * random(bytes.length));
        const near = offsets[random(offsets.length)] ?? 0;
        for (let flips = 1 + random(3); flips > 0; flips -= 1) {
          const at = random(3) === 0 ? random(bytes.length) : near + random(16);
          if (at < mutant.length) {
            mutant[at] = random(256);
          }
        }
        try {
          const items = readItems(mutant);
          items.forEach((item, index) => {
            const end = items[index + 1]?.offset ?? mutant.length;
            if (item.kind === 'record') {
              expectSameBytes(
                item.record.body,
                mutant.subarray(item.offset + 8, item.offset + 8 + item.record.body.length),
              );
              expect(item.offset + 8 + paddedLength(item.record.body.length)).to.equal(end);
            }
          });
          codes.add('clean');
        } catch (error) {
          if (!(error instanceof StreamError)) {
            throw error;
          }
          codes.add(error.code);
        }
      }
      expect([...codes]).to.include.members([
        'clean',
        'BAD_MARKER',
        'BAD_ID',
        'TRUNCATED',
        'BAD_RECORD',
        'RECORD_TOO_LONG',
      ]);
    });
  });

  describe('interleaving', () => {
    const layersOf = (...parts: Uint8Array[]) =>
      readItems(concatenate([opening, ...parts]))
        .slice(3)
        .map(nameOf);

    it('after CHECKPOINT libxl, after CHECKPOINT_END libxc', () => {
      expect(
        layersOf(checkpoint, encodeRecord(CHECKPOINT_END), pages, libxcEnd, encodeRecord(END)),
      ).to.deep.equal([
        'libxc CHECKPOINT',
        'libxl CHECKPOINT_END',
        'libxc PAGE_DATA',
        'libxc END',
        'libxl END',
      ]);
    });

    it('type 5 after CHECKPOINT_END is CHECKPOINT_STATE, or the vCPU record if it has a context', () => {
      const state = encodeRecord(CHECKPOINT_STATE, encodeCheckpointState(CheckpointState.NEW));
      const vcpu = encodeRecord(RecordType.X86_PV_VCPU_EXTENDED, new Uint8Array(72));
      const between = [checkpoint, encodeRecord(CHECKPOINT_END)];
      expect(layersOf(...between, state, pages).slice(2)).to.deep.equal([
        'libxl CHECKPOINT_STATE',
        'libxc PAGE_DATA',
      ]);
      expect(layersOf(...between, vcpu).slice(2)).to.deep.equal(['libxc X86_PV_VCPU_EXTENDED']);
    });

    it('an end of what has not begun, or has not ended, is refused', () => {
      const refused = (...parts: Uint8Array[]) => {
        const { facts } = expectStreamError('BAD_RECORD', () => layersOf(...parts));
        expect(facts['offset']).to.equal(concatenate([opening, ...parts]).length - 8);
      };
      refused(libxcEnd, encodeRecord(CHECKPOINT_END));
      refused(checkpoint, encodeRecord(END));
      refused(checkpoint, encodeRecord(LIBXC_CONTEXT));
    });

    it('octets after the outermost END are TRAILING_DATA, unless taken', () => {
      const whole = concatenate([opening, libxcEnd, encodeRecord(END), counting(3)]);
      expectStreamError('TRAILING_DATA', () => readItems(whole));
    });

    it('a long libxl record is refused from its header', () => {
      const reader = new RecordReader({ recordLengthMax: 4096 });
      reader.push(encodeLibxlHeader());
      expect(reader.next()).to.equal(null);
      expect(reader.offset).to.equal(16);
      reader.push(Uint8Array.of(3, 0, 0, 0, 1, 16, 0, 0));
      const { message } = expectStreamError('RECORD_TOO_LONG', () => reader.next());
      expect(message).to.contain('Emulator context');
    });
  });

  describe('wrong headers', () => {
    const changed = (bytes: Uint8Array, offset: number, octet: number) => {
      const copy = bytes.slice();
      copy[offset] = octet;
      return copy;
    };

    it('xl', () => {
      const good = encodeXlHeader(xlHeaderOf('{}'));
      const tried = (bytes: Uint8Array) => () => readItems(bytes);
      expectStreamError('BAD_MARKER', tried(changed(good, 0, 0x59)));
      expectStreamError('BAD_ID', tried(changed(good, 31, 0x59)));
      expectStreamError('BAD_MARKER', tried(changed(good, 32, 9)));
      const swapped = good.slice();
      swapped.set([1, 2, 3, 4], 32);
      expectStreamError('BIG_ENDIAN', tried(swapped));
      expectStreamError('UNSUPPORTED_VERSION', tried(changed(good, 36, 1)));
      expectStreamError('UNSUPPORTED_VERSION', tried(changed(good, 36, 7)));
      expectStreamError('UNSUPPORTED_VERSION', tried(changed(good, 39, 0x80)));
      expectStreamError('RECORD_TOO_LONG', tried(changed(good, 47, 1)));
      expectStreamError('BAD_RECORD', tried(changed(good, 48, 4)));
      expectStreamError('BAD_RECORD', tried(changed(good.subarray(0, 48), 44, 0)));
      expectStreamError('TRUNCATED', tried(good));
      const later = { ...xlHeaderOf('{}'), optionalFlags: 6, more: counting(9) };
      const bytes = encodeXlHeader(later);
      expect(decodeXlHeader(bytes)).to.deep.equal(later);
      const reader = new RecordReader();
      reader.push(concatenate([bytes, opening]));
      expect(reader.headers()).to.include({ domainType: 2 });
      expect(reader.offset).to.equal(bytes.length + opening.length);
    });

    it('libxl', () => {
      const good = encodeLibxlHeader();
      const tried = (bytes: Uint8Array) => () => readItems(bytes);
      expectStreamError(
        'BAD_ID',
        tried(concatenate([encodeXlHeader(xlHeaderOf('{}')), changed(good, 3, 0)])),
      );
      for (const version of [0, 1, 3]) {
        expectStreamError('UNSUPPORTED_VERSION', tried(changed(good, 11, version)));
      }
      expectStreamError('BIG_ENDIAN', tried(changed(good, 15, 1)));
      const legacy = encodeLibxlHeader({ legacy: true });
      const [item] = readItems(concatenate([legacy, opening.subarray(legacy.length)]));
      expect(item).to.deep.equal({ layer: 'libxl', kind: 'header', offset: 0, header: { legacy: true } });
      expectSameBytes(concatenate(itemParts(item as LayeredItem)), legacy);
    });

    it("libxc, with the file's offsets", () => {
      const bad = concatenate([
        encodeLibxlHeader(),
        encodeRecord(LIBXC_CONTEXT),
        changed(libxcHeaders, 15, 9),
      ]);
      const { facts } = expectStreamError('UNSUPPORTED_VERSION', () => readItems(bad));
      expect(facts).to.include({ offset: 24 + 12, version: 9 });
    });
  });
});
