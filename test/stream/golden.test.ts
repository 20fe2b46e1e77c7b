// Real streams are the truth: what the reader finds in them must be what stands in the record lists, and each body
// decoded and encoded again must be the bytes that Xen wrote.

import { expect } from 'chai';
import { checkRecord } from '../../src/stream/check.js';
import { DomainType, PAGE_DATA_HEADER_BYTES, RecordType, paddedLength } from '../../src/stream/format.js';
import { PageBatch, decodePageData } from '../../src/stream/page-data.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { decodeDirtyPfnList, encodeDirtyPfnList } from '../../src/stream/records/dirty-pfns.js';
import { decodeHvmContext, decodeHvmParams, encodeHvmParams } from '../../src/stream/records/hvm.js';
import {
  decodePvInfo,
  decodePvP2mFrames,
  decodePvVcpu,
  decodeSharedInfo,
  encodePvInfo,
  encodePvP2mFrames,
  encodePvVcpuHeader,
} from '../../src/stream/records/pv.js';
import { decodeTscInfo, encodeTscInfo } from '../../src/stream/records/tsc.js';
import {
  concatenate,
  encodeHeaders,
  recordParts,
  writePageDataHeader,
  writePfnEntry,
} from '../../src/stream/writer.js';
import { type ListedRecord, readFixture, readRecordList } from '../fixtures/xen.js';
import { expectSameBytes, readAll } from './streams.js';
import { decodeCpuidPolicy, decodeMsrPolicy, encodeCpuidPolicy, encodeMsrPolicy } from './codecs.js';

const batch = new PageBatch();

/** A record's parts from its decoded values: nothing of the original body but blobs and page data. */
function encodeAgain(record: StreamRecord): Uint8Array[] {
  switch (record.type) {
    case RecordType.PAGE_DATA: {
      decodePageData(record, batch);
      const entries = new Uint8Array(batch.dataOffset);
      writePageDataHeader(entries, 0, batch.count);
      for (let index = 0; index < batch.count; index += 1) {
        const at = PAGE_DATA_HEADER_BYTES + index * 8;
        writePfnEntry(entries, at, batch.pfns[index] ?? 0, batch.types[index] ?? 0);
      }
      return recordParts(record.type, entries, record.body.subarray(batch.dataOffset));
    }
    case RecordType.X86_TSC_INFO:
      return recordParts(record.type, encodeTscInfo(decodeTscInfo(record)));
    case RecordType.HVM_PARAMS:
      return recordParts(record.type, encodeHvmParams(decodeHvmParams(record)));
    case RecordType.HVM_CONTEXT:
      return recordParts(record.type, decodeHvmContext(record));
    case RecordType.X86_CPUID_POLICY:
      return recordParts(record.type, encodeCpuidPolicy(decodeCpuidPolicy(record)));
    case RecordType.X86_MSR_POLICY:
      return recordParts(record.type, encodeMsrPolicy(decodeMsrPolicy(record)));
    case RecordType.X86_PV_INFO:
      return recordParts(record.type, encodePvInfo(decodePvInfo(record)));
    case RecordType.X86_PV_P2M_FRAMES:
      return recordParts(record.type, encodePvP2mFrames(decodePvP2mFrames(record, 8)));
    case RecordType.X86_PV_VCPU_BASIC:
    case RecordType.X86_PV_VCPU_EXTENDED:
    case RecordType.X86_PV_VCPU_XSAVE:
    case RecordType.X86_PV_VCPU_MSRS: {
      const { vcpuId, context } = decodePvVcpu(record, 8);
      return recordParts(record.type, encodePvVcpuHeader(vcpuId), context);
    }
    case RecordType.SHARED_INFO:
      return recordParts(record.type, decodeSharedInfo(record));
    case RecordType.CHECKPOINT_DIRTY_PFN_LIST:
      return recordParts(record.type, encodeDirtyPfnList(decodeDirtyPfnList(record)));
    default:
      expect(record.body.length, `type ${record.type} has no body`).to.equal(0);
      return recordParts(record.type);
  }
}

/** What a record list says after the name. */
function detailOf(record: StreamRecord, checkpoints: number): string {
  if (record.type === RecordType.CHECKPOINT) {
    return `#${checkpoints}`;
  }
  if (record.type !== RecordType.PAGE_DATA) {
    return '';
  }
  decodePageData(record, batch);
  const counts = new Map<number, number>();
  for (let index = 0; index < batch.count; index += 1) {
    const type = batch.types[index] ?? 0;
    counts.set(type, (counts.get(type) ?? 0) + 1);
  }
  const types = [...counts].sort(([one], [other]) => one - other);
  const listed = types.map(([type, count]) => `${type.toString(16)}:${count}`).join(',');
  return `${batch.count} pfns first=0x${(batch.pfns[0] ?? 0).toString(16)} types={${listed}}`;
}

const nameOf = new Map<number, string>(Object.entries(RecordType).map(([name, type]) => [type, name]));

function listOf(records: readonly StreamRecord[]): ListedRecord[] {
  let checkpoints = 0;
  return records.map((record) => {
    checkpoints += record.type === RecordType.CHECKPOINT ? 1 : 0;
    return {
      offset: record.offset,
      length: 8 + paddedLength(record.body.length),
      layer: 'libxc',
      name: nameOf.get(record.type) ?? '?',
      detail: detailOf(record, checkpoints),
    };
  });
}

const streams = [
  { name: 'pv-save.libxc', list: 'pv-save', domainType: DomainType.X86_PV },
  { name: 'pv-live.libxc', list: 'pv-live', domainType: DomainType.X86_PV },
  { name: 'pv-remus-6ckpt.libxc', list: 'pv-remus-6ckpt', domainType: DomainType.X86_PV },
  { name: 'hvm-remus-6ckpt.libxc', list: 'hvm-remus-6ckpt', domainType: DomainType.X86_HVM },
  { name: 'hvm-save.libxc', list: 'hvm-save', domainType: DomainType.X86_HVM },
  {
    name: 'pv-linux-2vcpu-save-zeroed.libxc',
    list: 'pv-linux-2vcpu-save-zeroed.libxc',
    domainType: DomainType.X86_PV,
  },
];

describe('streams of real Xen', () => {
  for (const { name, list, domainType } of streams) {
    it(`${name}: the record list, every record well-formed, and the same bytes again`, () => {
      const bytes = readFixture(name);
      const reader = new RecordReader();
      reader.push(bytes);
      expect(reader.headers()).to.deep.equal({
        version: 3,
        domainType,
        pageShift: 12,
        xenMajor: 4,
        xenMinor: 17,
      });
      expectSameBytes(encodeHeaders({ domainType, xenMajor: 4, xenMinor: 17 }), bytes.subarray(0, 40));

      const records: StreamRecord[] = [];
      for (let record = reader.next(); record !== null; record = reader.next()) {
        records.push(record);
        checkRecord(record, domainType);
        checkRecord(record, domainType, 8);
        expect(record.body.length === 0 || record.body.buffer === bytes.buffer, 'no copy').to.equal(true);
        const again = concatenate(encodeAgain(record));
        expectSameBytes(
          again,
          bytes.subarray(record.offset, record.offset + again.length),
          `record at ${record.offset}`,
        );
      }
      reader.end();
      expect(reader.offset).to.equal(bytes.length);

      // A list of a whole xl file has other offsets; the libxc records' lengths add up to ours.
      let offset = 0;
      const expected = readRecordList(list)
        .records.filter(({ layer }) => layer === 'libxc')
        .map((listed) => {
          const moved = { ...listed, offset };
          offset += listed.length;
          return moved;
        });
      expect(expected.splice(0, 2).map((header) => header.length)).to.deep.equal([24, 16]);
      expect(offset).to.equal(bytes.length);
      expect(listOf(records)).to.deep.equal(expected);
    });
  }

  it('hvm-colo-6ckpt.libxc: six checkpoints, and the same bytes again', () => {
    const bytes = readFixture('hvm-colo-6ckpt.libxc');
    const records = readAll(bytes);
    for (const record of records) {
      checkRecord(record, DomainType.X86_HVM);
      const again = concatenate(encodeAgain(record));
      expectSameBytes(again, bytes.subarray(record.offset, record.offset + again.length));
    }
    expect(records.filter((record) => record.type === RecordType.CHECKPOINT).length).to.equal(6);
    expect(records.at(-1)).to.include({ type: RecordType.CHECKPOINT, offset: bytes.length - 8 });
  });

  it('hvm-colo-back.libxc: a back channel has no headers, and five lists of dirty pfns', () => {
    const bytes = readFixture('hvm-colo-back.libxc');
    const reader = new RecordReader({ withoutHeaders: true });
    reader.push(bytes);
    expect(reader.headers()).to.equal(null);
    const records = readAll(bytes, { withoutHeaders: true });
    expect(records.map((record) => record.type)).to.deep.equal(
      new Array(5).fill(RecordType.CHECKPOINT_DIRTY_PFN_LIST),
    );
    for (const record of records) {
      checkRecord(record, DomainType.X86_HVM);
      expect(decodeDirtyPfnList(record).length).to.equal(21);
    }
    expectSameBytes(concatenate(records.flatMap(encodeAgain)), bytes);
  });
});
